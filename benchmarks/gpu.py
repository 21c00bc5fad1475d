"""What a CUDA device is worth: the same numbers, and seconds beside the processor; needs the package and no data.

Run `python benchmarks/gpu.py` where PyTorch finds a CUDA device. Cells are simulated. An epoch is what a further one
adds, as in speed.py; the bound and its gradients are compared with the same noise on both devices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from provenance import provenance, write_json
from torch import Tensor

import scanvi_tutorial as st
from scanvi_tutorial.config import UNLABELED_TRAIN
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.minibatches import read_half

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
SIZES = ((700, 765), (20_000, 2_000))  # cells and genes; the first are annotated, too
SHORT, LONG = 1, 4  # epochs
FITS = 2  # of an annotation


@contextmanager
def _noise_of_the_processor() -> Iterator[None]:
    """Draw noise on the processor and send it to the device, so that both see the same."""
    own = torch.randn_like
    torch.randn_like = lambda like: own(like.detach().cpu()).to(like.device)
    try:
        yield
    finally:
        torch.randn_like = own


def gradients(adata: AnnData, device: str, norm: str) -> tuple[float, dict[str, Tensor]]:
    """Return the bound of a minibatch and its gradients; without dropout, whose masks devices draw differently."""
    config = st.ModelConfig(norm=norm, dropout_rate=0.0)
    model = SCANVI.from_anndata(adata, config).to(device).train()
    half = read_half(model.cells(adata), np.arange(128), sparse=True).to(torch.device(device))
    torch.manual_seed(0)
    with _noise_of_the_processor():
        bound, _ = FastEngine(model).bound(half)
        bound.backward()
    return bound.item(), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def difference(adata: AnnData, device: str, norm: str) -> float:
    """Return the largest relative difference, of the bound and of the gradients by parameter, from the processor."""
    (bound, here), (there_bound, there) = (gradients(adata, where, norm) for where in ("cpu", device))
    of_gradients = [float((here[name] - there[name]).norm() / here[name].norm()) for name in here]
    return max(abs(there_bound / bound - 1), *of_gradients)


def seconds_of_an_epoch(adata: AnnData, device: str) -> float:
    """Return what a further epoch adds, in seconds."""
    spent = {}
    for epochs in (SHORT, SHORT, LONG):  # the first warms up
        start = time.perf_counter()
        st.fit(SCANVI.from_anndata(adata), adata, st.TrainConfig(device=device, max_epochs=epochs, patience=epochs))
        spent[epochs] = time.perf_counter() - start
    return (spent[LONG] - spent[SHORT]) / (LONG - SHORT)


def seconds_of_an_annotation(adata: AnnData, device: str) -> float:
    """Return seconds from counts to labels with a few fits, one after the other."""
    start = time.perf_counter()
    st.annotate(adata.copy(), fits=FITS, jobs=1, train_config=replace(UNLABELED_TRAIN, device=device))
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = []
    for cells, genes in SIZES:
        adata = st.load("simulated", cells=cells, genes=genes, per_label=25)
        for device in ("cpu", asked.device):
            row = {"cells": cells, "genes": genes, "device": device, "epoch": seconds_of_an_epoch(adata, device)}
            if (cells, genes) == SIZES[0]:
                row[f"annotate, {FITS} fits"] = seconds_of_an_annotation(adata, device)
            if device != "cpu":
                row["difference"] = max(difference(adata, device, norm) for norm in ("layer", "batch"))
            rows.append(row)
            print(row, flush=True)
    name = torch.cuda.get_device_name() if asked.device.startswith("cuda") else asked.device
    write_json(asked.out, provenance() | {"device": name, "rows": rows})
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()

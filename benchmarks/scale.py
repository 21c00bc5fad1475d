"""From one process to several, and from cells in memory to cells on disk; `make scale` (chapter 14).

    python benchmarks/scale.py --parts processes memory readers types

`processes`: one fit over two processes beside one, with as many cells a step; two fits at once that do not talk show
what the machine gives. `memory`: what a process holds beside pages of files that the system can drop, and how that
grows with cells on disk, which are a block of simulated cells over and over. `readers`: minibatches of random cells by
ours, scDataset and annbatch, which are taken where they are installed (annbatch needs Python 3.12). `types`: seconds
of a step, memory and accuracy with many types, whose best accuracy is known. Needs the extra `cluster`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.io import write_elem
from provenance import PACKAGES, provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.config import UNLABELED_TRAIN, ModelConfig, TrainConfig
from scanvi_tutorial.data.simulated import bayes_probabilities
from scanvi_tutorial.training.processes import launch

RESULTS = Path(__file__).resolve().parent / "results" / "scale.json"
SIZES = (100_000, 1_000_000, 10_000_000)
BLOCK, GENES_ON_DISK = 100_000, 200
STEPS = 200  # of a fit on cells on disk: a part of an epoch


def processes() -> list[dict[str, Any]]:
    """Return seconds of an epoch for one process, two that share a fit, and two fits at once."""
    adata, rows = st.load("simulated", cells=20_000, genes=2_000), []
    for batch_size in (128, 512):
        config = replace(UNLABELED_TRAIN, max_epochs=3, batch_size=batch_size)
        half = adata[:10_000].copy()
        runs = {
            "one process": _fit(adata, config),
            "two share a fit": launch(partial(_fit, adata, config), 2),
            "two fits, half of the cells each": launch(
                partial(_alone, half, replace(config, batch_size=batch_size // 2)), 2
            ),
        }
        for name, seconds in runs.items():
            rows.append({"run": name, "batch_size": batch_size, "epoch": seconds})
            print(rows[-1], flush=True)
    return rows


def _fit(adata: AnnData, config: TrainConfig, fabric: Any = None) -> float:
    torch.set_num_threads(1)
    model = st.SCANVI.from_anndata(adata)
    history = st.fit(model, adata, config, fabric=fabric)
    return history.seconds / len(history)


def _alone(adata: AnnData, config: TrainConfig, fabric: Any) -> float:
    """Fit beside another process, without a word between them."""
    return _fit(adata, config)


def memory() -> list[dict[str, Any]]:
    """Return what is held, and seconds, by how many cells are on disk; each size in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory(dir=RESULTS.parents[2] / "_build") as place:
        for cells in SIZES:
            path = _written(Path(place) / f"{cells}.h5ad", cells)
            command = [sys.executable, __file__, "--child", str(path)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            rows.append({"cells": cells, "file_mb": path.stat().st_size / 1e6} | json.loads(found))
            print(rows[-1], flush=True)
            path.unlink()
    return rows


def _written(path: Path, cells: int) -> Path:
    """Write a block of simulated cells over and over."""
    block = st.load("simulated", cells=BLOCK, genes=GENES_ON_DISK, per_label=25)
    labels = block.obs["label"].astype(str).to_numpy()
    AnnData(block.X, obs=block.obs[["label"]], var=block.var[[]]).write_h5ad(path)
    copies = cells // BLOCK
    known = np.concatenate([labels, np.full((copies - 1) * BLOCK, "Unknown")])
    obs = pd.DataFrame({"label": pd.Categorical(known)}, index=np.arange(cells).astype(str))
    with h5py.File(path, "a") as file:
        write_elem(file, "obs", obs)
        matrix = anndata.io.sparse_dataset(file["X"])
        for _ in range(copies - 1):
            matrix.append(block.X)
    return path


def child(path: Path) -> dict[str, float]:
    """Open cells on disk, and fit some steps; return what was held at most in each part, in MB, and seconds."""
    found, folder = {}, path.parent / f"{path.stem}-kept"
    with _held() as held:
        cells = st.open_cells(path, GENES_ON_DISK, folder=folder)
    found |= {"open_mb": held["mb"], "open_seconds": held["seconds"]}
    with _held() as held:
        model = st.SCANVI.from_anndata(cells)
        _some_steps(model, cells, TrainConfig(max_epochs=1, held_out=1e-4))
    return found | {"fit_mb": held["mb"], "fit_seconds": held["seconds"]}


class _Enough(Exception):
    pass


def _some_steps(model: st.SCANVI, cells: AnnData, config: TrainConfig) -> None:
    taken = []

    def after_step() -> None:
        taken.append(1)
        if len(taken) == STEPS:
            raise _Enough

    with suppress(_Enough):
        st.fit(model, cells, config, after_step=after_step)


@contextmanager
def _held() -> Iterator[dict[str, float]]:
    """Note the most memory that is held beside pages of files, in MB above what was held before, and seconds."""
    found, ended, start = {"mb": 0.0}, threading.Event(), time.perf_counter()
    before = _anonymous()

    def watch() -> None:
        while not ended.wait(0.02):
            found["mb"] = max(found["mb"], _anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        found["seconds"] = time.perf_counter() - start


def _anonymous() -> float:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def readers() -> list[dict[str, Any]]:
    """Return how many cells a second come in random minibatches of 128 from the same file."""
    rows = []
    with tempfile.TemporaryDirectory(dir=RESULTS.parents[2] / "_build") as place:
        path = _written(Path(place) / "cells.h5ad", SIZES[1])
        start = time.perf_counter()
        cells = st.open_cells(path, GENES_ON_DISK, folder=Path(place) / "kept")
        once = time.perf_counter() - start
        order = np.random.default_rng(0).permutation(cells.n_obs)
        mapped = (cells.X[order[first : first + 128]] for first in range(0, 100_000, 128))
        rows.append({"reader": "open_cells, any cells", "cells_a_second": _rate(mapped), "once_seconds": once})
        print(rows[-1], flush=True)
        try:
            from scdataset import BlockShuffling, scDataset
        except ImportError:
            return rows
        backed = anndata.read_h5ad(path, backed="r")
        for size, fetch in ((1, 16), (16, 64), (64, 256)):
            loader = scDataset(
                backed,
                BlockShuffling(block_size=size),
                batch_size=128,
                fetch_factor=fetch,
                fetch_callback=lambda cells, rows: cells.X[rows],
                seed=0,
            )
            name = f"scDataset, blocks of {size}, {fetch} minibatches at once"
            rows.append({"reader": name, "cells_a_second": _rate(iter(loader), most=20), "once_seconds": 0.0})
            print(rows[-1], flush=True)
    return rows


def _rate(minibatches: Iterator[Any], most: float = 20.0) -> float:
    """Return cells a second, over `most` seconds at the longest."""
    seen, start = 0, time.perf_counter()
    for minibatch in minibatches:
        seen += minibatch.shape[0]
        if time.perf_counter() - start > most:
            break
    return seen / (time.perf_counter() - start)


def types() -> list[dict[str, Any]]:
    """Return what a step costs, and how right names are, with few and many types in branches."""
    rows = []
    for number, branches, genes, cells in ((4, 0, 600, 4_000), (50, 8, 600, 4_000)):
        adata = st.load("simulated", cells=cells, genes=genes, types=number, branches=branches, effect=2.5)
        del adata.uns["markers"]
        row = {"types": number, "cells": cells, "genes": genes}
        for objective in ("labels", "unlabeled"):
            with _held() as held:
                model = st.SCANVI.from_anndata(adata, ModelConfig())
                _some_steps(model, adata, TrainConfig(max_epochs=20, objective=objective, held_out=0.01))
            row |= {f"{objective}_ms": 1e3 * held["seconds"] / STEPS, f"{objective}_mb": held["mb"]}
        truth, free = adata.obs["truth"].astype(str).to_numpy(), (adata.obs["label"] == "Unknown").to_numpy()
        best, simple = bayes_probabilities(adata), st.evaluation.logistic_regression(adata)
        with _held() as held:
            st.annotate(adata, fits=2, jobs=2)
        row |= {"annotate_seconds": held["seconds"], "annotate_mb": held["mb"]}
        said = {
            "Bayes": best.idxmax(axis=1),
            "logistic regression": simple.idxmax(axis=1),
            "annotate": adata.obs["scanvi_label"].astype(str),
        }
        row |= {name: float((answer.to_numpy() == truth)[free].mean()) for name, answer in said.items()}
        rows.append(row)
        print(row, flush=True)
    return rows


PARTS = {"processes": processes, "memory": memory, "readers": readers, "types": types}


def main() -> None:
    """Measure the parts that are asked for, and write each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        print(json.dumps(child(asked.child)))
        return
    for part in asked.parts:
        about = provenance((*PACKAGES, "lightning-fabric", "distributed", "scdataset", "annbatch"))
        rows = PARTS[part]()
        kept = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
        write_json(asked.out, kept | {part: about | {"rows": rows}})


if __name__ == "__main__":
    import scale  # by name, under which other processes find its functions

    scale.main()

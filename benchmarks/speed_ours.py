"""This book's scANVI as the speed benchmark runs it: from the file on disk to labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

import scanvi_tutorial as st
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.config import UNLABELED_TRAIN

__all__ = ["from_file", "recommended_from_file"]


def from_file(
    path: str,
    *,
    labels_key: str = "label",
    seed: int = 0,
    genes: int = 2_000,
    tutorial: bool = False,
    epochs: int | None = None,
    on_disk: bool = False,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of one fit.

    Args:
        path: An `.h5ad` file; `genes` of it are read, in blocks.
        labels_key: Column of `obs` with the labels.
        seed: Of everything drawn.
        genes: How many of them the model sees.
        tutorial: Take the network sizes and minibatches of Pyro's tutorial, and learn from all that it learns from.
        epochs: Exactly so many, whatever the limit of steps is; None leaves the length to the defaults.
        on_disk: Leave the counts of the chosen genes in files.
        model: Fields of `ModelConfig`.
        train: Further fields of `TrainConfig`.
    """
    config = st.ModelConfig.tutorial() if tutorial else st.ModelConfig(**(model or {}))
    settings = st.TrainConfig(seed=seed, device="cpu", **(train or {}))
    if tutorial:  # an epoch there is 200 steps on 200 labeled cells, from all molecules, with no cell held out
        settings = replace(settings, batch_size=100, labeled_batch_size=2, held_out=1e-9, min_depth=1.0)
    if epochs is not None:
        settings = replace(settings, max_epochs=epochs, max_steps=10**9, patience=10**9)
    with TemporaryDirectory(dir=Path(path).parent) as place:
        adata = st.open_cells(path, genes, folder=place if on_disk else None)
        scanvi = st.SCANVI.from_anndata(adata, config, labels_key=labels_key, seed=seed)
        history = st.fit(scanvi, adata, settings)
        table = st.label_probabilities(scanvi, adata, seed=seed)
    table.attrs = {"model": asdict(config), "train": asdict(settings), "epochs": len(history)}
    table.attrs |= {"bounds": history.frame["bound_held_out"].tolist(), "seconds_of_bounds": history.seconds}
    return table


def recommended_from_file(
    path: str,
    *,
    labels_key: str = "label",
    seed: int = 0,
    genes: int = 2_000,
    fits: int | None = None,
    train: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of what the book recommends, fitted anew; arguments as above."""
    settings = replace(UNLABELED_TRAIN, device="cpu", **(train or {}))
    ensemble = Ensemble(train=settings, fits=fits, keep=False, jobs=torch.get_num_threads())  # a thread a fit
    return ensemble(st.open_cells(path, genes), labels_key=labels_key, seed=seed)

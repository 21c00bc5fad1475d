"""scANVI of this book as a `Baseline` for the benchmarks: model, fit, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from anndata import AnnData

import scanvi_tutorial as st

__all__ = ["scanvi"]


def scanvi(
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of one fitted `SCANVI`, averaged over q(z2 | x).

    `model` and `train` change fields of `ModelConfig()` and `TrainConfig()`; `seed` draws all that is drawn.
    """
    model_config = st.ModelConfig(**(model or {}))
    train_config = st.TrainConfig(**{"seed": seed, "device": "cpu", **(train or {})})
    fitted = st.SCANVI.from_anndata(adata, model_config, labels_key=labels_key, seed=seed)
    history = st.fit(fitted, adata, train_config)
    table = st.label_probabilities(fitted, adata, seed=seed)
    table.attrs = {"model": asdict(model_config), "train": asdict(train_config), "epochs": len(history.frame)}
    return table

"""scvi-tools' SCANVI as its documentation trains it. Runs in the environment that `make peers` makes, nowhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import scvi
from anndata import AnnData

__all__ = ["scanvi"]


def scanvi(
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    scvi_epochs: int | None = None,
    scanvi_epochs: int | None = None,
    train_size: float | None = None,
    watch: bool = False,
) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of SCANVI, started from an SCVI model of the same cells.

    Args:
        adata: Raw counts; cells without a label are "Unknown".
        labels_key: Column of `obs` with the labels.
        seed: Of everything drawn.
        model: Arguments of `scvi.model.SCVI`, which SCANVI takes over.
        scvi_epochs: Epochs without labels; None leaves it to scvi-tools (400 up to 20,000 cells).
        scanvi_epochs: Epochs with labels; None leaves it to scvi-tools (at most 10 after SCVI).
        train_size: Share of the cells, and of the seeds, that is trained on; None leaves it to scvi-tools (0.9).
        watch: Look at the bound on held-out cells after each epoch without labels.
    """
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(adata, labels_key=labels_key)
    vae = scvi.model.SCVI(adata, **(model or {}))
    plain = {"accelerator": "cpu", "train_size": train_size, "enable_progress_bar": False}
    begun = time.perf_counter()
    vae.train(max_epochs=scvi_epochs, check_val_every_n_epoch=1 if watch else None, **plain)
    seconds = time.perf_counter() - begun
    classifier = scvi.model.SCANVI.from_scvi_model(vae, unlabeled_category="Unknown")
    classifier.train(max_epochs=scanvi_epochs, **plain)
    table = classifier.predict(soft=True)
    table.attrs = {
        "scvi_epochs": vae.trainer.current_epoch,
        "scanvi_epochs": classifier.trainer.current_epoch,
        "seeds_trained_on": _seeds_trained_on(classifier, adata, labels_key),
        "bounds": [-float(value) for value in vae.history["elbo_validation"].iloc[:, 0]] if watch else [],
        "seconds_of_bounds": seconds,
        "module": {"n_latent": classifier.module.n_latent, "n_layers": classifier.module.n_layers},
    }
    return table


def _seeds_trained_on(model: scvi.model.SCANVI, adata: AnnData, labels_key: str) -> int:
    return int((adata.obs[labels_key].iloc[model.train_indices] != "Unknown").sum())

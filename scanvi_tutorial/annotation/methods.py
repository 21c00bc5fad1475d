"""One fit of scANVI as one method beside others.

Compared in book/08_evaluation.md. It is a `Baseline`: counts and seed labels in, probabilities out, never the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.training.cache import fit_or_load

__all__ = ["SingleFit"]


@dataclass(frozen=True, slots=True)
class SingleFit:
    """One fit of scANVI, of this model trained in this way; the seed draws its weights and minibatches.

    `samples` draws of the state are averaged over; 0 asks the classifier at the posterior mean.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    samples: int = 25
    folder: str | Path | None = None  # where fits are kept; None is `cache_folder()`

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        train = replace(self.train, seed=seed)
        fitted, _ = fit_or_load(adata, self.model, train, labels_key=labels_key, folder=self.folder)
        return label_probabilities(fitted, adata, samples=self.samples, seed=seed)

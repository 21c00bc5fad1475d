"""scANVI as one method beside others, in every variant that the book compares, and the one that it recommends.

Compared in book/08_evaluation.md. Each is a `Baseline`: counts and seed labels in, probabilities out, never the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from anndata import AnnData
from sklearn.linear_model import LogisticRegression

from scanvi_tutorial.cache import fit_or_load
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.evaluation import Stack, fit_on_seeds, label_spreading, logistic_regression, stack
from scanvi_tutorial.inference import label_probabilities, latent

__all__ = ["FrozenLatent", "ScANVI", "recommended"]


@dataclass(frozen=True, slots=True)
class ScANVI:
    """One fit of scANVI, of this model trained in this way; the seed draws its weights and minibatches.

    `samples` draws of the state are averaged over; 0 asks the classifier at the posterior mean.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    samples: int = 25
    folder: str | Path | None = None  # where fits are kept; None is `cache_folder()`

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        model, _ = fit_or_load(adata, self.model, replace(self.train, seed=seed), labels=labels, folder=self.folder)
        return label_probabilities(model, adata, samples=self.samples, seed=seed)


@dataclass(frozen=True, slots=True)
class FrozenLatent:
    """A classifier on a latent space that was learned without labels: U on all cells, then logistic regression."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    folder: str | Path | None = None

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        blind = replace(self.model, label_weight=0.0)
        train = replace(self.train, seed=seed, objective="everywhere")
        model, _ = fit_or_load(adata, blind, train, labels=labels, folder=self.folder)
        states = latent(model, adata)
        return fit_on_seeds(LogisticRegression(max_iter=2_000), adata, labels=labels, features=states)


def recommended(
    adata: AnnData,
    *,
    labels: str = "label",
    seed: int = 0,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    folds: int = 5,
    folder: str | Path | None = None,
) -> Stack:
    """Return what the book recommends: scANVI, logistic regression and label spreading, stacked and calibrated.

    As many fits of scANVI as `folds` (or as the commonest type has seeds, if those are fewer), each without its share
    of the seeds, are averaged; the seeds that each had not seen choose how much every method counts, and one
    temperature (`stack`). No cell is needed beyond `adata`: raw counts in `X`, and a label column in which cells
    without a label are missing or "Unknown". Fits are kept in `folder`, `cache_folder()` where it is None.
    """
    methods = {
        "scANVI": ScANVI(model or ModelConfig(), train or TrainConfig(), folder=folder),
        "logistic regression": logistic_regression,
        "label spreading": label_spreading,
    }
    return stack(methods, adata, labels=labels, folds=folds, seed=seed)

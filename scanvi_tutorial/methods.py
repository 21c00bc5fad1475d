"""scANVI as one method beside others, in every variant that the book compares, and the one that it recommends.

Compared in book/08_evaluation.md. Each is a `Baseline`: counts and seed labels in, probabilities out, never the truth.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.linear_model import LogisticRegression

from scanvi_tutorial.cache import fit_or_load
from scanvi_tutorial.checks import InputError, check_batches, check_counts, check_labels
from scanvi_tutorial.config import UNLABELLED, ModelConfig, TrainConfig, progress
from scanvi_tutorial.evaluation import (
    Baseline,
    Stack,
    cross_fit,
    fit_on_seeds,
    label_spreading,
    logistic_regression,
    stack,
)
from scanvi_tutorial.history import History
from scanvi_tutorial.inference import label_probabilities, latent
from scanvi_tutorial.model import SCANVI
from scanvi_tutorial.training import fit

__all__ = ["FrozenLatent", "ScANVI", "plain_cells", "recommended", "stack_fits"]

SIMPLER: dict[str, Baseline] = {"logistic regression": logistic_regression, "label spreading": label_spreading}


@dataclass(frozen=True, slots=True)
class ScANVI:
    """One fit of scANVI, of this model trained in this way; the seed draws its weights and minibatches.

    `samples` draws of the state are averaged over; 0 asks the classifier at the posterior mean.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    samples: int = 25
    folder: str | Path | None = None  # where fits are kept; None is `cache_folder()`
    batch: str | None = None  # the column of obs with a batch that decoder and library know
    keep: bool = True  # False fits anew and leaves nothing on disk; so does a batch, which the cache does not know

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        return label_probabilities(self.fit(adata, labels, seed)[0], adata, samples=self.samples, seed=seed)

    def fit(self, adata: AnnData, labels: str, seed: int) -> tuple[SCANVI, History]:
        """Return the fitted model, and its history."""
        train = replace(self.train, seed=seed)
        if self.keep and self.batch is None:
            return fit_or_load(adata, self.model, train, labels=labels, folder=self.folder)
        model = SCANVI.from_anndata(adata, self.model, labels=labels, batch=self.batch, seed=seed)
        return model, fit(model, adata, train)


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
    layer: str | None = None,
    unlabelled: str | int = UNLABELLED,
    batch: str | None = None,
    jobs: int = 1,
) -> Stack:
    """Return what the book recommends: scANVI, logistic regression and label spreading, stacked and calibrated.

    As many fits of scANVI as `folds` (or as the commonest type has seeds, if those are fewer), each without its share
    of the seeds, are averaged; the seeds that each had not seen choose how much every method counts, and one
    temperature (`stack`). No cell is needed beyond `adata`. For a file of one's own, `annotate` does this and more.

    Args:
        adata: Raw counts, (cells, genes), of the genes that the methods are to see.
        labels: Column of `obs` with the labels; cells without one are missing there, or "Unknown".
        seed: Of folds, weights and minibatches.
        model: `ModelConfig()` where it is None.
        train: `TrainConfig()` where it is None.
        folds: Into how many parts the seeds are cut.
        folder: Where fits are kept; `cache_folder()` where it is None.
        layer: Where the counts are, if not in `X`.
        unlabelled: A further name for "without a label".
        batch: Column of `obs` with a batch that scANVI is to correct for; the simpler methods do not.
        jobs: How many fits run side by side, each in a process of its own.

    Raises:
        InputError: Where counts or labels cannot be used, and where no type has two seeds.
    """
    if (layer, unlabelled) != (None, UNLABELLED):
        adata = plain_cells(adata, labels, layer=layer, unlabelled=unlabelled, batch=batch)
    scanvi = ScANVI(model or ModelConfig(), train or TrainConfig(), folder=folder, batch=batch)
    return stack_fits(scanvi, adata, labels=labels, folds=folds, seed=seed, jobs=jobs)[0]


def plain_cells(
    adata: AnnData,
    labels: str,
    *,
    layer: str | None = None,
    unlabelled: str | int = UNLABELLED,
    batch: str | None = None,
) -> AnnData:
    """Return new cells with what a method reads and nothing else: counts in `X`, labels or none, batches.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    names, codes = check_labels(adata, labels, unlabelled=unlabelled)
    columns = {labels: pd.Categorical.from_codes(codes, names)}
    if batch is not None:
        if batch == labels:
            raise InputError(f"{batch!r} is named both as the column of labels and as that of batches. Name two.")
        columns[batch] = check_batches(adata, batch)
    obs = pd.DataFrame(columns, index=adata.obs_names)
    return AnnData(check_counts(adata, layer), obs=obs, var=pd.DataFrame(index=adata.var_names))


def stack_fits(
    scanvi: ScANVI,
    adata: AnnData,
    *,
    labels: str = "label",
    folds: int = 5,
    seed: int = 0,
    jobs: int = 1,
    whole: bool = False,
) -> tuple[Stack, tuple[SCANVI, History] | None, list[str]]:
    """Return scANVI stacked with the simpler methods, a fit on all labels if `whole`, and what was left out, in words.

    `cross_fit` asks for its fits one after another. So it is run twice: once to write down which fits it wants, which
    are then made side by side, and once to be handed the answers. A simpler method that fails on these cells (too few
    for a principal component, say) is left out.
    """
    asked = _Asked()
    cross_fit(asked, adata, labels=labels, folds=folds, seed=seed)
    wanted = {own: (shown, own) for own, shown in asked.cells.items()}
    tasks = [*wanted.values(), *([(adata, seed)] if whole else [])]
    fits = _side_by_side(scanvi, tasks, labels, jobs)
    answers: dict[str, Baseline] = {
        "scANVI": _Handed({own: said for own, (said, _) in zip(wanted, fits, strict=False)})
    }
    left_out = []
    for name, method in SIMPLER.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of convergence: hidden seeds tell what the answer is worth
                tables = {own: method(shown, labels=labels, seed=own) for shown, own in wanted.values()}
        except (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError) as error:
            left_out.append(f"The {name} part was left out, for it could not be fitted to these cells ({error}).")
            continue
        if all(np.isfinite(table.to_numpy()).all() for table in tables.values()):
            answers[name] = _Handed(tables)
        else:
            left_out.append(f"The {name} part was left out, for its probabilities were no numbers.")
    return stack(answers, adata, labels=labels, folds=folds, seed=seed), fits[-1][1] if whole else None, left_out


class _Asked:
    """A method that knows nothing, and writes down what it is asked."""

    def __init__(self) -> None:
        self.cells: dict[int, AnnData] = {}

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        self.cells[seed] = adata
        names = check_labels(adata, labels)[0]
        return pd.DataFrame(1 / len(names), adata.obs_names, names)


class _Handed:
    """A method whose answers are known already, by seed."""

    def __init__(self, answers: dict[int, pd.DataFrame]) -> None:
        self.answers = answers

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        return self.answers[seed]


def _side_by_side(
    scanvi: ScANVI, tasks: list[tuple[AnnData, int]], labels: str, jobs: int
) -> list[tuple[pd.DataFrame, tuple[SCANVI, History]]]:
    """Return probabilities, model and history of every task, in order."""
    if jobs == 1:
        return [_one(scanvi, shown, labels, own) for shown, own in tasks]
    from joblib import Parallel, delayed  # its workers need no `if __name__ == "__main__"` in the caller's script

    # arrays of over a megabyte would become files, which a fit has no use for
    run = Parallel(n_jobs=jobs, backend="loky", max_nbytes=None, return_as="generator")
    fits = run(delayed(_one_of_many)(scanvi, shown, labels, own) for shown, own in tasks)
    return list(progress(fits, f"{len(tasks)} fits, {jobs} at once", unit="fit"))


def _one_of_many(*task: Any) -> tuple[pd.DataFrame, tuple[SCANVI, History]]:
    with redirect_stderr(io.StringIO()):  # progress bars of several processes would overwrite each other
        return _one(*task)


def _one(scanvi: ScANVI, adata: AnnData, labels: str, seed: int) -> tuple[pd.DataFrame, tuple[SCANVI, History]]:
    fitted = scanvi.fit(adata, labels, seed)
    return label_probabilities(fitted[0], adata, samples=scanvi.samples, seed=seed), fitted

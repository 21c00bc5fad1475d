"""Cross-validation on hidden labels, and the pooling of several predictions (book/08_evaluation.md).

The labels are cut into folds; a method is fitted once a fold, with the labels of that fold hidden. Its accuracy on the
hidden labels estimates that on unlabeled cells, if these are similar to the labeled ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from scanvi_tutorial.evaluation.baselines import Baseline
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import check_labels

_FOLDS = 5
_LEAST = 1e-6  # label spreading rules labels out for good where no edge leads


@dataclass(frozen=True, eq=False, slots=True)
class CrossFit:
    """Predictions of the fits of one method, each with the labels of one fold of the seeds hidden."""

    probabilities: pd.DataFrame  # (cells, labels), the mean over the fits
    held_out: pd.DataFrame  # (seeds, labels), of each seed by the fit that did not know its label
    codes: NDArray[np.integer]  # (seeds,), the labels that were hidden, as columns of `held_out`
    fits: tuple[pd.DataFrame, ...]  # (cells, labels) a fit


def cross_fit(method: Baseline, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> CrossFit:
    """Fit `method` once a fold, with the labels of that fold of the seeds hidden.

    Every type spreads its seeds over five folds as evenly as it can; a type with a single seed never hides it. Every
    fit gets a seed of its own, made from `seed` and the number of its fold.

    Raises:
        InputError: Where no type has two seeds, and where the method leaves out a label or a cell.
    """
    names, codes = check_labels(adata, labels_key)
    fold = folds_of(codes, seed)
    if (fold < 0).all():
        raise InputError(
            f"No type has two seed cells in adata.obs[{labels_key!r}] ({listed(names)}), so none can be hidden to see "
            "whether it is found. Label at least two cells of a type."
        )
    fits, held_out = [], np.full((adata.n_obs, len(names)), np.nan)
    for number in range(fold.max() + 1):
        hidden = fold == number
        parts = {"uns": dict(adata.uns), "obsm": dict(adata.obsm), "layers": dict(adata.layers)}
        shown = AnnData(adata.X, obs=adata.obs.copy(), var=adata.var, **parts)
        shown.obs[labels_key] = pd.Categorical.from_codes(np.where(hidden, -1, codes), list(names))
        fit_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        table = method(shown, labels_key=labels_key, seed=fit_seed)
        if not table.index.equals(adata.obs_names) or not set(names) <= set(table):
            raise InputError(
                f"{method} must return one row for each cell, in order, and a column for each of {listed(names)}; it "
                f"returned {table.shape[0]} rows and the columns {listed(table.columns)}."
            )
        fits.append(table := table[list(names)])
        held_out[hidden] = table.to_numpy()[hidden]
    mean = pd.DataFrame(np.mean([fit.to_numpy() for fit in fits], axis=0), adata.obs_names, list(names))
    spared = pd.DataFrame(held_out, adata.obs_names, list(names)).loc[fold >= 0]
    return CrossFit(mean, spared, codes[fold >= 0], tuple(fits))


def folds_of(codes: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """Return the fold in which each label is hidden, (cells,), -1 for those that never are.

    Every type spreads its labels over five folds as evenly as it can; a type with a single one never hides it.
    """
    rng, fold = np.random.default_rng(seed), np.full(len(codes), -1)
    for code in range(codes.max() + 1):
        rows = rng.permutation(np.flatnonzero(codes == code))
        if len(rows) > 1:
            fold[rows] = np.arange(len(rows)) % _FOLDS
    return fold


def pooled(tables: Sequence[pd.DataFrame], weights: ArrayLike | None = None) -> pd.DataFrame:
    """Return the weighted geometric mean of tables (cells, labels), with rows that sum to one.

    The logarithmic opinion pool (Genest, McConway and Schervish 1986, doi:10.1214/aos/1176349934): a table that all but
    rules a label out counts for more than in an arithmetic mean. A probability below 1e-6 is raised to that.

    >>> sure, unsure = pd.DataFrame({"A": [0.9], "B": [0.1]}), pd.DataFrame({"A": [0.5], "B": [0.5]})
    >>> pooled([sure, unsure]).round(3).iloc[0].tolist()
    [0.75, 0.25]
    """
    first = tables[0]
    weights = np.ones(len(tables)) if weights is None else np.asarray(weights, dtype=np.float64)
    logs = np.zeros(first.shape)
    for table, weight in zip(tables, weights / weights.sum(), strict=True):
        logs += weight * np.log(np.maximum(table[first.columns].to_numpy(), _LEAST))
    return pd.DataFrame(softmax(logs, axis=1), first.index, first.columns)

"""Several methods in one answer, weighted and calibrated by seed cells that none of their fits had seen.

Explained in book/08_evaluation.md. The seeds are cut into folds; every method is fitted once a fold, with the labels of
that fold hidden. What it then says of the hidden seeds is what it would say of cells that nobody has labeled. With
p_m(y | x) of method m, this chooses weights w, which sum to one (stacking: Yao, Vehtari, Simpson and Gelman 2018,
doi:10.1214/17-BA1091), and a temperature T:

    maximize over w   Σ_seeds log Σ_m w_m p_m(y | x)
    maximize over T   Σ_seeds log p_T(y | x) − (log T)² / 2 s²,     p_T ∝ p^(1 / T)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from scanvi_tutorial.evaluation.baselines import Baseline
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import check_labels

_FOLDS = 5
_LEAST_POOLED = 1e-6  # label spreading rules labels out for good where no edge leads
_LEAST = 1e-9  # below this a probability is taken for this, so that no single seed decides everything
_TEMPERATURE_SCALE = 0.3  # s above: a temperature beyond a factor of two would surprise us
_MOST_ROUNDS, _TOLERANCE = 5_000, 1e-10  # of expectation maximization: it ends where no weight changes by more


@dataclass(frozen=True, eq=False, slots=True)
class CrossFit:
    """What the fits of one method say, each of which had the labels of one fold of the seeds hidden."""

    probabilities: pd.DataFrame  # (cells, labels), the mean over the fits
    held_out: pd.DataFrame  # (seeds, labels), of each seed by the fit that did not know its label
    codes: NDArray[np.integer]  # (seeds,), the labels that were hidden, as columns of `held_out`
    fits: tuple[pd.DataFrame, ...]  # (cells, labels) a fit


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """The answer of several methods, and how it came about."""

    probabilities: pd.DataFrame  # (cells, labels)
    weights: pd.Series  # one a method; they sum to one
    temperature: float
    parts: Mapping[str, CrossFit]  # by method


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


def stack(
    methods: Mapping[str, Baseline], adata: AnnData, *, labels_key: str = "label", seed: int = 0, refit: bool = False
) -> Stack:
    """Return the weighted and calibrated answer of methods; it needs no cell but these.

    The answer is the mean of the fits of all folds; with `refit`, every method is fitted once more, to all seeds, and
    that fit answers.

    The seeds have to be like the other cells: of seeds that were chosen by markers, or that sit at the edge of their
    type, one only learns how such cells are named.
    """
    parts = {name: cross_fit(method, adata, labels_key=labels_key, seed=seed) for name, method in methods.items()}
    first = next(iter(parts.values()))
    known, columns = first.codes, first.held_out.columns
    held_out = np.stack([part.held_out.to_numpy() for part in parts.values()])
    weights = stacking_weights(held_out, known)
    temperature = fit_temperature(np.tensordot(weights, held_out, 1), known)
    answers = [part.probabilities for part in parts.values()]
    if refit:
        answers = [method(adata, labels_key=labels_key, seed=seed) for method in methods.values()]
    mixed = np.tensordot(weights, np.stack([answer[columns].to_numpy() for answer in answers]), 1)
    table = pd.DataFrame(tempered(mixed, temperature), adata.obs_names, columns)
    return Stack(table, pd.Series(weights, list(parts), name="weight"), temperature, parts)


def stacking_weights(held_out: ArrayLike, codes: ArrayLike) -> NDArray[np.float64]:
    """Return the weights (methods,) under which the mixture gives the seeds' labels the highest probability.

    Args:
        held_out: Probabilities (methods, seeds, labels) from fits that had not seen the labels.
        codes: The labels, as columns of `held_out`, (seeds,).
    """
    held_out, codes = np.asarray(held_out, dtype=np.float64), np.asarray(codes)
    of_label = np.maximum(held_out[:, np.arange(len(codes)), codes], _LEAST)
    weights = np.full(len(of_label), 1 / len(of_label))
    for _ in range(_MOST_ROUNDS):  # expectation maximization: each round can only raise a concave sum
        before, weights = weights, weights * (of_label / (weights @ of_label)).mean(1)
        if np.abs(weights - before).max() < _TOLERANCE:
            break
    return weights


def fit_temperature(probabilities: ArrayLike, codes: ArrayLike, *, scale: float = _TEMPERATURE_SCALE) -> float:
    """Return the temperature that suits `codes` (cells,) best, drawn towards one; `scale` is s above.

    >>> sure, half_right = [[0.99, 0.01]] * 100, [0, 1] * 50
    >>> fit_temperature(sure, half_right) > 1.5
    True
    """
    codes = np.asarray(codes)
    rows = np.arange(len(codes))

    def cost(log_t: float) -> float:
        of_label = np.maximum(tempered(probabilities, np.exp(log_t))[rows, codes], _LEAST)
        return log_t**2 / (2 * scale**2) - np.log(of_label).sum()

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def pooled(tables: Sequence[pd.DataFrame], weights: ArrayLike | None = None) -> pd.DataFrame:
    """Return the weighted geometric mean of tables (cells, labels), with rows that sum to one.

    The logarithmic opinion pool (Genest, McConway and Schervish 1986, doi:10.1214/aos/1176349934): a table that all but
    rules a label out counts for more than in an arithmetic mean. A probability below 1e-6 is taken for that.

    >>> sure, unsure = pd.DataFrame({"A": [0.9], "B": [0.1]}), pd.DataFrame({"A": [0.5], "B": [0.5]})
    >>> pooled([sure, unsure]).round(3).iloc[0].tolist()
    [0.75, 0.25]
    """
    first = tables[0]
    weights = np.ones(len(tables)) if weights is None else np.asarray(weights, dtype=np.float64)
    logs = np.zeros(first.shape)
    for table, weight in zip(tables, weights / weights.sum(), strict=True):
        logs += weight * np.log(np.maximum(table[first.columns].to_numpy(), _LEAST_POOLED))
    return pd.DataFrame(softmax(logs, axis=1), first.index, first.columns)


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return p^(1 / T) of each row, scaled to sum to one: T above one is more modest, below one bolder.

    >>> tempered([[0.9, 0.1]], 1.0).round(6).tolist()
    [[0.9, 0.1]]
    """
    logs = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-300))
    return softmax(logs / temperature, axis=-1)

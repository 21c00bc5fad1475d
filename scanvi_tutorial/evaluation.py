"""How good are the inferred types? Metrics, and simpler methods that scANVI has to be compared with.

Used in book/06_figure.md. Cells that lent their label to training say nothing about quality, so every score here is
taken over the other cells. Draws of seed cells differ by several points: methods are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score

from scanvi_tutorial.checks import InputError, check_counts, check_labels, label_name, listed
from scanvi_tutorial.markers import log_cp10k

__all__ = [
    "METRICS",
    "Baseline",
    "accuracy",
    "compare",
    "confusion",
    "evaluate",
    "fit_on_seeds",
    "largest_class_rate",
    "log_cp10k",
    "logistic_regression",
    "scores",
    "spread",
    "unlabelled",
]

METRICS = ("accuracy", "balanced_accuracy", "log_loss")


class Baseline(Protocol):
    """A way from seed cells to probabilities: whatever can be called like this can be compared with scANVI.

    It sees counts and seed labels, never the truth, and returns a table (cells, labels) over *all* cells whose rows sum
    to one; what it draws at random comes from `seed`.
    """

    def __call__(self, adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return the probability of each label for each cell of `adata`."""
        ...


def unlabelled(adata: AnnData, labels: str = "label") -> NDArray[np.bool_]:
    """Return which cells have no seed label, and so may be scored, as a mask (cells,)."""
    return check_labels(adata, labels)[1] == -1


def accuracy(truth: ArrayLike, predicted: ArrayLike | pd.DataFrame) -> float:
    """Return the share of cells whose predicted type is the true one.

    `predicted` is a type per cell, or a table of probabilities (cells, labels), whose most probable type then counts.

    >>> accuracy(["B", "T"], ["B", "B"])
    0.5
    """
    return float(accuracy_score(*_pair(truth, predicted)))


def largest_class_rate(truth: ArrayLike) -> float:
    """Return the accuracy of calling every cell by the commonest type: what a method that learned nothing reaches."""
    names = _names(truth, "the truth")
    return float(np.unique(names, return_counts=True)[1].max() / len(names))


def scores(truth: ArrayLike, probabilities: pd.DataFrame) -> pd.Series:
    """Return accuracy, balanced accuracy and log-loss of `probabilities`, a table (cells, labels), against the truth.

    Balanced accuracy is the mean over true types of the share found, so a rare type weighs as much as a common one.
    Log-loss is the mean of −log p(true type), in nats: 0 is perfect, log(labels) is what equal probabilities get.

    Raises:
        InputError: If a row holds no probabilities, or a true type has no column.
    """
    found, called = _pair(truth, probabilities)
    p, names = probabilities.to_numpy(np.float64), _names(probabilities.columns, "the columns")
    sums = p.sum(1)
    good = (np.abs(sums - 1) < 1e-3) & (p >= 0).all(1)
    if not good.all():
        cell = int(np.argmin(good))  # the first that is not
        fault = f"holds {p[cell].min():.4g}" if p[cell].min() < 0 else f"sums to {sums[cell]:.4g}"
        raise InputError(
            f"A row of probabilities must hold no negative number and sum to one; that of cell "
            f"{probabilities.index[cell]!r} {fault}. Pass what `label_probabilities` returned."
        )
    if strange := sorted(set(found) - set(names)):
        raise InputError(
            f"The truth names types that have no column of probabilities: {listed(strange)}. "
            f"The columns are {listed(names)}. Leave those cells out, or rename one side."
        )
    order = np.argsort(names)  # scikit-learn reads columns in sorted order, whatever their names say
    return pd.Series(
        {
            "accuracy": accuracy_score(found, called),
            "balanced_accuracy": recall_score(found, called, labels=np.unique(found), average="macro", zero_division=0),
            "log_loss": log_loss(found, (p / sums[:, None])[:, order], labels=names[order]),
        },
        dtype=float,
    )


def evaluate(
    adata: AnnData, probabilities: pd.DataFrame | None = None, *, labels: str = "label", truth: str = "truth"
) -> pd.Series:
    """Return `scores` over the cells that carry no seed label and whose true type is known.

    `probabilities` covers all cells of `adata`; without it, `adata.obsm["scanvi_probabilities"]` is read.
    """
    if truth not in adata.obs:
        raise InputError(
            f"obs[{truth!r}] is missing, so there is nothing to compare with. Name the column of true types by `truth`."
        )
    if probabilities is None:
        probabilities = adata.obsm.get("scanvi_probabilities")
    if not isinstance(probabilities, pd.DataFrame) or not probabilities.index.equals(adata.obs_names):
        raise InputError(
            "Probabilities must be a table with one row for each cell of the AnnData, in its order. Pass what "
            '`label_probabilities(model, adata)` returns, or store it in obsm["scanvi_probabilities"].'
        )
    scored = unlabelled(adata, labels) & (check_labels(adata, truth, least=0)[1] >= 0)
    if not scored.any():
        raise InputError(
            f"No cell can be scored: each is a seed cell by obs[{labels!r}] or has no type in obs[{truth!r}]. "
            "Give fewer cells a seed label."
        )
    return scores(adata.obs[truth][scored], probabilities[scored])


def confusion(truth: ArrayLike, predicted: ArrayLike | pd.DataFrame) -> pd.DataFrame:
    """Return how many cells of each true type (rows) were given which type (columns).

    Both axes list the same types: the categories of `truth` in their order (or its values, sorted), then what else was
    predicted.
    """
    found, called = _pair(truth, predicted)
    categories = getattr(getattr(truth, "cat", truth), "categories", np.unique(found))
    names = list(dict.fromkeys([*map(label_name, categories), *np.unique(called)]))
    table = confusion_matrix(found, called, labels=names)
    return pd.DataFrame(table, index=pd.Index(names, name="truth"), columns=pd.Index(names, name="predicted"))


def fit_on_seeds(estimator: ClassifierMixin, adata: AnnData, *, labels: str = "label") -> pd.DataFrame:
    """Fit a scikit-learn classifier on log-CP10k of the seed cells; return its probabilities (cells, labels) for all.

    Any classifier with `predict_proba` that accepts sparse input will do: a `Baseline` is then three lines long.
    """
    names, codes = check_labels(adata, labels)
    x = log_cp10k(check_counts(adata))
    estimator.fit(x[codes >= 0], codes[codes >= 0])
    table = np.zeros((adata.n_obs, len(names)))
    table[:, estimator.classes_] = estimator.predict_proba(x)
    return pd.DataFrame(table, index=adata.obs_names, columns=list(names))


def logistic_regression(adata: AnnData, *, labels: str = "label", seed: int = 0) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of a multinomial logistic regression on log-CP10k of all genes given.

    Plain on purpose: scikit-learn's default penalty (C = 1), genes as they are. Measured on `pbmc68k` and `facs-t` with
    ten seeds a type, five draws: choosing C in hindsight, between 0.001 and 100, gains about a point, and genes scaled
    to unit variance lose four on `facs-t`, since that lifts the noise of rare genes to the level of the markers. The
    solver draws nothing at random; `seed` is there because a `Baseline` has one.
    """
    return fit_on_seeds(LogisticRegression(max_iter=2_000, random_state=seed), adata, labels=labels)


def compare(
    methods: Mapping[str, Baseline],
    draw: Callable[[int], AnnData],
    seeds: Iterable[int],
    *,
    metric: str = "accuracy",
    labels: str = "label",
    truth: str = "truth",
) -> pd.DataFrame:
    """Score every method on every draw of seed cells; return a table (draws, methods) of one metric.

    `draw(seed)` gives the cells with the labels of that draw; all methods see the same, and get the same seed for
    whatever else they draw. `spread` sums the table up.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    rows = {}
    for seed in seeds:
        adata = draw(seed)
        rows[seed] = {
            name: evaluate(adata, method(adata, labels=labels, seed=seed), labels=labels, truth=truth)[metric]
            for name, method in methods.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(methods)).rename_axis("seed")


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, min, max and number of draws of each method, a row each, from a table (draws, methods)."""
    return table.agg(["mean", "min", "max"]).T.assign(draws=table.notna().sum()).rename_axis("method")


def _pair(truth: ArrayLike, predicted: ArrayLike | pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    if isinstance(predicted, pd.DataFrame):
        predicted = predicted.columns.to_numpy()[predicted.to_numpy().argmax(1)]
    found, called = _names(truth, "the truth"), _names(predicted, "the prediction")
    if len(found) != len(called):
        raise InputError(
            f"The truth has {len(found)} cells and the prediction {len(called)}. Take both over the same cells: "
            "the mask of `unlabelled(adata)` belongs on either side."
        )
    return found, called


def _names(types: ArrayLike, what: str) -> NDArray[np.str_]:
    values = np.asarray(types, dtype=object)
    if values.ndim != 1 or not len(values):
        raise InputError(f"Types must be a list of at least one cell; {what} has the shape {values.shape}.")
    if missing := int(pd.isna(values).sum()):
        raise InputError(f"{missing} of {len(values)} cells have no type in {what}. Leave them out before scoring.")
    return np.array([label_name(value) for value in values])

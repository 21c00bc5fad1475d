"""Metrics of predicted types and probabilities against the truth: accuracy, log-loss, calibration and others.

Used in book/06_figure.md and book/08_evaluation.md. Symbols: p_ct, the probability of type t for cell c; a cell's
confidence is its highest p_ct.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)

from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import label_name

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error")


def accuracy(truth: ArrayLike, predicted: ArrayLike | pd.DataFrame) -> float:
    """Return the share of cells whose predicted type is the true one.

    `predicted` is a type per cell, or a table of probabilities (cells, labels), whose most probable type then counts.

    >>> accuracy(["B", "T"], ["B", "B"])
    0.5
    """
    return float(accuracy_score(*_pair(truth, predicted)))


def largest_class_rate(truth: ArrayLike) -> float:
    """Return the accuracy of predicting the most common type for every cell."""
    names = _names(truth, "the truth")
    return float(np.unique(names, return_counts=True)[1].max() / len(names))


def largest_class_scores(truth: ArrayLike) -> pd.Series:
    """Return `all_metrics` of predicting the true shares of the types for every cell.

    The accuracy is `largest_class_rate`, the log-loss the entropy of the types, the calibration error 0. It needs the
    truth, so it is no `Baseline`: a user does not know which type is the most common, least of all from balanced seeds.
    """
    names, counts = np.unique(_names(truth, "the truth"), return_counts=True)
    if len(names) < 2:
        raise InputError(f"All true types are {str(names[0])!r}, so nothing can be mistaken. Score two or more types.")
    shares = np.tile(counts / counts.sum(), (counts.sum(), 1))
    return all_metrics(truth, pd.DataFrame(shares, columns=names))


def all_metrics(truth: ArrayLike, probabilities: pd.DataFrame) -> pd.Series:
    """Return every metric of `METRICS` for `probabilities`, a table (cells, labels), against the truth.

    Balanced accuracy and macro F1 are means over true types, of recall and of F1 (`per_class`), so a rare type weighs
    as much as a common one. Log-loss is the mean of −log p(true type), in nats: 0 is perfect, log(labels) is what equal
    probabilities get; scikit-learn raises a probability of 0 to 2⁻⁵², so a type ruled out wrongly costs 36 nats.
    Brier is the mean over cells of Σ_t (p_ct − [t is the true type])², from 0 to 2 (half of it is usual for two types).
    Calibration error is the mean distance of accuracy from confidence over the bins of `reliability`, weighted by
    cells: the expected calibration error of Guo et al. 2017 (arXiv 1706.04599). Chance alone keeps it above 0: see
    `calibration_error_by_chance`.

    Raises:
        InputError: If a row holds no probabilities, or a true type has no column.
    """
    found, called, p = _checked(truth, probabilities)
    names = _names(probabilities.columns, "the columns")
    order = np.argsort(names)  # scikit-learn reads columns in sorted order, whatever their names say
    by_type = {"labels": np.unique(found), "average": "macro", "zero_division": 0}
    return pd.Series(
        {
            "accuracy": accuracy_score(found, called),
            "balanced_accuracy": recall_score(found, called, **by_type),
            "macro_f1": f1_score(found, called, **by_type),
            "log_loss": log_loss(found, p[:, order], labels=names[order]),
            "brier": brier_score_loss(found, p[:, order], labels=names[order], scale_by_half=False),
            "calibration_error": _calibration_error(truth, probabilities),
        },
        dtype=float,
    )


def calibration_error_by_chance(
    probabilities: pd.DataFrame,
    draws: int = 100,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the calibration errors (draws,) that these probabilities have if they are right.

    The true types are drawn from `probabilities`, a table (cells, labels), so chance alone
    makes the error. Raises `InputError` as `all_metrics`.
    """
    rng, names = np.random.default_rng(seed), probabilities.columns.to_numpy()
    cumulative = probabilities.to_numpy().cumsum(axis=1)
    cumulative[:, -1] = 1  # whatever rounding made of it
    errors = []
    for _ in range(draws):
        drawn = (cumulative > rng.random((len(cumulative), 1))).argmax(axis=1)
        errors.append(_calibration_error(names[drawn], probabilities))
    return np.array(errors)


def _calibration_error(truth: ArrayLike, probabilities: pd.DataFrame) -> float:
    bins = reliability(truth, probabilities)
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return (distance * bins["cells"]).sum() / bins["cells"].sum()


def reliability(truth: ArrayLike, probabilities: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of the most probable type in bins of its probability (the confidence).

    A row is a bin of confidence, one of ten and open to the left, so a confidence of 0.3 is in (0.2, 0.3]. Columns:
    mean `confidence`, `accuracy`, and how many `cells` they are of; the former are missing where there is no cell, as
    below 1/labels. A well calibrated method has the same number in both. Raises `InputError` as `all_metrics` does.
    """
    found, called, p = _checked(truth, probabilities)
    edges = np.arange(11) / 10  # not a sum of steps: 3 · 0.1 is more than 0.3
    place = np.clip(np.searchsorted(edges, p.max(1)) - 1, 0, 9)  # rounding may lift a confidence above 1
    table = pd.DataFrame({"confidence": p.max(1), "accuracy": (found == called).astype(float)})
    table = table.groupby(place).mean().reindex(range(10)).assign(cells=np.bincount(place, minlength=10))
    return table.set_index(pd.IntervalIndex.from_breaks(edges, name="bin"))


def per_class(truth: ArrayLike, probabilities: pd.DataFrame) -> pd.DataFrame:
    """Return precision, recall and F1 of each type, and its true number of cells, in the order of the columns.

    Precision is the share of right cells among those called so, recall that among those that truly are, F1 their
    harmonic mean. It is missing where there is nothing to divide by: a type never called, or one without a cell.
    """
    found, called, _ = _checked(truth, probabilities)
    names = _names(probabilities.columns, "the columns")
    columns = precision_recall_fscore_support(found, called, labels=names, zero_division=np.nan)
    table = dict(zip(("precision", "recall", "f1", "cells"), columns, strict=True))
    return pd.DataFrame(table, index=pd.Index(names, name="type"))


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


def _checked(
    truth: ArrayLike, probabilities: pd.DataFrame
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.float64]]:
    """Return true and most probable types (cells,), and probabilities (cells, labels) whose rows sum to one exactly."""
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
    return found, called, p / sums[:, None]


def _pair(truth: ArrayLike, predicted: ArrayLike | pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    if isinstance(predicted, pd.DataFrame):
        predicted = predicted.columns.to_numpy()[predicted.to_numpy().argmax(1)]
    found, called = _names(truth, "the truth"), _names(predicted, "the prediction")
    if len(found) != len(called):
        raise InputError(
            f"The truth has {len(found)} cells and the prediction {len(called)}. Take both over the same cells: "
            "the mask of `scored_cells(adata)` belongs on either side."
        )
    return found, called


def _names(types: ArrayLike, what: str) -> NDArray[np.str_]:
    values = np.asarray(types, dtype=object)
    if values.ndim != 1 or not len(values):
        raise InputError(f"Types must be a list of at least one cell; {what} has the shape {values.shape}.")
    if missing := int(pd.isna(values).sum()):
        raise InputError(f"{missing} of {len(values)} cells have no type in {what}. Leave them out before scoring.")
    return np.array([label_name(value) for value in values])

"""Score methods on the same draws of seed cells: one answer, many, a summary over draws, an interval of a difference.

Used in book/06_figure.md and book/08_evaluation.md. Cells that lent their label to training say nothing about quality,
so every score here is taken over the other cells. Draws of seed cells differ by several points: a difference between
methods is one on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from scanvi_tutorial.evaluation.baselines import Baseline
from scanvi_tutorial.evaluation.metrics import METRICS, all_metrics, largest_class_scores
from scanvi_tutorial.inputs.cells import probabilities_of
from scanvi_tutorial.inputs.errors import InputError, column_of
from scanvi_tutorial.inputs.labels import check_labels


def scored_cells(adata: AnnData, labels_key: str = "label", truth_key: str | None = None) -> NDArray[np.bool_]:
    """Return which cells may be scored, as a mask (cells,): those without a seed label.

    With `truth_key`, a column of `obs`, only those whose true type is known there.

    Raises:
        InputError: Where the column of truth is missing, or no cell is left to be scored.
    """
    scored = check_labels(adata, labels_key)[1] == -1
    if truth_key is None:
        return scored
    column_of(adata, truth_key, "Name the column of true types by `truth_key`.")
    scored &= check_labels(adata, truth_key, least=0)[1] >= 0
    if not scored.any():
        raise InputError(
            f"No cell can be scored: each is a seed cell by obs[{labels_key!r}] or has no type in obs[{truth_key!r}]. "
            "Give fewer cells a seed label."
        )
    return scored


def scores(
    truth: AnnData | ArrayLike,
    probabilities: pd.DataFrame | None = None,
    *,
    labels_key: str = "label",
    truth_key: str = "truth",
) -> pd.Series:
    """Return every metric of `METRICS` for a table of probabilities against the truth, (metrics,); see `all_metrics`.

    Args:
        truth: True types, (cells,), one for each row of `probabilities`; or an AnnData, whose `scored_cells` are taken.
        probabilities: A table (cells, labels), for all cells of an AnnData in its order; None reads it from
            `obsm["scanvi_probabilities"]`.
        labels_key: Column of `obs` with the seed labels.
        truth_key: Column of `obs` with the true types.

    Raises:
        InputError: Where cells and table do not belong together, or there is nothing to score.
    """
    if not isinstance(truth, AnnData):
        return all_metrics(truth, probabilities)
    adata, scored = truth, scored_cells(truth, labels_key, truth_key)
    if probabilities is None:
        probabilities = probabilities_of(adata)
    if not isinstance(probabilities, pd.DataFrame) or not probabilities.index.equals(adata.obs_names):
        raise InputError(
            "Probabilities must be a table with one row for each cell of the AnnData, in its order. Pass what "
            '`label_probabilities(model, adata)` returns, or store it in obsm["scanvi_probabilities"].'
        )
    return all_metrics(adata.obs[truth_key][scored], probabilities[scored])


def score_table(
    methods: Mapping[str, Baseline],
    draw: Callable[[int], AnnData],
    seeds: Iterable[int],
    *,
    reference: str | None = None,
    labels_key: str = "label",
    truth_key: str = "truth",
) -> pd.DataFrame:
    """Score every method on every draw of seed cells, once; return a row for each: method, seed, all of `METRICS`.

    `draw(seed)` gives the cells with the labels of that draw; all methods see the same, and get the same seed for
    whatever else they draw. `reference` names a further method, if one is wanted: `largest_class_scores`, which knows
    how common each type is among the scored cells and looks at none of them.
    """
    rows = []
    for seed in dict.fromkeys(seeds):
        adata = draw(seed)
        for name, method in methods.items():
            p = method(adata, labels_key=labels_key, seed=seed)
            found = scores(adata, p, labels_key=labels_key, truth_key=truth_key)
            rows.append({"method": name, "seed": seed, **found})
        if reference is not None:
            known = adata.obs[truth_key][scored_cells(adata, labels_key, truth_key)]
            rows.append({"method": reference, "seed": seed, **largest_class_scores(known)})
    return pd.DataFrame(rows, columns=["method", "seed", *METRICS])


def summary(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Return mean, min and max of a metric over draws, and their number, a row a method, from a `score_table`."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    by_method = table.groupby("method", sort=False)[metric]
    return by_method.agg(["mean", "min", "max", "count"]).rename(columns={"count": "draws"})


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return an interval of the mean of `values` (draws,), by Student's t: from minus to plus infinity of a single one.

    Of two methods on the same draws pass the differences: what draws have in common then cancels.

    >>> [round(end, 2) for end in interval([0.0, 1.0, 2.0])]
    [-1.48, 3.48]
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return -np.inf, np.inf
    reach = student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)

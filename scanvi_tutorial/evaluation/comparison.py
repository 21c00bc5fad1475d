"""Who is scored, and how methods are compared: all of them on the same draws of seed cells.

Used in book/06_figure.md and book/08_evaluation.md. Cells that lent their label to training say nothing about quality,
so every score here is taken over the other cells. Draws of seed cells differ by several points: a difference between
methods is one on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.evaluation.baselines import Baseline
from scanvi_tutorial.evaluation.metrics import METRICS, largest_class_scores, scores
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.labels import check_labels

__all__ = ["compare", "evaluate", "score_table", "spread", "unlabelled"]


def unlabelled(adata: AnnData, labels: str = "label") -> NDArray[np.bool_]:
    """Return which cells have no seed label, and so may be scored, as a mask (cells,)."""
    return check_labels(adata, labels)[1] == -1


def evaluate(
    adata: AnnData, probabilities: pd.DataFrame | None = None, *, labels: str = "label", truth: str = "truth"
) -> pd.Series:
    """Return `scores` over the cells that carry no seed label and whose true type is known.

    `probabilities` covers all cells of `adata`; without it, `adata.obsm["scanvi_probabilities"]` is read.
    """
    scored = _scored(adata, labels, truth)
    if probabilities is None:
        probabilities = adata.obsm.get("scanvi_probabilities")
    if not isinstance(probabilities, pd.DataFrame) or not probabilities.index.equals(adata.obs_names):
        raise InputError(
            "Probabilities must be a table with one row for each cell of the AnnData, in its order. Pass what "
            '`label_probabilities(model, adata)` returns, or store it in obsm["scanvi_probabilities"].'
        )
    return scores(adata.obs[truth][scored], probabilities[scored])


def score_table(
    methods: Mapping[str, Baseline],
    draw: Callable[[int], AnnData],
    seeds: Iterable[int],
    *,
    reference: str | None = None,
    labels: str = "label",
    truth: str = "truth",
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
            p = method(adata, labels=labels, seed=seed)
            rows.append({"method": name, "seed": seed, **evaluate(adata, p, labels=labels, truth=truth)})
        if reference is not None:
            known = adata.obs[truth][_scored(adata, labels, truth)]
            rows.append({"method": reference, "seed": seed, **largest_class_scores(known)})
    return pd.DataFrame(rows, columns=["method", "seed", *METRICS])


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

    It is `score_table` laid out for one metric, with what is said there. `spread` sums the table up.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    table = score_table(methods, draw, seeds, labels=labels, truth=truth)
    wide = table.pivot(index="seed", columns="method", values=metric)
    return wide.loc[table["seed"].unique(), list(methods)].rename_axis(columns=None)


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, min, max and number of draws of each method, a row each, from a table (draws, methods)."""
    return table.agg(["mean", "min", "max"]).T.assign(draws=table.notna().sum()).rename_axis("method")


def _scored(adata: AnnData, labels: str, truth: str) -> NDArray[np.bool_]:
    """Return which cells carry no seed label while their true type is known, as a mask (cells,)."""
    if truth not in adata.obs:
        raise InputError(
            f"obs[{truth!r}] is missing, so there is nothing to compare with. Name the column of true types by `truth`."
        )
    scored = unlabelled(adata, labels) & (check_labels(adata, truth, least=0)[1] >= 0)
    if not scored.any():
        raise InputError(
            f"No cell can be scored: each is a seed cell by obs[{labels!r}] or has no type in obs[{truth!r}]. "
            "Give fewer cells a seed label."
        )
    return scored

"""Warnings about labels, genes and batches that can be used but make a result less certain."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score

from scanvi_tutorial.inputs.errors import listed

__all__ = ["FEW_SEEDS", "confounding", "quality_warnings"]

FEW_SEEDS = 10  # per type; the book's comparisons begin with five, where draws differ by several points
_FEW_GENES = 200
_CONFOUNDED = 0.5  # adjusted mutual information: two types in two batches reach it when nine in ten keep to one
_LIKE_NOTHING = {"nan", "none", "na", "n/a", "null", "unknown", "unassigned", "unlabelled", "unlabeled", "undefined"}


def quality_warnings(names: Sequence[str], codes: NDArray[np.integer], *, genes: int) -> list[str]:
    """Return a sentence for everything about labels and genes that makes a result less certain.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.
        genes: How many genes the model will see.
    """
    notes = []
    seeds = np.bincount(codes[codes >= 0], minlength=len(names))
    if alone := [name for name, count in zip(names, seeds, strict=True) if count == 1]:
        notes.append(
            f"{listed(alone)}: a single labeled cell. Whether such cells are found again could not be tested; label a "
            "few more."
        )
    if few := [f"{name} ({count})" for name, count in zip(names, seeds, strict=True) if 1 < count < FEW_SEEDS]:
        notes.append(
            f"Fewer than {FEW_SEEDS} labeled cells: {listed(few)}. Another choice of cells could move the result by "
            "several points."
        )
    if strange := [name for name in names if name.strip().lower() in _LIKE_NOTHING]:
        notes.append(
            f"{listed(strange)}: learned as a type, though the name sounds like 'no label'. If it means that, pass "
            f"unlabeled_category={strange[0]!r}."
        )
    if genes < _FEW_GENES:
        notes.append(f"Only {genes} gene{'s' * (genes > 1)}: types that differ in other genes alone will be mixed up.")
    if (codes >= 0).all():
        notes.append("Every cell has a label: there is none to name.")
    return notes


def confounding(names: Sequence[str], codes: NDArray[np.integer], batches: pd.Categorical) -> str | None:
    """Return a warning where the batch of a labeled cell nearly gives its type away, else None.

    Then nothing in the data tells an effect of the batch from one of the type, and to correct for the one is to erase
    the other. Measured by the mutual information of types and batches among labeled cells, less what chance would give
    (many donors with few labels agree with types by accident) and as a share of what there is to know; from 0.5 on we
    warn.
    """
    known = codes >= 0
    table = pd.crosstab(np.asarray(batches)[known], codes[known]).to_numpy()
    if min(table.shape) < 2:
        return None
    with warnings.catch_warnings():  # many donors are no sign that somebody classifies by a measurement
        warnings.filterwarnings("ignore", "The number of unique classes")
        agreement = adjusted_mutual_info_score(np.asarray(batches)[known], codes[known], average_method="min")
    if agreement < _CONFOUNDED:
        return None
    only = [name for name, column in zip(names, table.T, strict=True) if (column > 0).sum() == 1]
    return (
        f"Type and batch can hardly be told apart (adjusted mutual information {agreement:.2f}; labeled in one batch "
        f"alone: {listed(only)}): what is corrected for as a batch may be the type. Label each type in more than one "
        "batch, or use no batch."
    )

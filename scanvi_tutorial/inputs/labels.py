"""The label column: which cells have a label, which names there are, every way to say that there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.errors import InputError, column_of, did_you_mean, listed

NO_LABEL = ("", "-1", UNLABELED)  # what says "without a label", beside a missing value
_LIKE_NOTHING = {"nan", "none", "na", "n/a", "null", "unknown", "unassigned", "unlabelled", "unlabeled", "undefined"}
_FEW_SEEDS = 10  # per type; the book's comparisons begin with five, where draws differ by several points
_FEW_GENES = 200


def check_labels(
    adata: AnnData, column: str = "label", *, unlabeled_category: str | int = UNLABELED, least: int = 2
) -> tuple[list[str], np.ndarray]:
    """Return the names of the labels and the code of every cell's label, -1 for a cell without one.

    Missing values, -1, empty text, "Unknown" and the category `unlabeled_category` all mean "without a label".
    The order of a categorical is kept, other columns are sorted; categories that no cell has are dropped, for a class
    without an example cannot be learned and would only take probability from the others.

    Args:
        adata: Cells and genes.
        column: The column of `adata.obs` with the labels: categorical, text or whole numbers.
        unlabeled_category: A further name for "without a label", if the column uses one.
        least: How many different labels there must be: 0, 1 or 2.

    Returns:
        Names (labels,) and codes (cells,), int64.

    Raises:
        InputError: Where the column is missing, does not use the name `unlabeled_category`, or holds fewer than `least`
            labels.
    """
    unlabeled_category = label_name(unlabeled_category)
    values = column_of(adata, column, f"Name the one with labels; empty, -1 or {unlabeled_category!r} means none.")
    names = values.map(label_name, na_action="ignore").astype(object)
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = list(dict.fromkeys(map(label_name, values.cat.categories)))
    else:
        known = sorted(set(names.dropna()), key=_in_order)
    if unlabeled_category not in [*known, UNLABELED]:
        raise InputError(
            f"No cell has {unlabeled_category!r} in adata.obs[{column!r}], though it was given as the name of the "
            f"cells without a label{did_you_mean(unlabeled_category, known)} The values are {listed(known)}."
        )
    names = names.where(~names.isin([*NO_LABEL, unlabeled_category]))
    used = set(names.dropna())
    order = [name for name in known if name in used]
    if len(order) < least:
        found = f"one label alone ({order[0]})" if order else "no label"
        raise InputError(
            f"adata.obs[{column!r}] holds {found}, and at least {least} are needed; {names.notna().sum()} of "
            f"{len(names)} cells are labeled. Give a few cells of every type a label."
        )
    return order, pd.Categorical(names, categories=order).codes.astype(np.int64)


def _in_order(name: str) -> tuple[int, int, str]:
    """Sort whole numbers by size and before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def label_name(value: object) -> str:
    """Return a label as text; a whole number is written the same whether it came as 1 or as 1.0."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def quality_warnings(names: Sequence[str], codes: np.ndarray, *, genes: int) -> list[str]:
    """Return a sentence for everything about labels and genes that can be used but makes a result less certain.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.
        genes: How many genes the model will see.
    """
    notes = []
    seeds = dict(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)), strict=True))
    if alone := [name for name, count in seeds.items() if count == 1]:
        notes.append(
            f"{listed(alone)}: a single labeled cell. Whether such cells are found again could not be tested; label a "
            "few more."
        )
    if few := [f"{name} ({count})" for name, count in seeds.items() if 1 < count < _FEW_SEEDS]:
        notes.append(
            f"Fewer than {_FEW_SEEDS} labeled cells: {listed(few)}. Another choice of cells could move the result by "
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

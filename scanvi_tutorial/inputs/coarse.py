"""Coarse labels: names for several types at once, and which types each label allows (book/12_labels.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.inputs.errors import InputError, column_of, did_you_mean, listed
from scanvi_tutorial.inputs.labels import check_labels, label_name, means_no_label

Coarse = Mapping[str, Sequence[str]]  # a coarse name: the types, or other coarse names, that it stands for


def check_coarse(coarse: Coarse | None) -> dict[str, list[str]]:
    """Return coarse names and what they stand for as plain text; raise `InputError` for what is no such table."""
    if coarse is None:
        return {}
    if not isinstance(coarse, Mapping):
        raise InputError(
            f'coarse must be a dict such as {{"T cell": ["CD4 T", "CD8 T"]}}, not {type(coarse).__name__}.'
        )
    table: dict[str, list[str]] = {}
    for parent, children in coarse.items():
        if isinstance(children, str | bytes) or not isinstance(children, Iterable):
            raise InputError(f"coarse[{parent!r}] must be a list of types, and is {children!r}.")
        table[label_name(parent)] = list(dict.fromkeys(map(label_name, children)))
    parents: dict[str, str] = {}
    for parent, children in table.items():
        if not children or any(map(means_no_label, [parent, *children])):
            raise InputError(f"coarse[{parent!r}] is {children}. Name the types that it stands for, one at the least.")
        for child in children:
            if child in parents:
                raise InputError(
                    f"{child!r} has two parents in coarse, {parents[child]!r} and {parent!r}. Leave it to one of them."
                )
            parents[child] = parent
    for name in parents:
        path = [name]
        while path[-1] in parents:
            path.append(parents[path[-1]])
            if path[-1] in path[:-1]:
                circle = path[path.index(path[-1]) :]
                raise InputError(f"coarse goes in a circle: {' is a '.join(map(repr, circle))}. Break it.")
    return table


def parents_in(
    adata: AnnData, column: str, unlabeled_category: str, names: Sequence[str], codes: NDArray[np.integer]
) -> tuple[dict[str, list[str]], list[str], NDArray[np.int64], list[str]]:
    """Return coarse names from a column with the parent of each cell; one without a label is labeled by its parent.

    Args:
        adata: Cells.
        column: Column of `obs` with the coarse name of every cell that has one.
        unlabeled_category: A further name for "none" in it.
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.

    Returns:
        What coarse names stand for; names and codes with coarse names among them; warnings.

    Raises:
        InputError: Where there is no such column, and where cells of one type have two parents.
    """
    values = column_of(adata, column, "Name the one with the parents of the types, or pass a dict.")
    used = (values.astype(str) == unlabeled_category).any()
    parents, of_cell = check_labels(adata, column, unlabeled_category=unlabeled_category if used else "", least=1)
    cells = pd.crosstab(codes, of_cell)  # labels, parents
    table: dict[str, list[str]] = {}
    for code, row in cells[cells.index >= 0].iterrows():
        found = {parents[number]: count for number, count in row.items() if number >= 0 and count}
        if len(found) > 1:
            counts = ", ".join(f"{name!r} ({count} cells)" for name, count in found.items())
            raise InputError(
                f"Cells of {names[code]!r} have {len(found)} parents in adata.obs[{column!r}]: {counts}. Give them one."
            )
        for name in found:
            if name != names[code]:
                table.setdefault(name, []).append(names[code])
    known = [*names, *(parent for parent in table if parent not in names)]
    code_of = np.array([*(known.index(parent) if parent in known else -1 for parent in parents), -1])
    empty = [number for number, parent in enumerate(parents) if parent not in known]
    notes = [
        f"Of the parent {parents[number]!r} no type is labeled, so that it says nothing of its cells "
        f"({(of_cell == number).sum()})."
        for number in empty
    ]
    return table, known, np.where(codes >= 0, codes, code_of[of_cell]), notes


def coarse_warnings(table: Coarse, names: Sequence[str]) -> list[str]:
    """Return a sentence for each coarse name that may be meant otherwise than it is taken.

    Args:
        table: What coarse names stand for.
        names: Names of the labels.
    """
    notes = []
    for parent, children in table.items():
        if parent not in names and not any(parent in others for others in table.values()):
            notes.append(f"No cell has the coarse label {parent!r}{did_you_mean(parent, names)}")
        elif len(children) == 1:
            notes.append(
                f"{parent!r} stands for {children[0]!r} alone, so its cells are taken for that type. If it has other "
                "types, label some of their cells."
            )
    return notes


def allowed_types(
    names: Sequence[str], codes: NDArray[np.integer], coarse: Coarse | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the types, the label of every cell, and which types each label allows.

    A label is a type, which allows itself, or a coarse name, which allows the types below it and is no type.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.
        coarse: What coarse names stand for.

    Returns:
        Names of the types; codes (cells,) of labels, types first; the table (labels, types).

    Raises:
        InputError: Where `check_coarse` refuses the table, or a type below a coarse name labels no cell.
    """
    table = check_coarse(coarse)
    types = [name for name in names if name not in table]
    for parent, children in table.items():
        for child in children:
            if child not in table and child not in types:
                raise InputError(
                    f"coarse[{parent!r}] names {child!r}, but no cell is labeled so{did_you_mean(child, types)} "
                    f"A type is learned from cells that have its own name. The types are {listed(types)}."
                )
    if len(types) < 2:
        raise InputError(f"Beside coarse names there are {len(types)} types ({listed(types)}), and two are needed.")

    order = [*types, *(name for name in names if name in table)]
    allowed = np.array([[kind in types_below(table, name) for kind in types] for name in order])
    place = np.array([*map(order.index, names), -1])  # the last entry keeps -1 where it is
    return types, place[codes], allowed


def types_below(table: Coarse, name: str) -> set[str]:
    """Return the types that a name stands for; of a type itself."""
    return {name} if name not in table else set().union(*(types_below(table, child) for child in table[name]))


def smallest_parents(table: Coarse, types: Sequence[str], sets: NDArray[np.bool_]) -> list[str]:
    """Return the coarse name of fewest types that holds each set, (cells,): of one type itself, and "" where none does.

    Args:
        table: What coarse names stand for.
        types: Names of the types.
        sets: Which types are in the set of each cell, (cells, types).
    """
    below = {name: types_below(table, name) for name in table}
    different, which = np.unique(sets, axis=0, return_inverse=True)
    found = []
    for own in different:
        inside = {types[kind] for kind in np.flatnonzero(own)}
        holding = [name for name in below if inside <= below[name]]
        found.append(min(holding, key=lambda name: len(below[name]), default="") if len(inside) > 1 else inside.pop())
    return [found[number] for number in which.ravel()]

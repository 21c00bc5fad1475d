"""Coarse labels: names for several types at once, and which types each label allows (book/12_labels.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.inputs.errors import InputError, did_you_mean, listed
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
    adata: AnnData, column: str, names: Sequence[str], codes: NDArray[np.integer]
) -> tuple[dict[str, list[str]], list[str], NDArray[np.int64]]:
    """Return coarse names from a column with the parent of every cell; a cell without a label is labeled by its parent.

    Args:
        adata: Cells.
        column: Column of `obs`: the coarse name of every cell that has one.
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.

    Returns:
        What coarse names stand for; names and codes with coarse names among them.
    """
    parents, of_cell = check_labels(adata, column, least=1)
    table = {}
    for number, parent in enumerate(parents):
        below = {names[code] for code in codes[(of_cell == number) & (codes >= 0)]} - {parent}
        if below:
            table[parent] = sorted(below, key=list(names).index)
    known = [*names, *(parent for parent in table if parent not in names)]
    code_of = np.array([*(known.index(parent) if parent in known else -1 for parent in parents), -1])
    return table, known, np.where(codes >= 0, codes, code_of[of_cell])


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
                    f"coarse[{parent!r}] names {child!r}, which no cell has for a label{did_you_mean(child, types)} "
                    f"A type is learned from cells that have its own name. The types are {listed(types)}."
                )
    if len(types) < 2:
        raise InputError(f"Beside coarse names there are {len(types)} types ({listed(types)}), and two are needed.")

    def below(name: str) -> set[str]:
        return {name} if name not in table else set().union(*map(below, table[name]))

    order = [*types, *(name for name in names if name in table)]
    allowed = np.array([[kind in below(name) for kind in types] for name in order])
    place = np.array([*map(order.index, names), -1])  # the last entry keeps -1 where it is
    return types, place[codes], allowed

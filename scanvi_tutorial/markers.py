"""Marker tables, and the scale on which genes are compared between cells: log counts per ten thousand.

Met in book/01_data.md. A table says which genes speak for a type and which against it, {type: {"positive": genes,
"negative": genes}}, in order of claim. Symbols: x_cg, the count of gene g in cell c.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pandas.api.types import is_list_like
from scipy.sparse import csr_matrix

from scanvi_tutorial.checks import NO_LABEL, InputError, label_name

__all__ = ["Markers", "check_markers", "log_cp10k", "marker_genes"]

Markers = Mapping[str, Mapping[str, list[str]]]

_SIDES = ("positive", "negative")


def check_markers(table: object) -> Markers:
    """Return a marker table as new dictionaries: types named by text, both sides of each present and a list.

    Types keep their order. None is a table without types, and a side that is left out has no genes.

    Raises:
        InputError: Where `table` has another form, or a type bears a name that means "without a label".
    """
    table = {} if table is None else table
    fault = None if isinstance(table, Mapping) else f"it is of type {type(table).__name__}"
    for name, sides in {} if fault else table.items():
        if label_name(name) in NO_LABEL:
            fault = f"{label_name(name)!r} means a cell without a label and cannot be a type"
        elif not isinstance(sides, Mapping) or not set(sides) <= set(_SIDES):
            fault = f"what it says of {name!r} is not by 'positive' and 'negative'"
        elif not all(is_list_like(genes) and all(isinstance(gene, str) for gene in genes) for genes in sides.values()):
            fault = f"the genes of {name!r} are not lists of names"
        if fault:
            break
    if fault:
        raise InputError(
            f"The marker table cannot be used: {fault}. Write it as "
            "{'type': {'positive': ['GENE'], 'negative': []}}, with genes named as in adata.var_names."
        )
    return {label_name(name): {side: list(sides.get(side, ())) for side in _SIDES} for name, sides in table.items()}


def marker_genes(table: Markers) -> list[str]:
    """Return the genes that a table names, of either side, each once and in the order of the table.

    >>> marker_genes({"B": {"positive": ["MS4A1"], "negative": ["CD3E"]}, "T": {"positive": ["CD3E"], "negative": []}})
    ['MS4A1', 'CD3E']
    """
    return list(dict.fromkeys(gene for sides in table.values() for genes in sides.values() for gene in genes))


def log_cp10k(counts: csr_matrix, genes: NDArray[np.bool_] | slice = slice(None)) -> csr_matrix:
    """Return log(1 + 10⁴ x_cg / Σ_g x_cg) of CSR counts (cells, genes), float64 and as sparse as they are.

    The total of a cell is taken over all genes given, whichever `genes` are to be returned; a cell without a count
    stays at zero.
    """
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    values = csr_matrix(counts[:, genes], dtype=np.float64)
    values.data *= 1e4
    values.data /= np.repeat(np.where(totals > 0, totals, 1), np.diff(values.indptr))
    return values.log1p()

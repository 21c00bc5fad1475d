"""Marker tables, and the marker scores of cells.

Introduced in book/01_data.md. A table lists positive and negative marker genes of each type, {type: {"positive": genes,
"negative": genes}}, in order of claim. The score of cell c for type t is a sum over marker genes g,

    score_ct = Σ_positive s_cg − Σ_negative s_cg,     s_cg = log(1 + 10⁴ x_cg / Σ_g x_cg), standardized over cells,

where x_cg is a count; as in the seed-labeling tutorial of scvi-tools.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from pandas.api.types import is_list_like
from scipy.sparse import csr_matrix

from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import check_labels, label_name, means_no_label

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
        if means_no_label(name):
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


def marker_table(adata: AnnData, markers: Markers | None) -> Markers:
    """Return the marker table to use: `markers`, or else `uns["markers"]`, its types in order of claim.

    An `.h5ad` file does not keep the order of a table: one from `uns` takes that of the categories of `obs["truth"]`,
    if both name the same types.

    Raises:
        InputError: Where there is no table, or `check_markers` refuses it.
    """
    table = check_markers(adata.uns.get("markers") if markers is None else markers)
    if not table:
        raise InputError(
            "There is no marker table. Put one into adata.uns['markers'], as "
            "{'type': {'positive': ['GENE'], 'negative': []}}, or pass markers=..., or choose how='random'."
        )
    if markers is None and "truth" in adata.obs:
        known = check_labels(adata, "truth", least=0)[0]
        return {name: table[name] for name in known} if set(known) == set(table) else table
    return table


def marker_scores(
    adata: AnnData,
    markers: Markers | None = None,
    *,
    layer: str | None = None,
) -> pd.DataFrame:
    """Return the marker score of every cell for every type, (cells, types).

    The unit is the standard deviation of a marker gene over cells. Genes of the table that
    are missing in `adata` are left out; a gene with one value in all cells contributes zero.

    Raises:
        InputError: Where there is no marker table, or a type has no positive marker here.
    """
    table = marker_table(adata, markers)
    counts = check_counts(adata, layer)
    known = adata.var_names.isin(marker_genes(table))
    values = log_cp10k(counts, known).toarray()
    spread = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), np.inf)
    values = (values - values.mean(axis=0)) / spread
    standard = pd.DataFrame(values, adata.obs_names, adata.var_names[known])
    scores = {}
    for name, sides in table.items():
        positive = [gene for gene in sides["positive"] if gene in standard]
        negative = [gene for gene in sides["negative"] if gene in standard]
        if not positive:
            raise InputError(
                f"None of the positive markers of {name!r} "
                f"({listed(sides['positive'])}) is among the {adata.n_vars} genes "
                f"({listed(adata.var_names, 3)}). Give markers that are."
            )
        scores[name] = standard[positive].sum(axis=1) - standard[negative].sum(axis=1)
    return pd.DataFrame(scores)


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

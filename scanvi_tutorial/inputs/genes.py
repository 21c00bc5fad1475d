"""Genes of a fitted model among those of other cells: put in order, padded where a few are missing, or refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.inputs.errors import InputError, listed, refuse_repeated

__all__ = ["LEAST_OVERLAP", "align_genes", "check_genes"]

LEAST_OVERLAP = 0.5  # share of the model's genes that other cells must have


def check_genes(adata: AnnData, genes: Sequence[str]) -> AnnData:
    """Return `adata` with exactly `genes`, in that order: itself where they agree already, else a view.

    Genes that `adata` has beyond those are left out.

    Raises:
        InputError: Where some of `genes` are missing, or where gene names repeat.
    """
    wanted = pd.Index(genes)
    if adata.var_names.equals(wanted):
        return adata
    refuse_repeated(adata, "var")
    missing = wanted.difference(adata.var_names, sort=False)
    if len(missing):
        raise InputError(
            f"{len(missing)} of the {len(wanted)} genes that the model was fitted on are not among the "
            f"{adata.n_vars} genes of these cells: {listed(missing)}. Check that both name genes in the same way "
            f"(these cells: {listed(adata.var_names, 3)}), or fit a model on the genes that both have."
        )
    return adata[:, wanted]


def align_genes(counts: sparse.csr_matrix, var: pd.DataFrame, genes: Sequence[str]) -> tuple[sparse.csr_matrix, float]:
    """Return counts (cells, genes) of `genes`, in that order, and the share of them that is there.

    A gene that is missing counts zero in every cell. The encoder reads each gene's share of the cell's counts, so the
    shares of the others rise by what is missing: a few percent are harmless, and below half we refuse.

    Args:
        counts: (cells, their own genes), as `check_counts` returns them.
        var: Their genes by name; an error looks in its columns for the names that the model uses.
        genes: Those that the model was fitted on.

    Raises:
        InputError: Where the share is less than `LEAST_OVERLAP`.
    """
    names = var.index
    place = names.get_indexer(pd.Index(genes))
    found = place >= 0
    share = float(found.mean())
    if share < LEAST_OVERLAP:
        raise InputError(
            f"Only {found.sum()} of the {len(found)} genes that the model was fitted on are among the {len(names)} "
            f"genes of these cells ({share:.0%}; at least {LEAST_OVERLAP:.0%} are needed). The model knows "
            f"{listed(genes, 3)}; these cells have {listed(names, 3)}. {_remedy(var, genes)}"
        )
    # a matrix product picks and pads in one step, without a dense intermediate
    pick = sparse.csr_matrix(
        (np.ones(found.sum(), dtype=np.float32), (place[found], np.flatnonzero(found))), (len(names), len(found))
    )
    return (counts @ pick).tocsr().astype(np.float32), share


def _remedy(var: pd.DataFrame, genes: Sequence[str]) -> str:
    """Name the column of `var` that holds the model's names, or say what may set the names apart."""
    for column in var.columns:
        if pd.Index(genes).isin(var[column].astype(str)).mean() >= LEAST_OVERLAP:
            return (
                f"adata.var[{column!r}] holds the model's names: set adata.var_names = adata.var[{column!r}].astype("
                "str), then adata.var_names_make_unique()."
            )
    return (
        "Check that both are of one species and name genes alike (by symbols, or by Ensembl ids without versions), "
        "or fit a model on the genes that both have."
    )

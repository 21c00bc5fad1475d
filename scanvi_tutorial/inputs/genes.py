"""Genes of a fitted model among those of other cells: put in order, padded where a few are missing, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.inputs.errors import InputError, listed, refuse_repeated

LEAST_OVERLAP = 0.5  # share of the model's genes that other cells must have
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")


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
    """Guess why the names differ."""
    names, wanted = var.index, set(genes)
    for column in var.columns:
        if _share(var[column].astype(str), wanted) >= LEAST_OVERLAP:
            return (
                f"adata.var[{column!r}] holds the model's names: set adata.var_names = adata.var[{column!r}].astype("
                "str), then adata.var_names_make_unique()."
            )
    ours, theirs = _ensembl(genes), _ensembl(names)
    if ours and theirs and _share((name.split(".")[0] for name in names), {name.split(".")[0] for name in wanted}):
        return "Both are Ensembl ids; take their versions (the dot and what follows) off on both sides."
    if ours != theirs:
        return (
            f"{'The model' if ours else 'These cells'} name genes by Ensembl ids and the other by symbols: translate "
            "them, for example with scanpy.queries.biomart_annotations, and put the result into adata.var_names."
        )
    if _share((name.upper() for name in names), {name.upper() for name in wanted}) >= LEAST_OVERLAP:
        return "They agree but for capitals, as genes of mouse and human do: fit a model on cells of this species."
    return "Check species and reference, or fit a model on the genes that both have."


def _share(names: Iterable[str], wanted: set[str]) -> float:
    return len(wanted.intersection(names)) / len(wanted)


def _ensembl(names: Iterable[str]) -> bool:
    names = [str(name) for name in names]
    return sum(bool(_ENSEMBL.fullmatch(name)) for name in names) > len(names) / 2

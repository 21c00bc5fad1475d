"""Choice of genes: those detected in most cells, or the most variable ones, and always the markers."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, InputWarning, whole_number
from scanvi_tutorial.inputs.genes import only_genes
from scanvi_tutorial.inputs.markers import check_markers, marker_genes
from scanvi_tutorial.inputs.session import scanpy_module


def select_genes(
    adata: AnnData, n: int = 2_000, how: Literal["detected", "variable"] = "detected", *, layer: str | None = None
) -> AnnData:
    """Return a copy of `adata` with `n` of its genes, in the order they had; all of them where there are no more.

    Features that are no genes, by `var["feature_types"]`, are left out, and an `InputWarning` says how many.

    The markers of `uns["markers"]` are kept first and count among the `n`; where they alone are more, all of them stay.
    Genes that are equally good are taken in the order they have.

    Args:
        adata: Raw counts, (cells, genes).
        n: Genes to keep.
        how: "detected" ranks genes by the number of cells with a count, "variable" by scanpy's normalized dispersion
            of log CP10k (its flavor "seurat"). On sorted T cells the former serves every method better.
        layer: Where the counts are, if not in `X`.

    Raises:
        InputError: Where `n` or `how` make no sense, or counts or markers cannot be used.
    """
    n = whole_number(n, "n", 1)
    if how not in ("detected", "variable"):
        raise InputError(f'how must be "detected" or "variable", got {how!r}.')
    adata, left_out = only_genes(adata)
    for text in left_out:
        warnings.warn(text, InputWarning, stacklevel=2)
    counts = check_counts(adata, layer)
    if n >= adata.n_vars:
        return adata.copy()
    score = counts.getnnz(axis=0).astype(np.float64) if how == "detected" else _dispersion(counts)
    return adata[:, best_genes(score, adata.var_names, adata.uns.get("markers"), n)].copy()


def chosen_genes(cells: AnnData, markers: object, n: int) -> tuple[AnnData, list[str]]:
    """Return cells with the genes that a model of their own is to see, and what is to be said of genes.

    Args:
        cells: As `strip_to_inputs` returns them.
        markers: What `uns["markers"]` of the user's AnnData holds, a table of another tool's perhaps.
        n: Genes to choose.

    Raises:
        InputError: Where a cell has no count in the genes that are chosen.
    """
    notes = []
    try:
        cells.uns["markers"] = check_markers(markers)
    except InputError:
        notes.append('uns["markers"] is no marker table of this package and was passed over.')
    seen = cells.X.getnnz(axis=0) > 0
    if not seen.all():
        notes.append(f"{(~seen).sum()} of {len(seen)} genes have no count in any cell and were left out.")
        cells = cells[:, seen].copy()
    chosen = cells if n >= cells.n_vars else select_genes(cells, n)
    silent = np.flatnonzero(chosen.X.getnnz(axis=1) == 0)
    if len(silent):
        raise InputError(
            f"{len(silent)} of {cells.n_obs} cells have no count in the {chosen.n_vars} genes that were chosen, the "
            f"first is {cells.obs_names[silent[0]]!r}. Choose more genes, or remove cells with very few counts: "
            "scanpy.pp.filter_cells(adata, min_counts=200)."
        )
    return chosen, notes


def best_genes(score: np.ndarray, names: pd.Index, markers: object, n: int) -> np.ndarray:
    """Return the positions of the `n` genes with the highest `score` (genes,), in order; marker genes come first.

    `markers` is what `uns["markers"]` holds; where they alone are more than `n`, all of them stay.
    """
    score = np.where(names.isin(marker_genes(check_markers(markers))), np.inf, score)
    best = np.argsort(-score, kind="stable")[: max(n, np.isposinf(score).sum())]
    return np.sort(best)


def _dispersion(counts: sparse.csr_matrix) -> np.ndarray:
    """Return how much more every gene varies than genes of its mean do, (genes,); -inf for a gene never seen."""
    scanpy = scanpy_module()
    logs = AnnData(counts.copy())
    scanpy.pp.normalize_total(logs, target_sum=1e4)
    scanpy.pp.log1p(logs)
    table = scanpy.pp.highly_variable_genes(logs, flavor="seurat", inplace=False)
    return table["dispersions_norm"].fillna(-np.inf).to_numpy(dtype=np.float64)

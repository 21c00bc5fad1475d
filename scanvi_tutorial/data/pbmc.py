"""`pbmc`: four kinds of sorted T cells, the very cells and seed labels of Pyro's scANVI tutorial.

Met in book/01_data.md. Zheng et al. (2017, doi:10.1038/ncomms14049) sorted blood cells by their surface and sequenced
each population apart; `PurifiedPBMCDataset.h5ad` of scvi-tools holds them all, 42,919 cells and 21,932 genes of the
four populations of Figure 6 among them. Seeds and subset follow `get_data` in Pyro's contrib/examples/scanvi_data.py,
which follows the seed-labeling tutorial of scvi-tools. Type and sequencing run are the same thing here: neither can be
told from the other.
"""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from scanvi_tutorial.data.download import fetch
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.files import read_h5ad
from scanvi_tutorial.inputs.markers import marker_genes

__all__ = ["MARKERS", "POPULATIONS", "load_pbmc"]

FILE = "PurifiedPBMCDataset.h5ad"

MARKERS = {  # in order of claim: where two types want a cell, the later one has it
    "CD8 naive": {"positive": ["CD8B", "CCR7"], "negative": ["CD4"]},
    "CD4 naive": {"positive": ["CCR7", "CD4"], "negative": ["S100A4", "PTPRC", "FOXP3", "IL2RA", "CD69"]},
    "CD4 memory": {"positive": ["S100A4"], "negative": ["IL2RA", "FOXP3", "TNFRSF18", "CCR7"]},
    "CD4 regulatory": {
        "positive": ["TNFRSF18", "CTLA4", "FOXP3", "IL2RA"],
        "negative": ["S100A4", "PTPRC", "CD8B"],
    },
}

POPULATIONS = {  # the source's name of a population: ours; in the order in which the rows are taken
    "regulatory_t": "CD4 regulatory",
    "naive_t": "CD4 naive",
    "memory_t": "CD4 memory",
    "naive_cytotoxic": "CD8 naive",
}


def load_pbmc(
    subset: int | None = 20_000,
    path: str | PathLike[str] | None = None,
    *,
    data_dir: str | PathLike[str] | None = None,
    per_label: int = 50,
) -> AnnData:
    """Return raw counts of sorted T cells, (20000 cells, 21932 genes), labeled by the protocol of Pyro's tutorial.

    The 50 cells that score highest for a type by `MARKERS` are its seeds, among all cells of the four populations. The
    first rows are the seeds, in the order of the file; then come other cells in an order drawn with seed 0.

    Args:
        subset: How many cells to return, or all if there are fewer. None means every cell in the order of the file,
            population by population.
        path: An `.h5ad` file of the same form to read instead of downloading the one of scvi-tools.
        data_dir: Where `PurifiedPBMCDataset.h5ad` is or goes to; see `fetch`.
        per_label: Seed cells per type, 50 by the protocol.

    Returns:
        `X` CSR float32; `obs["truth"]`, the sorted population, and `obs["label"]`, both categorical; `uns["markers"]`.

    Raises:
        InputError: Where the file lacks the column, a population or a marker gene, or does not hold raw counts.
        DownloadError: Where no source gives the file; the text says how to get it by hand.
    """
    adata = _read(Path(fetch(FILE, data_dir=data_dir) if path is None else path))
    label = seed_labels(adata, per_label, how="markers")
    seeds = (label.obs["label"].cat.codes < len(MARKERS)).to_numpy()
    return label if subset is None else _take(label, _chosen(seeds, subset))


def _chosen(seeds: np.ndarray, subset: int) -> np.ndarray:
    """Return the rows of the seeds, then those of other cells, permuted, until there are `subset` of them."""
    first, others = np.flatnonzero(seeds), np.flatnonzero(~seeds)
    if subset < len(first):
        raise InputError(f"subset={subset} leaves no room for the {len(first)} seeds. Ask for more cells, or for None.")
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(0)).numpy()
    return np.concatenate([first, others[order[: subset - len(first)]]])


def _take(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Return some cells; unlike adata[rows].copy() this keeps a category that none of them has."""
    return AnnData(adata.X[rows], obs=adata.obs.iloc[rows], var=adata.var, uns=adata.uns)


def _read(path: Path) -> AnnData:
    """Read the four populations, one after the other, and of the file's counts no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)  # files of any age will do
        warnings.filterwarnings("ignore", ".* names are not unique", UserWarning)  # they are made so below
        try:
            source = anndata.read_h5ad(path, backed="r")
        except Exception:
            read_h5ad(path)  # says what is wrong with the file
            raise
    try:
        rows = _rows_of_populations(source.obs, path)
        genes = _genes_with_markers(source.var_names, path)
        if isinstance(source.X, h5py.Dataset):
            raise InputError(f"{path} holds a dense matrix. Write it with adata.X = scipy.sparse.csr_matrix(adata.X).")
        blocks = [_read_rows(source.X, chosen) for chosen in rows.values()]
        obs = pd.DataFrame(index=make_index_unique(source.obs_names[np.concatenate(list(rows.values()))].astype(str)))
        var = source.var.set_axis(genes)
    finally:
        source.file.close()
    truth = np.repeat([POPULATIONS[population] for population in rows], [block.shape[0] for block in blocks])
    obs["truth"] = pd.Categorical(truth, categories=list(MARKERS))
    counts = sparse.vstack(blocks, format="csr")
    adata = AnnData(counts, obs=obs, var=var, uns={"markers": MARKERS, "dataset": "pbmc"})
    adata.X = check_counts(adata)
    return adata


def _rows_of_populations(obs: pd.DataFrame, path: Path) -> dict[str, np.ndarray]:
    if "cell_types" not in obs:
        raise InputError(
            f"{path} has no column obs['cell_types'], which says the population of a cell; its columns are "
            f"{listed(obs.columns)}. Is it really {FILE} of scvi-tools?"
        )
    population = obs["cell_types"].astype(str).to_numpy()
    rows = {name: np.flatnonzero(population == name) for name in POPULATIONS}
    if missing := [name for name in rows if not len(rows[name])]:
        raise InputError(
            f"{path} has no cell of {listed(missing)} in obs['cell_types'], which holds "
            f"{listed(sorted(set(population)))}. All of {listed(POPULATIONS)} are needed."
        )
    return rows


def _genes_with_markers(names: pd.Index, path: Path) -> pd.Index:
    genes = make_index_unique(names.astype(str))
    if missing := [gene for gene in marker_genes(MARKERS) if gene not in genes]:
        raise InputError(
            f"{path} lacks marker genes: {listed(missing)}. Its genes are named like {listed(genes, 3)}; name them by "
            "symbol in var_names."
        )
    return genes


def _read_rows(matrix: Any, rows: np.ndarray) -> sparse.csr_matrix:
    """Read the stretch from the first of `rows` to the last of a matrix on disk; row by row would be slow."""
    stretch = sparse.csr_matrix(matrix[rows[0] : rows[-1] + 1], dtype=np.float32)
    return stretch if len(rows) == stretch.shape[0] else stretch[rows - rows[0]]

"""`pbmc`: four kinds of sorted T cells, the very cells and seed labels of Pyro's scANVI tutorial.

Met in book/01_data.md. Zheng et al. (2017, doi:10.1038/ncomms14049) sorted blood cells by their surface and sequenced
each population apart, so that type and sequencing run cannot be told apart. `PurifiedPBMCDataset.h5ad` of scvi-tools
holds them all. Seeds and subset follow `get_data` in Pyro's contrib/examples/scanvi_data.py.
"""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.utils import make_index_unique

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.data.download import fetch
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.files import read_h5ad
from scanvi_tutorial.inputs.markers import marker_genes

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
    adata = seed_labels(_read(Path(fetch(FILE, data_dir=data_dir) if path is None else path)), per_label)
    if subset is None:
        return adata
    seeds = adata.obs["label"] != UNLABELED
    first, others = np.flatnonzero(seeds), np.flatnonzero(~seeds)
    if subset < len(first):
        raise InputError(f"subset={subset} leaves no room for the {len(first)} seeds. Ask for more cells, or for None.")
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(0)).numpy()
    rows = np.concatenate([first, others[order[: subset - len(first)]]])
    # unlike adata[rows].copy() this keeps a category that none of the cells has
    return AnnData(adata.X[rows], obs=adata.obs.iloc[rows], var=adata.var, uns=adata.uns)


def _read(path: Path) -> AnnData:
    """Read the four populations, one after the other, with names that are unique."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", anndata.OldFormatWarning)  # files of any age will do
        warnings.filterwarnings("ignore", ".* names are not unique", UserWarning)  # they are made so below
        source = read_h5ad(path)
    if "cell_types" not in source.obs:
        raise InputError(
            f"{path} has no column obs['cell_types'], which says the population of a cell; its columns are "
            f"{listed(source.obs.columns)}. Is it really {FILE} of scvi-tools?"
        )
    population = source.obs["cell_types"].astype(str).to_numpy()
    if missing := [name for name in POPULATIONS if name not in population]:
        raise InputError(
            f"{path} has no cell of {listed(missing)} in obs['cell_types'], which holds "
            f"{listed(sorted(set(population)))}. All of {listed(POPULATIONS)} are needed."
        )
    genes = make_index_unique(source.var_names.astype(str))
    if missing := [gene for gene in marker_genes(MARKERS) if gene not in genes]:
        raise InputError(
            f"{path} lacks marker genes: {listed(missing)}. Its genes are named like {listed(genes, 3)}; name them by "
            "symbol in var_names."
        )
    rows = np.concatenate([np.flatnonzero(population == name) for name in POPULATIONS])
    truth = pd.Categorical([POPULATIONS[name] for name in population[rows]], categories=list(MARKERS))
    obs = pd.DataFrame({"truth": truth}, index=make_index_unique(source.obs_names[rows].astype(str)))
    uns = {"markers": MARKERS, "dataset": "pbmc"}
    adata = AnnData(source.X[rows], obs=obs, var=source.var.set_axis(genes), uns=uns)
    adata.X = check_counts(adata)
    return adata

"""`facs` and `facs-t`: blood cells whose types come from sorting by surface proteins, not from their counts.

Met in book/01_data.md. Ten populations were enriched with antibodies on beads and sequenced apart (Zheng et al. 2017,
doi:10.1038/ncomms14049), so that type and sequencing run cannot be told apart. 3,874 of their cells come with the R
package fastTopics; `facs-t` is the 888 of them in the four T-cell populations of Figure 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from scanvi_tutorial.data.download import fetch
from scanvi_tutorial.data.pbmc import MARKERS as T_MARKERS
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inputs.errors import InputError

POPULATIONS = {  # the source's name of a population: ours
    "CD34+": "CD34+",
    "CD14+ Monocyte": "CD14+ monocyte",
    "CD19+ B": "B",
    "CD56+ NK": "NK",
    "CD8+ Cytotoxic T": "CD8 cytotoxic",
    "CD4+ T Helper2": "CD4 helper",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8 naive",
    "CD4+/CD45RA+/CD25- Naive T": "CD4 naive",
    "CD4+/CD45RO+ Memory": "CD4 memory",
    "CD4+/CD25 T Reg": "CD4 regulatory",
}

# Textbook markers, in order of claim. "CD4 helper" was sorted on CD4 alone and so holds cells of the three CD4
# populations below it: no gene sets it apart, and its seeds are right about half of the time.
_OTHER_LINEAGES = ["CD8B", "LYZ", "NKG7", "CD79A"]
MARKERS = {
    "CD34+": {"positive": ["CD34", "SPINK2", "PRSS57", "SOX4"], "negative": []},
    "CD14+ monocyte": {"positive": ["CD14", "LYZ", "S100A8", "S100A9", "FCN1"], "negative": ["CD34"]},
    "B": {"positive": ["CD79A", "CD79B", "MS4A1", "CD19"], "negative": []},
    "NK": {"positive": ["GNLY", "NKG7", "KLRF1", "FCGR3A", "NCAM1"], "negative": ["CD3D", "CD3E", "CD8B"]},
    "CD8 cytotoxic": {"positive": ["CD8A", "CD8B", "CCL5", "GZMK", "NKG7"], "negative": ["CD4", "CCR7", "TYROBP"]},
    "CD4 helper": {
        "positive": ["CD4", "CD3D", "IL7R", "LDHB"],
        "negative": ["S100A4", "FOXP3", "IL2RA", *_OTHER_LINEAGES],
    },
    "CD8 naive": {"positive": ["CD8A", "CD8B", "CCR7"], "negative": ["CD4", "NKG7", "CCL5", "GZMK", "S100A4"]},
    "CD4 naive": {
        "positive": ["CCR7", "CD3D", "LEF1", "TCF7"],
        "negative": ["S100A4", "FOXP3", "IL2RA", "CD69", "PTPRC", *_OTHER_LINEAGES],
    },
    "CD4 memory": {
        "positive": ["S100A4", "CD3D", "CD3E", "IL32"],
        "negative": ["IL2RA", "FOXP3", "TNFRSF18", "CCR7", *_OTHER_LINEAGES],
    },
    "CD4 regulatory": {
        "positive": ["FOXP3", "IL2RA", "CTLA4", "TNFRSF18", "CD3D"],
        "negative": ["S100A4", *_OTHER_LINEAGES],
    },
}


def load_facs(*, data_dir: Path | None = None, per_label: int = 10) -> AnnData:
    """Return all ten populations: raw counts, (3874 cells, 16791 genes), with marker-derived seeds.

    `obs["split"]` says which cells the source trained on ("train", 3,774) and held out ("test", 100);
    `var["ensembl"]` holds the gene ids that the symbols in `var_names` stand for.

    Args:
        data_dir: Where `pbmc_facs.RData` is or goes to; see `fetch`.
        per_label: Seed cells per type.
    """
    adata = read_facs(fetch("pbmc_facs.RData", data_dir=data_dir))
    adata.uns["dataset"], adata.uns["markers"] = "facs", MARKERS
    return seed_labels(adata, per_label)


def load_facs_t(*, data_dir: Path | None = None, per_label: int = 10) -> AnnData:
    """Return the four T-cell populations of Figure 6: raw counts, (888 cells, 16791 genes), with marker-derived seeds.

    The seeds follow the scores of the tutorial (`pbmc.MARKERS`). About three in four are right; those of naive CD4 are
    right half of the time only, for what marks them is mostly the absence of other markers.
    Arguments and columns are those of `load_facs`.
    """
    adata = read_facs(fetch("pbmc_facs.RData", data_dir=data_dir))
    adata = adata[adata.obs["truth"].isin(list(T_MARKERS))].copy()
    adata.obs["truth"] = adata.obs["truth"].cat.set_categories(list(T_MARKERS))
    adata.uns["dataset"], adata.uns["markers"] = "facs-t", T_MARKERS
    return seed_labels(adata, per_label)


def read_facs(path: Path) -> AnnData:
    """Read `pbmc_facs.RData`: raw counts of (3874 cells, 16791 genes), the cells of the source's test split last.

    Raises:
        InputError: Where the file is not R data or does not hold these tables.
    """
    from rdata import read_rda  # only these two data sets need it
    from rdata.conversion import DEFAULT_CLASS_MAP

    # rdata warns of classes that it knows no constructor for: a matrix, a fitted topic model, notes of the CSV reader
    unused = ("collector", "collector_character", "collector_guess", "col_spec", "multinom_topic_model_fit", "list")
    constructors = DEFAULT_CLASS_MAP | dict.fromkeys(unused, lambda *_: None) | {"dgCMatrix": _matrix}
    try:
        tables = read_rda(path, constructor_dict=constructors)["pbmc_facs"]
        parts = [tables["counts"], tables["counts_test"]]
        types = pd.concat([tables["samples"]["celltype"], tables["samples_test"]["celltype"]]).astype(str)
        symbols = pd.Index(tables["genes"]["symbol"].astype(str).to_numpy())
        ensembl = tables["genes"]["ensembl"].astype(str).to_numpy()
    except Exception as err:  # what the parser raises depends on where a file is damaged
        raise InputError(
            f"{path} does not hold the sorted blood cells, the R object pbmc_facs ({err!r}). Delete it; "
            "the next call fetches it again."
        ) from err
    obs = pd.DataFrame(
        {
            "split": pd.Categorical(["train"] * len(parts[0][1]) + ["test"] * len(parts[1][1]), ["train", "test"]),
            "truth": pd.Categorical(types.map(POPULATIONS), categories=list(MARKERS)),
        },
        index=make_index_unique(pd.Index([name for _, cells in parts for name in cells])),
    )
    counts = sparse.vstack([matrix for matrix, _ in parts], format="csr")
    return AnnData(counts, obs=obs, var=pd.DataFrame({"ensembl": ensembl}, index=make_index_unique(symbols)))


def _matrix(_value: Any, slots: Any) -> tuple[sparse.csr_matrix, list[str]]:
    """Turn R's dgCMatrix, which is CSC, into CSR and the names of its rows (barcode and population)."""
    columns = sparse.csc_matrix((slots["x"], slots["i"], slots["p"]), shape=tuple(slots["Dim"]), dtype=np.float32)
    return columns.tocsr(), [str(name) for name in slots["Dimnames"][0]]

"""Every data set of the book under its name: `load(name)`.

Met in book/01_data.md. Each comes as raw integer counts (cells, genes), CSR float32, with `obs["truth"]`,
`obs["label"]` (seed cells found by marker genes, everybody else "Unknown"), `uns["markers"]` and `uns["dataset"]`; for
`worm` there are no markers, and its seeds are drawn from the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anndata import AnnData

from scanvi_tutorial.data.facs import load_facs, load_facs_t
from scanvi_tutorial.data.pbmc import load_pbmc
from scanvi_tutorial.data.pbmc68k import load_pbmc68k
from scanvi_tutorial.data.simulated import load_simulated
from scanvi_tutorial.data.worm import load_worm
from scanvi_tutorial.inputs.errors import InputError, did_you_mean, listed

_ZHENG = "Zheng et al. 2017, doi:10.1038/ncomms14049"
_FASTTOPICS = (
    f"{_ZHENG}; from the R package fastTopics",
    "BSD-2-Clause (fastTopics); counts on the terms of 10x Genomics",
    "pbmc_facs.RData, 4 MB",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from and how it is loaded."""

    title: str  # one line on what it is
    loader: Callable[..., AnnData]  # all of its arguments have defaults
    origin: str  # who made it, and where it is taken from
    license: str  # under what terms
    download: str | None = None  # the file that is fetched and its size; None needs no network


REGISTRY: dict[str, Source] = {
    "simulated": Source(
        "counts about known profiles, every latent variable kept", load_simulated, "made on the spot", "none needed"
    ),
    "pbmc68k": Source(
        "700 blood cells, 765 genes, seven types; truth by correlation with sorted cells",
        load_pbmc68k,
        f"{_ZHENG}; ships with scanpy (pbmc68k_reduced)",
        "BSD-3-Clause (scanpy); counts on the terms of 10x Genomics",
    ),
    "facs": Source("3,874 sorted blood cells, 16,791 genes, ten types", load_facs, *_FASTTOPICS),
    "facs-t": Source("888 sorted T cells of four types, 16,791 genes", load_facs_t, *_FASTTOPICS),
    "worm": Source(
        "1,805 neurons of the worm's embryo, 10,000 genes, eight types in seven runs",
        load_worm,
        "Packer et al. 2019, doi:10.1126/science.aax1971; from the R package monocle3",
        "MIT (monocle3)",
        "worm_embryo.h5ad, made from three files of R",
    ),
    "pbmc": Source(
        "20,000 sorted T cells of four types, 21,932 genes, as in Pyro's tutorial",
        load_pbmc,
        f"{_ZHENG}; from scvi-tools",
        "BSD-3-Clause (scvi-tools); counts on the terms of 10x Genomics",
        "PurifiedPBMCDataset.h5ad, 157 MB",
    ),
}


def load(name: str, **options: Any) -> AnnData:
    """Return the data set `name`; `options` are those of its loader, for example `load("pbmc", subset=None)`.

    >>> load("simulated", cells=200).shape
    (200, 64)

    Raises:
        InputError: Where there is no data set of that name.
    """
    if name not in REGISTRY:
        raise InputError(
            f"There is no data set {name!r}{did_you_mean(name, REGISTRY)} Choose one of {listed(REGISTRY)}; "
            "counts of your own in an .h5ad file are read with st.read_h5ad(path)."
        )
    return REGISTRY[name].loader(**options)

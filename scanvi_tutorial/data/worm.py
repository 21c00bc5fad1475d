"""`worm`: neurons of the worm's embryo, of which some types are the parents of others (met in book/12_labels.md).

1,805 cells of Caenorhabditis elegans from seven runs (Packer et al. 2019, doi:10.1126/science.aax1971), named by
lineage and time: amphid neurons and the cells that they come from. They are a part of the embryo that comes with the R
package monocle3, as three files of R; `worm_embryo.h5ad` is made of these, without change of a count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad

from scanvi_tutorial.data.download import DownloadError, data_folder
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inputs.errors import InputError

MERGED = {"AWC_ON": "AWC"}  # nine cells of one of the two AWC neurons, once it has decided which it is
_FILE = "worm_embryo.h5ad"
_SOURCE = "https://github.com/cole-trapnell-lab/monocle3/tree/1336cc9/inst/extdata/worm_embryo"
_SHAPE, _COUNTS = (1_805, 10_000), 1_248_505


def load_worm(*, data_dir: Path | None = None, per_label: int = 10) -> AnnData:
    """Return raw counts, (1805 cells, 10000 genes), of eight types; seeds are drawn from the truth.

    `obs` has `batch` (seven runs), `embryo_minutes` and `lineage`.

    Args:
        data_dir: Where `worm_embryo.h5ad` is; see `data_folder`.
        per_label: Seed cells per type.

    Raises:
        DownloadError: Where the file is not there: it is nowhere to be downloaded in this form.
        InputError: Where it holds something else.
    """
    path = data_folder(data_dir) / _FILE
    if not path.is_file():
        raise DownloadError(
            f"There is no file {path}. Its source are three files of R at {_SOURCE}: write the counts, (cells, genes), "
            f"with the columns cell_type, batch, embryo_minutes and lineage of obs as {_FILE}. SCANVI_DATA_DIR chooses "
            "another folder."
        )
    source = read_h5ad(path)
    if source.shape != _SHAPE or source.X.sum() != _COUNTS:
        raise InputError(
            f"{path} holds {source.shape[0]} × {source.shape[1]} counts that sum to {source.X.sum():.0f}, and not the "
            f"{_SHAPE[0]} × {_SHAPE[1]} of the worm's embryo, which sum to {_COUNTS}. Make it again from {_SOURCE}."
        )
    truth = source.obs["cell_type"].astype(str).replace(MERGED)
    obs = source.obs[["batch", "embryo_minutes", "lineage"]].assign(truth=pd.Categorical(truth))
    adata = AnnData(source.X.astype(np.float32), obs=obs, var=source.var)
    adata.uns["dataset"] = "worm"
    return seed_labels(adata, per_label, "random")

"""Name new cells by a model that was fitted before; used in book/10_your_data.md.

The model learns nothing from them, so the answer for a cell does not depend on the cells beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.annotation.answer import write_answer
from scanvi_tutorial.inference.predictions import label_probabilities, latent
from scanvi_tutorial.inputs.cells import check_cells
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, check_seed
from scanvi_tutorial.inputs.genes import align_genes, gene_features
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.model.scanvi import SCANVI


@usual_settings()
def predict(model: SCANVI | str | Path, adata: AnnData, *, layer: str | None = None, seed: int = 0) -> None:
    """Write the labels, probabilities and states that a fitted model gives to new cells into `adata`.

    Written are `obs["scanvi_label"]`, `obs["scanvi_probability"]`, `obsm["scanvi_probabilities"]`, `obsm["X_scanvi"]`
    as `annotate` describes them, and `uns["scanvi"]` with `genes_found`, `label_names`, `seed`, `versions` and
    `warnings`; nothing else changes. Genes may come in any order and with others among them; the model's genes that are
    missing count zero in every cell, and `genes_found` is the share that was there.

    Args:
        model: A model, or the file that `annotate(..., model=path)` or `model.save(path)` wrote.
        adata: Raw counts of new cells, (cells, their own genes).
        layer: Where the counts are, if not in `X`.
        seed: Draws the states that are averaged over.

    Raises:
        InputError: Where the counts cannot be used, cell names repeat, fewer than half of the model's genes are there,
            or a cell has no count in any of them.
        PersistenceError: Where the file is no model that can be read.
    """
    seed = check_seed(seed)
    model = model if isinstance(model, SCANVI) else SCANVI.load(model)
    check_cells(adata)
    known = gene_features(adata.var) | adata.var_names.isin(model.genes)
    cells = adata if known.all() else adata[:, known]
    counts, found, notes = align_genes(check_counts(cells, layer), cells.var, model.genes)
    silent = np.flatnonzero(np.diff(counts.indptr) == 0)
    if len(silent):
        raise InputError(
            f"{len(silent)} of {adata.n_obs} cells have no count in any gene of the model, the first is "
            f"{adata.obs_names[silent[0]]!r}: nothing can be said of them. Leave them out."
        )
    names = {} if model.columns.layer is None else {model.columns.layer: counts}
    cells = AnnData(
        counts, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=list(model.genes)), layers=names
    )
    table = label_probabilities(model, cells, seed=seed)
    about = {"genes_found": found, "seed": seed, "warnings": notes}
    write_answer(adata, table, latent(model, cells), about=about)

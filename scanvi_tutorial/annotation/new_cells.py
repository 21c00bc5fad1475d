"""Name new cells by what `annotate` has learned; used in book/10_your_data.md.

Nothing is learned from them, so the answer for a cell does not depend on the cells beside it, and they are read a block
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.annotation.annotator import Annotator, Said
from scanvi_tutorial.annotation.answer import check_asked, write_answer
from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.inputs.cells import check_cells
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.genes import align_genes, gene_features
from scanvi_tutorial.inputs.session import usual_settings

_CELLS_AT_ONCE = 10_000


@usual_settings()
def predict(
    model: Annotator | str | Path,
    adata: AnnData,
    *,
    layer: str | None = None,
    coverage: float | None = None,
    reject: float | None = None,
) -> None:
    """Write what a saved annotation says of new cells into `adata`.

    Written are all columns of `obs` and `obsm` that `annotate` describes, and `uns["scanvi"]` with `genes_found`,
    `guarantee`, `label_names`, `versions` and `warnings`; nothing else changes. Genes may come in any order and with
    others among them; the model's genes that are missing count zero in every cell, and `genes_found` is the share that
    was there. Cells that it learned from and that had no label get the names of `annotate` but for a few of a thousand,
    since label spreading sees new cells through their nearest known ones. A label is not looked at: a cell that had one
    is named, and may be refused, like any other.

    Args:
        model: The file that `annotate(..., model=path)` wrote, or `Annotator.load` of it.
        adata: Raw counts of new cells, (cells, their own genes), in memory or backed.
        layer: Where the counts are, if not in `X`.
        coverage: How often a set of names is to hold the type of a cell, such as 0.9; None asks for no sets.
        reject: Which share of cells like the labeled ones may be called "none of these", such as 0.05; None calls none.

    Raises:
        InputError: Where the counts cannot be used, cell names repeat, fewer than half of the model's genes are there,
            or a cell has no count in any of them.
        PersistenceError: Where the file is no saved annotation, such as one fit.
    """
    annotator = model if isinstance(model, Annotator) else Annotator.load(model)
    check_asked(coverage, reject, annotator.label_names)
    check_cells(adata)
    cells, share, notes = cells_for(annotator, adata, layer)
    blocks = range(0, cells.n_obs, _CELLS_AT_ONCE)
    bar = progress_bar(blocks, "naming cells", unit="block") if len(blocks) > 1 else blocks
    parts = [annotator.say(cells[first : first + _CELLS_AT_ONCE].copy()) for first in bar]
    said = Said(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Said)))
    columns, refused, more, texts = annotator.promised(said, cells, coverage=coverage, reject=reject)
    table = pd.DataFrame(said.probabilities, cells.obs_names, list(annotator.label_names))
    about = more | {"genes_found": share, "warnings": [*texts, *notes]}
    write_answer(adata, table, said.states, about=about, columns=columns, refused=refused)


def cells_for(annotator: Annotator, adata: AnnData, layer: str | None) -> tuple[AnnData, float, list[str]]:
    """Return cells with the genes of the fits and no others, the share of them that was there, and what to say of it.

    Raises `InputError` where counts or genes cannot be used, or a cell has no count in these genes.
    """
    known = np.flatnonzero(gene_features(adata.var) | adata.var_names.isin(annotator.genes))
    parts, share, notes = [], 0.0, []
    for block in _blocks(adata, known, layer):
        counts, share, notes = align_genes(check_counts(block, layer), block.var, annotator.genes)
        silent = np.flatnonzero(np.diff(counts.indptr) == 0)
        if len(silent):
            raise InputError(
                f"{len(silent)} of {block.n_obs} cells have no count in any gene of the model, the first is "
                f"{block.obs_names[silent[0]]!r}: nothing can be said of them. Leave them out."
            )
        parts.append(counts)
    obs, var = pd.DataFrame(index=adata.obs_names), pd.DataFrame(index=list(annotator.genes))
    batch_key = annotator.fits[0].columns.batch_key
    if batch_key is not None and batch_key in adata.obs:  # which `evidence` reads
        obs[batch_key] = adata.obs[batch_key]
    return AnnData(sparse.vstack(parts, format="csr"), obs=obs, var=var), share, notes


def _blocks(adata: AnnData, known: np.ndarray, layer: str | None) -> Iterator[AnnData]:
    """Yield the cells a block at a time, if their counts are on disk, or all at once."""
    if not adata.isbacked:
        yield adata if len(known) == adata.n_vars else adata[:, known]
        return
    matrix = adata.X if layer is None else adata.layers.get(layer)
    for first in range(0, adata.n_obs, _CELLS_AT_ONCE):
        rows = slice(first, first + _CELLS_AT_ONCE)
        part = None if matrix is None else matrix[rows]
        block = AnnData(obs=adata.obs.iloc[rows, :0], var=adata.var)
        block.X = part if layer is None else None
        if layer is not None and part is not None:
            block.layers[layer] = part
        yield block[:, known]

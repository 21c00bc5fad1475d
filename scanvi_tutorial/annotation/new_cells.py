"""Annotate new cells with an annotator that `annotate` trained; used in book/10_your_data.md.

There is no further training, so the result for a cell does not depend on the other new cells, which are read in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, concat
from numpy.typing import NDArray

from scanvi_tutorial.annotation.annotator import Annotator, Said
from scanvi_tutorial.annotation.answer import check_asked, write_answer
from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.inputs.cells import check_cells
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.genes import align_genes, gene_features
from scanvi_tutorial.inputs.session import usual_settings

_CELLS_AT_ONCE = 10_000
_MOST_SHOWN = 20_000  # cells beside refused ones that tell what is high in these


@usual_settings()
def predict(
    model: Annotator | str | Path,
    adata: AnnData,
    *,
    layer: str | None = None,
    coverage: float | None = None,
    reject: float | None = None,
) -> None:
    """Annotate new cells with a saved annotator; write the results into `adata`.

    Written are all columns of `obs` and `obsm` that `annotate` describes, and `uns["scanvi"]` with `genes_found`,
    `guarantee`, `label_names`, `versions` and `warnings`; nothing else changes. Genes may be in any order, and
    further genes are ignored; missing genes of the model are set to zero, and `genes_found` is the share of its genes
    that is present. Unlabeled training cells get the labels that `annotate` gave, except for a few in a thousand,
    because label spreading is approximated by the nearest training cells. Labels are not read: a labeled cell is
    annotated, and may be rejected, like any other.

    Args:
        model: The file that `annotate(..., model=path)` wrote, or `Annotator.load` of it.
        adata: Raw counts of new cells, (cells, their own genes), in memory or backed.
        layer: Where the counts are, if not in `X`.
        coverage: Required coverage of the prediction sets, such as 0.9; None for no sets.
        reject: Share of known cells that may be rejected ("none of these"), such as 0.05; None rejects none.

    Raises:
        InputError: Where the counts cannot be used, cell names repeat, fewer than half of the model's genes are there,
            or a cell has no count in any of them.
        PersistenceError: Where the file is no saved annotation, such as one fit.
    """
    annotator = model if isinstance(model, Annotator) else Annotator.load(model)
    check_asked(coverage, reject, annotator.label_names)
    check_cells(adata)
    table, said, about, columns, refused = answer_for(annotator, adata, layer, coverage=coverage, reject=reject)
    write_answer(adata, table, said.states, about=about, columns=columns, refused=refused)


def answer_for(
    annotator: Annotator,
    adata: AnnData,
    layer: str | None = None,
    *,
    coverage: float | None,
    reject: float | None,
    kept: NDArray[np.integer] | None = None,
) -> tuple[pd.DataFrame, Said, dict[str, Any], pd.DataFrame, NDArray[np.bool_]]:
    """Return probabilities, all predictions, entries of `uns`, columns of `obs`, and which cells are rejected.

    Of the counts, a block is held at a time, and those of refused cells and of some others, to tell what is high in
    the former. `kept` are codes (cells,) of labels that stand, -1 where there is none. Raises as `predict`.
    """
    number, draw = adata.n_obs, np.random.default_rng(0)
    blocks = _aligned(annotator, adata, layer)
    bar = progress_bar(
        blocks, "naming cells", unit="block", total=-(-number // _CELLS_AT_ONCE), shown=number > _CELLS_AT_ONCE
    )
    parts, some, share, notes = [], [], 0.0, []
    for cells, of_genes, said_of_genes in bar:
        share, notes = of_genes, said_of_genes  # the same for all blocks
        parts.append(annotator.say(cells))
        if reject is not None:
            shown = draw.random(cells.n_obs) * number < _MOST_SHOWN
            shown |= annotator.calibration.p_known(parts[-1].strangeness) <= reject
            some.append(cells[shown].copy())
    said = Said(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Said)))
    names = adata.obs_names
    columns, refused, more, texts = annotator.promised(
        said, names, concat(some) if some else None, coverage=coverage, reject=reject, kept=kept
    )
    about = more | {"genes_found": share, "warnings": [*texts, *notes]}
    return pd.DataFrame(said.probabilities, names, list(annotator.label_names)), said, about, columns, refused


def cells_for(annotator: Annotator, adata: AnnData, layer: str | None) -> AnnData:
    """Return cells with the genes of the fits and no others, and their batches.

    Raises `InputError` where counts or genes cannot be used, or a cell has no count in these genes.
    """
    return concat([cells for cells, *_ in _aligned(annotator, adata, layer)])


def _aligned(annotator: Annotator, adata: AnnData, layer: str | None) -> Iterator[tuple[AnnData, float, list[str]]]:
    """Yield blocks of cells with the genes of the fits, the share of these that was there, and what to say of it."""
    known = np.flatnonzero(gene_features(adata.var) | adata.var_names.isin(annotator.genes))
    batch_key = annotator.fits[0].columns.batch_key
    for block in _blocks(adata, known, layer):
        checked = check_counts(block, layer)
        for first in range(0, block.n_obs, _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            counts, share, notes = align_genes(checked[rows], block.var, annotator.genes)
            names = block.obs_names[rows]
            silent = np.flatnonzero(np.diff(counts.indptr) == 0)
            if len(silent):
                raise InputError(
                    f"{len(silent)} of {len(names)} cells have no count in any gene of the model, the first is "
                    f"{names[silent[0]]!r}: nothing can be said of them. Leave them out."
                )
            obs = pd.DataFrame(index=names)
            if batch_key is not None and batch_key in block.obs:  # which `evidence` reads
                obs[batch_key] = block.obs[batch_key].iloc[rows]
            yield AnnData(counts, obs=obs, var=pd.DataFrame(index=list(annotator.genes))), share, notes


def _blocks(adata: AnnData, known: np.ndarray, layer: str | None) -> Iterator[AnnData]:
    """Yield the cells a block at a time, if their counts are on disk, or all at once."""
    if not adata.isbacked:
        yield adata if len(known) == adata.n_vars else adata[:, known]
        return
    matrix = adata.X if layer is None else adata.layers.get(layer)
    for first in range(0, adata.n_obs, _CELLS_AT_ONCE):
        rows = slice(first, first + _CELLS_AT_ONCE)
        part = None if matrix is None else matrix[rows]
        block = AnnData(obs=adata.obs.iloc[rows], var=adata.var)
        block.X = part if layer is None else None
        if layer is not None and part is not None:
            block.layers[layer] = part
        yield block[:, known]

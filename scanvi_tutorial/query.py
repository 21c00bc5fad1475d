"""New cells for a model that was fitted before: its genes found among theirs, its encoder left as it is.

Used in book/09_your_data.md. Nothing is learned from the new cells: each is mapped and named by itself, so an answer
does not depend on which other cells come with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.checks import InputError, align_genes, check_cells, check_counts, listed
from scanvi_tutorial.inference import label_probabilities, latent
from scanvi_tutorial.model import SCANVI
from scanvi_tutorial.persistence import versions

__all__ = ["predict", "storable", "write_answer"]


def predict(
    model: SCANVI | str | Path,
    adata: AnnData,
    *,
    layer: str | None = None,
    seed: int = 0,
) -> None:
    """Write the labels, probabilities and states that a fitted model gives to new cells into `adata`.

    Written are `obs["scanvi_label"]`, `obs["scanvi_probability"]`, `obsm["scanvi_probabilities"]`, `obsm["X_scanvi"]`
    as `annotate` describes them, and `uns["scanvi"]` with `genes_found`, `label_names`, `seed`, `versions` and
    `warnings`; nothing else changes. Genes may come in any order and with others among them; the model's genes that are
    missing count zero in every cell, and `genes_found` is the share that was there.

    Args:
        model: A model, or the folder where `annotate(..., model=folder)` or `model.save(folder)` left one.
        adata: Raw counts of new cells, (cells, their own genes).
        layer: Where the counts are, if not in `X`.
        seed: Draws the states that are averaged over.

    Raises:
        InputError: Where the counts cannot be used, cell names repeat, fewer than half of the model's genes are there,
            or a cell has no count in any of them.
        PersistenceError: Where the folder holds no model that can be read.
    """
    model = model if isinstance(model, SCANVI) else SCANVI.load(model)
    check_cells(adata)
    counts, found = align_genes(check_counts(adata, layer), adata.var_names, model.genes, var=adata.var)
    silent = np.flatnonzero(np.diff(counts.indptr) == 0)
    if len(silent):
        raise InputError(
            f"{len(silent)} of {adata.n_obs} cells have no count in any gene of the model, the first is "
            f"{adata.obs_names[silent[0]]!r}: nothing can be said of them. Leave them out."
        )
    names = {} if model.layer is None else {model.layer: counts}
    cells = AnnData(
        counts, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=list(model.genes)), layers=names
    )
    table = label_probabilities(model, cells, seed=seed)
    doubts = []
    if found < 1:
        missing = pd.Index(model.genes).difference(adata.var_names, sort=False)
        doubts.append(
            f"{1 - found:.1%} of the model's genes are missing here and were taken as zero: {listed(missing)}."
        )
    about = {"genes_found": found, "seed": seed, "warnings": doubts}
    write_answer(adata, table, latent(model, cells), about=about)


def write_answer(
    adata: AnnData,
    probabilities: pd.DataFrame,
    states: NDArray[np.floating],
    *,
    about: Mapping[str, Any],
    kept: NDArray[np.integer] | None = None,
) -> None:
    """Write an answer into `adata`: nothing is touched before all of it is there.

    Args:
        adata: The cells.
        probabilities: (cells, labels), in the order of the cells.
        states: (cells, latent).
        about: What `uns["scanvi"]` says beside versions and names: of types that an `.h5ad` file can hold.
        kept: Codes (cells,) of labels that stand whatever the probabilities say, -1 where there is none.
    """
    p = probabilities.to_numpy()
    if not (np.isfinite(p).all() and np.isfinite(states).all()):
        raise InputError("The model's answer is not a number in some cells. Look for counts far beyond the others.")
    codes = p.argmax(1) if kept is None else np.where(kept >= 0, kept, p.argmax(1))
    names = list(probabilities.columns)
    table = probabilities.set_axis(pd.Index(adata.obs_names, name=None), axis=0)
    adata.obsm["scanvi_probabilities"] = table  # first, since AnnData looks at it most closely
    adata.obsm["X_scanvi"] = states
    adata.obs["scanvi_label"] = pd.Categorical.from_codes(codes, names)
    adata.obs["scanvi_probability"] = p[np.arange(len(p)), codes]
    text = {"label_names": np.array(names, dtype=object), "versions": versions()}
    said = {"warnings": np.array(about["warnings"], dtype=object)}
    adata.uns["scanvi"] = {**about, **text, **said}


def storable(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings as an `.h5ad` file can hold them: no None, and lists for tuples."""
    kept = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kept[name] = storable(value)
        elif value is not None:
            kept[name] = list(value) if isinstance(value, tuple) else value
    return kept

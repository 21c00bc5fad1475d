"""The table of cells: which of its columns are read, whether it can take results, and a copy of what is read."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.batches import check_batches
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed, refuse_repeated
from scanvi_tutorial.inputs.labels import check_labels

_WRITTEN = ("scanvi_label", "scanvi_probability")  # columns that an answer is written to
_MANY = 50  # labels that are all different: names of cells, or measurements


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns and layer that a model or a method reads."""

    labels_key: str = "label"  # column of `obs` with the labels
    unlabeled_category: str | int = UNLABELED  # a further name for "without a label" in that column
    layer: str | None = None  # layer with the raw counts; None reads `X`
    batch_key: str | None = None  # column of `obs` with the batches, if they are to be told apart


def check_cells(adata: AnnData) -> None:
    """Raise `InputError` for what cannot take results: no AnnData, a part of a backed one, cells of one name."""
    if not isinstance(adata, AnnData):
        raise InputError(
            f"An AnnData is needed here, and this is a {type(adata).__name__}. Read a file with st.read_h5ad(path)."
        )
    if adata.isbacked and adata.is_view:
        raise InputError("A part of a backed AnnData takes no results. Call .to_memory() on it first.")
    if adata.obs_names.name in _WRITTEN:
        raise InputError(
            f"The names of the cells are called {adata.obs_names.name!r}. Set adata.obs_names.name = None."
        )
    refuse_repeated(adata, "obs")


def strip_to_inputs(adata: AnnData, columns: Columns) -> AnnData:
    """Return new cells with what a method reads and nothing else: counts in `X`, labels or none, batches.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    labels_key, batch_key = columns.labels_key, columns.batch_key
    for column in (labels_key, batch_key):
        if column in _WRITTEN:
            raise InputError(
                f"adata.obs[{column!r}] is where answers are written, so what is in it would be lost. Copy it first: "
                f"adata.obs['checked'] = adata.obs[{column!r}]."
            )
    if batch_key == labels_key:
        raise InputError(f"{batch_key!r} is named both as the column of labels and as that of batches. Name two.")
    names, codes = check_labels(adata, labels_key, unlabeled_category=columns.unlabeled_category)
    if len(names) > _MANY and len(names) == (codes >= 0).sum():
        raise InputError(
            f"adata.obs[{labels_key!r}] holds {len(names)} different values for as many cells ({listed(names, 3)}), "
            "and a type is a group of cells. Name the column with types."
        )
    obs = pd.DataFrame({labels_key: pd.Categorical.from_codes(codes, names)}, index=adata.obs_names)
    if batch_key is not None:
        obs[batch_key] = check_batches(adata, batch_key)
    return AnnData(check_counts(adata, columns.layer), obs=obs, var=pd.DataFrame(index=adata.var_names))

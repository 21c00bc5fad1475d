"""The table of cells: which of its columns are read, whether it can take results, and a copy of what is read."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.batches import batch_warnings, check_batches
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, refuse_repeated
from scanvi_tutorial.inputs.genes import only_genes
from scanvi_tutorial.inputs.labels import check_labels, label_name, label_warnings, means_no_label, refuse_no_types

_WRITTEN = ("scanvi_label", "scanvi_probability")  # columns that an answer is written to


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns and layer that a model or a method reads."""

    labels_key: str = "label"  # column of `obs` with the labels
    unlabeled_category: object = UNLABELED  # a further name for "without a label" in that column
    layer: str | None = None  # layer with the raw counts; None reads `X`
    batch_key: str | None = None  # column of `obs` with the batches, if they are to be told apart

    def __post_init__(self) -> None:
        none = self.unlabeled_category
        object.__setattr__(self, "unlabeled_category", UNLABELED if means_no_label(none) else label_name(none))


def check_cells(adata: AnnData) -> None:
    """Raise `InputError` for what cannot take results: no AnnData, a part of a backed one, cells of one name."""
    if not isinstance(adata, AnnData):
        raise InputError(
            f"An AnnData is needed here, and this is a {type(adata).__name__}. Read a file with st.read_h5ad(path)."
        )
    if not isinstance(adata.obs, pd.DataFrame):
        raise InputError(
            "This AnnData was read lazily, and its cells are still on disk. Call .to_memory() on it first."
        )
    if adata.isbacked and adata.is_view:
        raise InputError("A part of a backed AnnData takes no results. Call .to_memory() on it first.")
    if adata.obs_names.name in _WRITTEN:
        raise InputError(
            f"The names of the cells are called {adata.obs_names.name!r}. Set adata.obs_names.name = None."
        )
    refuse_repeated(adata, "obs")


def strip_to_inputs(adata: AnnData, columns: Columns) -> tuple[AnnData, list[str]]:
    """Return new cells with what a method reads and nothing else, and a sentence for each warning about it.

    The cells have counts of genes in `X`, labels or none, and batches. What is quick to look at is looked at first.

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
    refuse_no_types(adata, labels_key, names, codes)
    warned = label_warnings(adata, labels_key, unlabeled_category=columns.unlabeled_category)
    obs = pd.DataFrame({labels_key: pd.Categorical.from_codes(codes, names)}, index=adata.obs_names)
    if batch_key is not None:
        obs[batch_key] = check_batches(adata, batch_key)
        warned += batch_warnings(names, codes, obs[batch_key].array)
    genes, left_out = only_genes(adata)
    counts = check_counts(genes, columns.layer)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=genes.var_names)), [*left_out, *warned]

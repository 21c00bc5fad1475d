"""The table of cells: which of its columns are read, whether it can take results, and the results in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from pandas.api.types import is_hashable

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.batches import batch_warnings, check_batches, refuse_names_of_cells
from scanvi_tutorial.inputs.coarse import Coarse, allowed_types, check_coarse, coarse_warnings, parents_in
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, refuse_repeated
from scanvi_tutorial.inputs.genes import only_genes
from scanvi_tutorial.inputs.labels import check_labels, label_name, label_warnings, means_no_label, refuse_no_types
from scanvi_tutorial.inputs.writing import names_in_file

#: Columns of `obs` that an answer is written to.
WRITTEN = (
    *("scanvi_label", "scanvi_probability", "scanvi_p_known"),
    *("scanvi_set", "scanvi_set_size", "scanvi_coarse"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns and layer that a model or a method reads."""

    labels_key: str = "label"  # column of `obs` with the labels
    unlabeled_category: object = UNLABELED  # a further name for "without a label" in that column
    layer: str | None = None  # layer with the raw counts; None reads `X`
    batch_key: str | None = None  # column of `obs` with the batches, if they are to be told apart
    coarse: Coarse | str | None = None  # coarse names among the labels and what they stand for, or a column of parents

    def __post_init__(self) -> None:
        for name in ("labels_key", "layer", "batch_key"):
            if not is_hashable(value := getattr(self, name)):
                raise InputError(f"{name} must be one name, and it is of type {type(value).__name__}.")
        none = self.unlabeled_category
        object.__setattr__(self, "unlabeled_category", UNLABELED if means_no_label(none) else label_name(none))
        if not isinstance(self.coarse, str):
            object.__setattr__(self, "coarse", check_coarse(self.coarse))


def check_cells(adata: AnnData) -> None:
    """Raise `InputError` for what cannot take results: no AnnData, a part of a backed one, cells of one name."""
    refuse_other_types(adata)
    if not isinstance(adata.obs, pd.DataFrame):
        raise InputError(
            "This AnnData was read lazily, and its cells are still on disk. Call .to_memory() on it first."
        )
    if adata.isbacked and adata.is_view:
        raise InputError("A part of a backed AnnData takes no results. Call .to_memory() on it first.")
    if adata.obs_names.name in WRITTEN:
        raise InputError(
            f"The names of the cells are called {adata.obs_names.name!r}. Set adata.obs_names.name = None."
        )
    refuse_repeated(adata, "obs")


def refuse_other_types(adata: object) -> None:
    """Raise `InputError` for what is no AnnData."""
    if not isinstance(adata, AnnData):
        raise InputError(
            f"An AnnData is needed here, and this is a {type(adata).__name__}. Read a file with st.read_h5ad(path)."
        )


def strip_to_inputs(adata: AnnData, columns: Columns) -> tuple[AnnData, list[str]]:
    """Return new cells with what a method reads and nothing else, and a sentence for each warning about it.

    The cells have counts of genes in `X`, exact labels or none, and batches where there are several. What coarse labels
    allow is in `obsm["allowed"]`, see `allowed_of`, and what coarse names stand for in `uns["coarse"]`.
    What is quick to look at is looked at first.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    labels_key, batch_key = columns.labels_key, columns.batch_key
    parent = columns.coarse if isinstance(columns.coarse, str) else None
    for column in (labels_key, batch_key, parent):
        if column in WRITTEN:
            raise InputError(
                f"adata.obs[{column!r}] is where answers are written, so what is in it would be lost. Copy it first: "
                f"adata.obs['checked'] = adata.obs[{column!r}]."
            )
    used = [column for column in (labels_key, batch_key, parent) if column is not None]
    if twice := [column for column in used if used.count(column) > 1]:
        raise InputError(f"{twice[0]!r} is named for two of labels, batches and parents. Name a column for each.")
    names, codes = check_labels(adata, labels_key, unlabeled_category=columns.unlabeled_category)
    refuse_no_types(adata, labels_key, names, codes)
    warned = label_warnings(adata, labels_key, unlabeled_category=columns.unlabeled_category)
    table, labeled = columns.coarse, codes >= 0
    if parent is not None:
        table, names, codes, notes = parents_in(adata, parent, columns.unlabeled_category, names, codes)
        warned += notes
    warned += coarse_warnings(table, names)
    names, codes, allowed = allowed_types(names, codes, table)
    coarse = (codes >= len(names)) | ((codes >= 0) & ~labeled)  # what a parent tells is no label of one's own
    obsm = {} if not table else {"allowed": np.where(coarse[:, None], allowed[codes], True)}
    uns = {} if not table else {"coarse": dict(table)}
    codes = np.where(coarse, -1, codes)
    obs = pd.DataFrame({labels_key: pd.Categorical.from_codes(codes, names)}, index=adata.obs_names)
    if batch_key is not None:
        batches = check_batches(adata, batch_key)
        refuse_names_of_cells(batches, batch_key)
        if len(batches.categories) > 1:
            obs[batch_key] = batches
            warned += batch_warnings(names, codes, batches)
        else:
            warned.append(f"All cells are of one batch in obs[{batch_key!r}], so there is none to correct for.")
    genes, left_out = only_genes(adata)
    counts = check_counts(genes, columns.layer)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=genes.var_names), obsm=obsm, uns=uns), [*left_out, *warned]


def allowed_of(adata: AnnData, labels_key: str = "label") -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the types, exact labels (cells,), -1 for none, and what coarse ones allow, (cells, types).

    Exact labels are read off `obs[labels_key]`; what coarse labels allow is in `obsm["allowed"]`, if there are any.

    Raises:
        InputError: Where a type has no exact label.
    """
    names, codes = check_labels(adata, labels_key)
    allowed = np.array(adata.obsm.get("allowed", np.ones((adata.n_obs, len(names)), dtype=bool)))
    if allowed.shape[1] != len(names):
        raise InputError(
            f"adata.obs[{labels_key!r}] has labels of {len(names)} types, and coarse labels are of {allowed.shape[1]}. "
            "Keep a cell with an exact label of each type."
        )
    return names, codes, allowed


def probabilities_of(adata: AnnData) -> pd.DataFrame:
    """Return `obsm["scanvi_probabilities"]`, (cells, labels), under the names that the labels have.

    In the table, some names have another form, for files do not take them all: see `names_in_file`.

    Raises:
        InputError: Where it is no table, or one without cells.
    """
    refuse_other_types(adata)
    table = adata.obsm.get("scanvi_probabilities")
    if not isinstance(table, pd.DataFrame):
        found = "is missing" if table is None else f"is of type {type(table).__name__} and so does not name its labels"
        raise InputError(
            f'obsm["scanvi_probabilities"] {found}. Write the table of probabilities there first: '
            'adata.obsm["scanvi_probabilities"] = st.label_probabilities(model, adata).'
        )
    if table.empty:
        raise InputError('There are no cells in obsm["scanvi_probabilities"]. Pass some that have been annotated.')
    if table.isna().any(axis=None):
        raise InputError(
            'obsm["scanvi_probabilities"] says nothing of some cells: two annotations of other labels were joined, or '
            "cells were added. Call st.annotate on all cells, or take those that have been annotated."
        )
    about = adata.uns.get("scanvi")
    names = [str(name) for name in about.get("label_names", ())] if isinstance(about, Mapping) else []
    return table.set_axis(names, axis=1) if names_in_file(names) == list(table.columns) else table

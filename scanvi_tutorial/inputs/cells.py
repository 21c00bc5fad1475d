"""The cells: their names, and the columns of `obs`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.inputs.errors import InputError, did_you_mean, listed, refuse_repeated

__all__ = ["WRITTEN", "check_batches", "check_cells", "column_of"]

WRITTEN = ("scanvi_label", "scanvi_probability")  # columns that an answer is written to


def check_cells(adata: AnnData) -> None:
    """Refuse cells of which two bear one name: in a table of results nobody could tell them apart.

    Raises:
        InputError: Where a name occurs twice; some of them are listed.
    """
    if not isinstance(adata, AnnData):
        raise InputError(
            f"An AnnData is needed here, and this is a {type(adata).__name__}. Read a file with st.read_h5ad(path)."
        )
    if adata.isbacked and adata.is_view:
        raise InputError("A part of a backed AnnData takes no results. Call .to_memory() on it first.")
    if adata.obs_names.name in WRITTEN:
        raise InputError(
            f"The names of the cells are called {adata.obs_names.name!r}. Set adata.obs_names.name = None."
        )
    advice = (
        "Make them unique with adata.obs_names_make_unique(), or join samples with "
        "anndata.concat(..., index_unique='-')."
    )
    refuse_repeated(adata.obs_names, "cell", advice)


def check_batches(adata: AnnData, column: str) -> pd.Categorical:
    """Return the batch of every cell, (cells,), as text, without batches that no cell is of.

    Raises:
        InputError: Where there is no such column, or where a cell's batch is missing.
    """
    values = column_of(adata, column, "Name the one that says which run or donor a cell is from.")
    if missing := int(values.isna().sum()):
        raise InputError(
            f"{missing} of {len(values)} cells have no batch in adata.obs[{column!r}]. Say which run they are from, or "
            "leave them out."
        )
    return pd.Categorical(np.asarray(values.astype(str), dtype=object))


def column_of(adata: AnnData, column: str, advice: str) -> pd.Series:
    """Return one column of `adata.obs`, or say which there are."""
    if column not in adata.obs:
        raise InputError(
            f"There is no column {column!r} in adata.obs{did_you_mean(column, adata.obs.columns)} "
            f"The columns are {listed(adata.obs.columns)}. {advice}"
        )
    values = adata.obs[column]
    if isinstance(values, pd.DataFrame):
        times = Counter(adata.obs.columns)[column]
        raise InputError(
            f"adata.obs has {times} columns called {column!r}, so it is not known which is meant. Rename all but one."
        )
    return values

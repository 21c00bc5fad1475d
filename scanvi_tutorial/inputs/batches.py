"""The column of batches: its values, confounding with labels, and library sizes per batch.

Explained in book/10_your_data.md. A batch (a donor, a run, a protocol) shifts the counts of all its cells. As in Xu et
al. (2021, doi:10.15252/msb.20209620) it enters p(x | z2, l, b) and the prior of l, and not the state z2. The encoder
does not read it either: that mixed batches no better where it was tried, and cells of a new batch can be labeled.

    b   (cells batches)   one-hot batch, known for every cell
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor
from torch.nn.functional import one_hot

from scanvi_tutorial.inputs.errors import InputError, InputWarning, column_of, listed, refuse_unknown
from scanvi_tutorial.inputs.labels import label_name

_CONFOUNDED = 0.5  # adjusted mutual information: two types in two batches reach it when nine in ten keep to one
_NO_BATCH = ("", "nan", "None", "<NA>", "NaT")
_ENOUGH = 10  # labels of a type that would be spread over batches by chance
_LEAST_SCALE = 0.01  # a density needs some width, even if all totals agree


class ConfoundedBatchWarning(InputWarning):
    """Batches and labels are confounded, so that the model cannot separate their effects."""


def check_batches(adata: AnnData, column: str) -> pd.Categorical:
    """Return the batch of every cell, (cells,), as text, without batches that no cell is of.

    Raises:
        InputError: Where there is no such column, or where a cell's batch is missing.
    """
    values = column_of(adata, column, "Name the one that says which run or donor a cell is from.")
    values = values.map(label_name).astype(object)
    if missing := int((values.isna() | values.isin(_NO_BATCH)).sum()):
        raise InputError(
            f"{missing} of {len(values)} cells have no batch in adata.obs[{column!r}]. Say which run they are from, or "
            "leave them out."
        )
    return pd.Categorical(np.asarray(values, dtype=object))


def refuse_names_of_cells(batches: pd.Categorical, column: str) -> None:
    """Raise `InputError` where a column of batches holds nearly as many as there are cells."""
    names = batches.categories
    if 2 * len(names) > len(batches):
        raise InputError(
            f"adata.obs[{column!r}] holds {len(names)} different values for {len(batches)} cells ({listed(names, 3)}), "
            "and a batch is a group of cells. Name the column of donors, runs or protocols."
        )


def confounding(names: Sequence[str], codes: np.ndarray, batches: pd.Categorical) -> str | None:
    """Return a warning where batches and types of labeled cells are confounded, else None.

    Then nothing in the data tells an effect of the batch from one of the type, and to correct for the one is to erase
    the other. Measured by the mutual information of types and batches among labeled cells, adjusted for chance (many
    donors with few labels agree with types by accident), as a share of what there is to know; we warn from 0.5 on.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none.
        batches: Batch of every cell, (cells,).
    """
    known = codes >= 0
    table = pd.crosstab(np.asarray(batches)[known], codes[known]).to_numpy()
    if min(table.shape) < 2:
        return None
    with warnings.catch_warnings():  # many donors are no sign that somebody classifies by a measurement
        warnings.filterwarnings("ignore", "The number of unique classes")
        agreement = adjusted_mutual_info_score(np.asarray(batches)[known], codes[known], average_method="min")
    if agreement < _CONFOUNDED:
        return None
    only = [name for name, column in zip(names, table.T, strict=True) if (column > 0).sum() == 1]
    return (
        f"Type and batch can hardly be told apart (adjusted mutual information {agreement:.2f}; labeled in one batch "
        f"alone: {listed(only)}): what is corrected for as a batch may be the type. Label each type in more than one "
        "batch, or use no batch."
    )


def batch_warnings(names: Sequence[str], codes: np.ndarray, batches: pd.Categorical) -> list[str]:
    """Return a sentence for what hidden labels cannot test: batches without a label, types labeled in one of several.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none.
        batches: Batch of every cell, (cells,).
    """
    table = pd.crosstab(pd.Series(batches), codes)
    labeled = table.drop(columns=-1, errors="ignore")
    told = labeled.sum(axis=1) > 0
    notes = []
    if not told.all():
        cells = table[~told].to_numpy().sum()
        notes.append(
            f"No cell is labeled in {listed(table.index[~told])} ({cells:,} cells): hidden labels cannot tell whether "
            "names are right there. Label a few of its cells."
        )
    alone = ((labeled > 0).sum() == 1) & (labeled.sum() >= _ENOUGH)
    if told.sum() > 1 and alone.any() and confounding(names, codes, batches) is None:
        notes.append(
            f"Labeled in one batch alone: {listed(names[code] for code in labeled.columns[alone])}. Whether such cells "
            "are found in other batches could not be tested."
        )
    return notes


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of a model, in the order of the entries of b, and the prior of log l in each."""

    key: str  # column of `obs`
    names: tuple[str, ...]
    library_loc: tuple[float, ...]  # mean over the cells of a batch of the log total counts
    library_scale: tuple[float, ...]  # their standard deviation

    def __post_init__(self) -> None:
        for name in ("names", "library_loc", "library_scale"):  # JSON knows lists alone
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.names) < 2 or not len(self.names) == len(self.library_loc) == len(self.library_scale):
            raise ValueError(f"Batches need two names or more, and a location and a scale for each; got {self!r}.")

    @classmethod
    def from_anndata(cls, adata: AnnData, key: str, log_totals: np.ndarray) -> Batches:
        """Read the batches off `adata.obs[key]`; `log_totals` is (cells,).

        Raises:
            InputError: Where the column is missing or says nothing of some cells, where it holds one batch, or nearly
                as many as there are cells.
        """
        values = check_batches(adata, key)
        names = list(values.categories)
        if len(names) < 2:
            raise InputError(
                f"adata.obs[{key!r}] holds one batch ({listed(names)}), so there is nothing to correct for. "
                "Leave batch_key out, or name the column that tells the batches apart."
            )
        refuse_names_of_cells(values, key)
        moments = [log_total_moments(log_totals[values == name]) for name in names]
        return cls(key, tuple(names), *zip(*moments, strict=True))

    def codes(self, adata: AnnData) -> np.ndarray:
        """Return the batch of every cell as a number, (cells,).

        Raises `InputError` where the column is missing, says nothing of some cells, or names a batch of its own.
        """
        values = check_batches(adata, self.key)
        advice = (
            "Latent space and label probabilities need no batch; for anything else make a new model with "
            f"SCANVI.from_anndata(..., batch_key={self.key!r}) of all batches, or leave those cells out."
        )
        refuse_unknown(values.categories, self.names, self.key, advice)
        return pd.Categorical(values, categories=self.names).codes.astype(np.int64)

    def one_hot(self, codes: np.ndarray | Sequence[int]) -> Float[Tensor, "cells batches"]:
        """Return b of cells whose batches are `codes`."""
        return one_hot(torch.as_tensor(codes, dtype=torch.long), len(self.names)).float()

    def library_prior(self, b: Float[Tensor, "cells batches"]) -> tuple[Tensor, Tensor]:
        """Return location and scale, each (cells, 1), of log l of cells of these batches."""
        loc, scale = (b.new_tensor(values)[:, None] for values in (self.library_loc, self.library_scale))
        return b @ loc, b @ scale


def log_total_moments(log_totals: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the log totals of some cells, the latter above zero."""
    return float(log_totals.mean()), max(float(log_totals.std()), _LEAST_SCALE)


def check_given(batches: Batches | None, b: Tensor | None) -> None:
    """Raise `InputError` for a batch in a model without batches, and for none in a model with batches."""
    if batches is None and b is not None:
        raise InputError(
            "This model knows no batches. Make one that does with SCANVI.from_anndata(..., batch_key=column)."
        )
    if batches is not None and b is None:
        raise InputError(f"This model tells {listed(batches.names)} apart: give the batch of every cell, one-hot.")

"""Cells as methods read them, whatever the file looked like."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scanvi_tutorial.checks.cells import check_batches
from scanvi_tutorial.checks.counts import check_counts
from scanvi_tutorial.checks.errors import InputError
from scanvi_tutorial.checks.labels import check_labels
from scanvi_tutorial.config import UNLABELLED

__all__ = ["plain_cells"]


def plain_cells(
    adata: AnnData,
    labels: str,
    *,
    layer: str | None = None,
    unlabelled: str | int = UNLABELLED,
    batch: str | None = None,
) -> AnnData:
    """Return new cells with what a method reads and nothing else: counts in `X`, labels or none, batches.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    names, codes = check_labels(adata, labels, unlabelled=unlabelled)
    columns = {labels: pd.Categorical.from_codes(codes, names)}
    if batch is not None:
        if batch == labels:
            raise InputError(f"{batch!r} is named both as the column of labels and as that of batches. Name two.")
        columns[batch] = check_batches(adata, batch)
    obs = pd.DataFrame(columns, index=adata.obs_names)
    return AnnData(check_counts(adata, layer), obs=obs, var=pd.DataFrame(index=adata.var_names))

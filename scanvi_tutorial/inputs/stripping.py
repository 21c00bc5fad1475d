"""An AnnData without anything that methods do not read."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from scanvi_tutorial.inputs.cells import WRITTEN, check_batches
from scanvi_tutorial.inputs.columns import Columns
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import check_labels

__all__ = ["strip_to_inputs"]

_MANY = 50  # labels that are all different: names of cells, or measurements


def strip_to_inputs(adata: AnnData, columns: Columns) -> AnnData:
    """Return new cells with what a method reads and nothing else: counts in `X`, labels or none, batches.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    labels_key, batch_key = columns.labels_key, columns.batch_key
    for column in (labels_key, batch_key):
        if column in WRITTEN:
            raise InputError(
                f"adata.obs[{column!r}] is where answers are written, so what is in it would be lost. Copy it first: "
                f"adata.obs['checked'] = adata.obs[{column!r}]."
            )
    names, codes = check_labels(adata, labels_key, unlabeled_category=columns.unlabeled_category)
    if len(names) > _MANY and len(names) == (codes >= 0).sum():
        raise InputError(
            f"adata.obs[{labels_key!r}] holds {len(names)} different values for as many cells ({listed(names, 3)}), "
            "and a type is a group of cells. Name the column with types."
        )
    known = {labels_key: pd.Categorical.from_codes(codes, names)}
    if batch_key is not None:
        if batch_key == labels_key:
            raise InputError(f"{batch_key!r} is named both as the column of labels and as that of batches. Name two.")
        known[batch_key] = check_batches(adata, batch_key)
    obs = pd.DataFrame(known, index=adata.obs_names)
    return AnnData(check_counts(adata, columns.layer), obs=obs, var=pd.DataFrame(index=adata.var_names))

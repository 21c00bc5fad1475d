"""Write an answer into an AnnData: labels, probabilities, states and how they came about (book/10_your_data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.writing import names_in_file
from scanvi_tutorial.model.persistence import versions


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
        probabilities: (cells, labels), in the order of the cells. The table that is written has `names_in_file`,
            and `uns["scanvi"]["label_names"]` the names as they are.
        states: (cells, latent).
        about: What `uns["scanvi"]` says beside versions and names: of types that an `.h5ad` file can hold.
        kept: Codes (cells,) of labels that stand whatever the probabilities say, -1 where there is none.
    """
    p = probabilities.to_numpy()
    if not (np.isfinite(p).all() and np.isfinite(states).all()):
        raise InputError("The model's answer is not a number in some cells. Look for counts far beyond the others.")
    codes = p.argmax(1) if kept is None else np.where(kept >= 0, kept, p.argmax(1))
    names = list(probabilities.columns)
    labels = pd.Categorical.from_codes(codes, names).remove_unused_categories()  # scanpy cannot rank genes for no cell
    table = pd.DataFrame(p, index=pd.Index(adata.obs_names, name=None), columns=names_in_file(names))
    adata.obsm["scanvi_probabilities"] = table  # first, since AnnData looks at it most closely
    adata.obsm["X_scanvi"] = states
    if "scanvi_label" in adata.obs and list(adata.obs["scanvi_label"].astype("category").cat.categories) != list(
        labels.categories
    ):
        adata.uns.pop("scanvi_label_colors", None)  # scanpy's, of other labels
    adata.obs["scanvi_label"] = labels
    adata.obs["scanvi_probability"] = p[np.arange(len(p)), codes]
    texts = {"label_names": np.array(names, dtype=object), "warnings": np.array(about["warnings"], dtype=object)}
    adata.uns["scanvi"] = {**about, "versions": versions(), **texts}

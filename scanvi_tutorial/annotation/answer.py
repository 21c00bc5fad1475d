"""Write an answer into an AnnData: labels, probabilities, states and how they came about (book/10_your_data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.inputs.errors import InputError
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
        probabilities: (cells, labels), in the order of the cells. In the names of its columns "|" takes the place of
            "/", which is a folder in HDF5 and forbidden in zarr; `uns["scanvi"]["label_names"]` keeps the names.
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
    table = pd.DataFrame(p, index=pd.Index(adata.obs_names, name=None), columns=_names_in_file(names))
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


def _names_in_file(names: list[str]) -> list[str]:
    """Return names that HDF5 and zarr take as they are, each once."""
    names_in_file: list[str] = []
    for name in names:
        base = name.replace("/", "|").replace("\0", "|")
        base = f"label {base}" if base == "_index" or base.startswith("__") or not base.strip(".") else base
        while base in names_in_file:
            base += "'"
        names_in_file.append(base)
    return names_in_file

"""Choice of seed cells: those with the highest marker scores, or random cells of each type (book/01_data.md).

Marker seeds are the cells with the highest `marker_scores`, as in the seed-labeling tutorial of scvi-tools.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.errors import InputError, column_of, listed
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.markers import Markers, marker_genes, marker_scores, marker_table


def seed_labels(
    adata: AnnData,
    per_label: int = 10,
    how: Literal["markers", "random", "typical"] = "markers",
    seed: int = 0,
    *,
    markers: Markers | None = None,
    layer: str | None = None,
) -> AnnData:
    """Return a new AnnData, sharing the counts of `adata`, whose `obs["label"]` names the type of a few seed cells.

    All other cells are "Unknown", the last category; the categories before it are those of `obs["truth"]`, or the
    types of the marker table where there is no truth. `uns["seeds"]` keeps how the seeds were chosen.

    Args:
        adata: Raw counts, (cells, genes).
        per_label: Seed cells per type.
        how: "markers" takes the cells with the highest marker scores, needs no truth and may be wrong; if a cell
            is chosen for two types, the later type keeps it, so that the earlier has fewer. "random" draws from
            `obs["truth"]`; a type always keeps at least one cell for testing. "typical" takes the
            cells that "markers" takes and labels them by the truth, as the paper does.
        seed: Of the random draw; marker scores use no randomness.
        markers: A marker table in order of claim; None means `uns["markers"]`, with the types in the order of the
            truth's categories (an `.h5ad` file does not keep the order of a table).
        layer: Where the counts are, if not in `X`.

    Raises:
        InputError: Where truth or markers are missing or of no use, and where a type is left without a seed.
    """
    if per_label < 1:
        raise InputError(f"per_label must be at least 1, got {per_label}: without a seed a type cannot be learned.")
    missing: list[str] = []
    if how in ("markers", "typical"):
        table = marker_table(adata, markers)
        missing = sorted(set(marker_genes(table)) - set(adata.var_names))
        names, codes = _by_markers(marker_scores(adata, table, layer=layer), per_label)
        names, codes = _in_order_of_truth(adata, names, codes)
        if how == "typical":
            names, codes = _by_truth(adata, codes >= 0)
    elif how == "random":
        names, codes = _at_random(adata, per_label, np.random.default_rng(seed))
    else:
        raise InputError(f'how must be "markers", "random" or "typical", got {how!r}.')
    labeled = _sharing_counts(adata)
    labeled.obs["label"] = pd.Categorical.from_codes(np.where(codes < 0, len(names), codes), [*names, UNLABELED])
    labeled.uns["seeds"] = {"how": how, "per_label": per_label, "seed": seed, "missing_markers": missing}
    return labeled


def purity(adata: AnnData) -> pd.DataFrame:
    """Return, per type and for "all", how many seeds there are, how many the truth agrees with, and their share.

    Columns: `seeds`, `right`, `purity`; rows follow the categories of `obs["label"]`.
    """
    names, codes = check_labels(adata, "label")
    label = pd.Series(pd.Categorical.from_codes(codes, names), adata.obs_names)
    right = label.astype(object) == _truth(adata).astype(object)
    table = pd.DataFrame({"seeds": label.value_counts(sort=False), "right": label[right].value_counts(sort=False)})
    table.index = table.index.astype(object)
    table.loc["all"] = table.sum()
    return table.assign(purity=table["right"] / table["seeds"])


def _by_markers(scores: pd.DataFrame, per_label: int) -> tuple[list[str], np.ndarray]:
    if per_label > len(scores):
        raise InputError(f"There are {len(scores)} cells, fewer than the {per_label} seeds asked for per type.")
    codes = np.full(len(scores), -1)
    for code, name in enumerate(scores):
        codes[np.argsort(scores[name].to_numpy(), kind="stable")[-per_label:]] = code
    if unseeded := [name for code, name in enumerate(scores) if code not in codes]:
        raise InputError(
            f"{unseeded[0]!r} is a class with no seed: later types of the marker table claimed all of its {per_label} "
            "best cells. Give it markers of its own, put it later in the table, or ask for more seeds per type."
        )
    return list(scores), codes


def _at_random(adata: AnnData, per_label: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    truth = _truth(adata).cat
    if len(truth.categories) < 2:
        raise InputError(
            f"obs['truth'] holds {len(truth.categories)} different types ({listed(truth.categories)}), and at least 2 "
            "are needed to draw seeds. Put the known types there, or choose seeds with how='markers'."
        )
    codes = np.full(adata.n_obs, -1)
    for code, name in enumerate(truth.categories):
        cells = np.flatnonzero(truth.codes == code)
        if len(cells) < 2:
            raise InputError(
                f"{name!r} is a class with no seed: obs['truth'] has {len(cells)} such cell, and one has to be left "
                f"to test on. Merge it with another type or drop it: adata[adata.obs['truth'] != {name!r}]."
            )
        codes[rng.choice(cells, size=min(per_label, len(cells) - 1), replace=False)] = code
    return list(truth.categories), codes


def _by_truth(adata: AnnData, chosen: np.ndarray) -> tuple[list[str], np.ndarray]:
    truth = _truth(adata).cat
    codes = np.where(chosen, truth.codes, -1)
    if unseeded := [name for code, name in enumerate(truth.categories) if code not in codes]:
        raise InputError(
            f"{unseeded[0]!r} is a class with no seed: by the truth, none of the cells with the highest marker scores "
            "is of it. Ask for more seeds per type, or choose how='random'."
        )
    return list(truth.categories), codes


def _truth(adata: AnnData) -> pd.Series:
    """Return the true types as a categorical of text, missing where unknown, without types that no cell is of."""
    column_of(adata, "truth", "Put the known types there, or choose seeds with how='markers'.")
    names, codes = check_labels(adata, "truth", least=0)
    return pd.Series(pd.Categorical.from_codes(codes, names), adata.obs_names)


def _in_order_of_truth(adata: AnnData, names: list[str], codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Give the categories of the label the order of those of the truth, where there is one."""
    if "truth" not in adata.obs:
        return names, codes
    known = list(_truth(adata).cat.categories)
    if unmarked := [name for name in known if name not in names]:
        raise InputError(
            f"{listed(unmarked)}: a class with no seed, for obs['truth'] has it but the marker table does not "
            f"({listed(names)}). Add its markers, or choose how='random'."
        )
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"{listed(unknown)}: in the marker table, but no cell of obs['truth'] ({listed(known)}) is of that type. "
            "Take it out of the table or correct its name."
        )
    return known, np.where(codes < 0, -1, np.array([known.index(name) for name in names])[codes])


def _sharing_counts(adata: AnnData) -> AnnData:
    """Return a new AnnData with tables of its own and the very matrices of `adata`, which may be large."""
    parts = {part: dict(getattr(adata, part)) for part in ("layers", "obsm", "varm", "obsp", "varp")}
    shared = AnnData(X=adata.X, obs=adata.obs.copy(), var=adata.var.copy(), uns=deepcopy(dict(adata.uns)), **parts)
    if adata.raw is not None:
        shared.raw = adata.raw.to_adata()
    return shared

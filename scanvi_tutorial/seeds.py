"""Which few cells get a label: the best by marker genes, or some drawn from the truth.

Told in book/01_data.md. The score of cell c for type t is a sum over marker genes g (`adata.uns["markers"]`),

    score_ct = Σ_positive s_cg − Σ_negative s_cg,     s_cg = log(1 + 10⁴ x_cg / Σ_g x_cg), standardized over cells,

as in the seed-labeling tutorial of scvi-tools, which Pyro's scANVI tutorial follows.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.checks import InputError, check_counts, check_labels, listed
from scanvi_tutorial.config import UNLABELLED
from scanvi_tutorial.markers import Markers, check_markers, log_cp10k, marker_genes

__all__ = ["marker_scores", "purity", "seed_labels"]


def seed_labels(
    adata: AnnData,
    per_label: int = 10,
    how: Literal["markers", "random"] = "markers",
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
        how: "markers" takes the cells with the highest marker scores, needs no truth and may be wrong; where two types
            claim a cell the later one keeps it, so that the earlier gets fewer. "random" draws from `obs["truth"]`;
            a type always keeps at least one cell to be tested on.
        seed: Of the random draw; marker scores use no randomness.
        markers: A marker table in order of claim; None means `uns["markers"]`, whose types claim in the order of the
            truth's categories (an `.h5ad` file does not keep the order of a table).
        layer: Where the counts are, if not in `X`.

    Raises:
        InputError: Where truth or markers are missing or of no use, and where a type is left without a seed.
    """
    if per_label < 1:
        raise InputError(f"per_label must be at least 1, got {per_label}: without a seed a type cannot be learned.")
    missing: list[str] = []
    if how == "markers":
        table = _marker_table(adata, markers)
        missing = sorted(set(marker_genes(table)) - set(adata.var_names))
        names, codes = _by_markers(marker_scores(adata, table, layer=layer), per_label)
        names, codes = _in_order_of_truth(adata, names, codes)
    elif how == "random":
        names, codes = _at_random(adata, per_label, np.random.default_rng(seed))
    else:
        raise InputError(f'how must be "markers" or "random", got {how!r}.')
    labelled = _sharing_counts(adata)
    categories = [*names, UNLABELLED]
    codes = np.where(codes < 0, len(names), codes)
    labelled.obs["label"] = pd.Categorical.from_codes(codes, categories=categories)
    labelled.uns["seeds"] = {"how": how, "per_label": per_label, "seed": seed, "missing_markers": missing}
    return labelled


def marker_scores(
    adata: AnnData,
    markers: Markers | None = None,
    *,
    layer: str | None = None,
) -> pd.DataFrame:
    """Return how much every cell looks like every type, (cells, types).

    The unit is the standard deviation of a marker gene over cells. Genes of the table
    that `adata` lacks are left out; a gene with one value in all cells adds nothing.

    Raises:
        InputError: Where there is no marker table, and where no positive marker of some
            type is among the genes.
    """
    table = _marker_table(adata, markers)
    counts = check_counts(adata, layer)
    known = adata.var_names.isin(marker_genes(table))
    values = log_cp10k(counts, known).toarray()
    spread = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), np.inf)
    values = (values - values.mean(axis=0)) / spread
    standard = pd.DataFrame(values, adata.obs_names, adata.var_names[known])
    scores = {}
    for name, sides in table.items():
        positive = [gene for gene in sides["positive"] if gene in standard]
        negative = [gene for gene in sides["negative"] if gene in standard]
        if not positive:
            raise InputError(
                f"None of the positive markers of {name!r} "
                f"({listed(sides['positive'])}) is among the {adata.n_vars} genes "
                f"({listed(adata.var_names, 3)}). "
                "Give markers that are, named as adata.var_names names genes."
            )
        scores[name] = standard[positive].sum(axis=1) - standard[negative].sum(axis=1)
    return pd.DataFrame(scores)


def purity(adata: AnnData) -> pd.DataFrame:
    """Return, per type and for "all", how many seeds there are, how many the truth agrees with, and their share.

    Columns: `seeds`, `right`, `purity`; rows follow the categories of `obs["label"]`.
    """
    names, codes = check_labels(adata, "label")
    label = pd.Series([None if code < 0 else names[code] for code in codes], adata.obs_names, dtype=object)
    right = label == _truth(adata).astype(object)
    rows = {name: (label == name) for name in names} | {"all": label.notna()}
    table = pd.DataFrame({name: (of.sum(), (right & of).sum()) for name, of in rows.items()}, ["seeds", "right"]).T
    return table.assign(purity=table["right"] / table["seeds"])


def _by_markers(scores: pd.DataFrame, per_label: int) -> tuple[list[str], np.ndarray]:
    if per_label > len(scores):
        raise InputError(f"There are {len(scores)} cells, fewer than the {per_label} seeds asked for per type.")
    codes = np.full(len(scores), -1)
    for code, name in enumerate(scores):
        codes[np.argsort(scores[name].to_numpy(), kind="stable")[-per_label:]] = code
    for code, name in enumerate(scores):
        if not (codes == code).any():
            raise InputError(
                f"{name!r} is a class with no seed: later types of the marker table claimed all of its {per_label} "
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


def _truth(adata: AnnData) -> pd.Series:
    """Return the true types as a categorical of text, missing where unknown, without types that no cell is of."""
    if "truth" not in adata.obs:
        raise InputError(
            f"There is no column 'truth' in adata.obs (columns: {listed(adata.obs.columns)}), so it is not known which "
            "cells are of which type. Put the known types there, or choose seeds with how='markers'."
        )
    names, codes = check_labels(adata, "truth", least=0)
    return pd.Series(pd.Categorical.from_codes(codes, names), adata.obs_names)


def _marker_table(adata: AnnData, markers: Markers | None) -> Markers:
    """Return the table to use, its types in order of claim."""
    table = check_markers(adata.uns.get("markers") if markers is None else markers)
    if not table:
        raise InputError(
            "There is no marker table. Put one into adata.uns['markers'], as "
            "{'type': {'positive': ['GENE'], 'negative': []}}, or pass markers=..., or choose how='random'."
        )
    if markers is None and "truth" in adata.obs:
        known = list(_truth(adata).cat.categories)
        return {name: table[name] for name in known} if set(known) == set(table) else table
    return table


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

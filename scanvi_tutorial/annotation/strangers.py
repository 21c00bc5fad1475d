"""A strangeness score for cells of unlabeled types, from three signs and their ranks (book/13_guarantee.md).

A cell of an unlabeled type may lie far from all types, between two types, or in a region without labels. So there is a
sign for each case:

- how improbable its most probable type is, beside components that no label names (`LabelModel(unnamed=...)`) and a
  background as improbable as the strangest hundredth of the cells;
- one minus the highest probability of the answer;
- how many cells are closer to it than the second label.

The score is the mean of the squared ranks, so that high ranks dominate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

from scanvi_tutorial.annotation.label_model import LabelModel, Parameters
from scanvi_tutorial.inputs.markers import log_cp10k
from scanvi_tutorial.inputs.session import scanpy_module

_SETTINGS = {"unlabeled_weight": 0.3, "label_noise": 0.05}
_MOST_LABELS, _MOST_OTHERS, _POINTS = 2_000, 2_000, 1_001  # labeled cells; cells that are counted; quantiles
_CELLS_AT_ONCE = 2_000
_LEAST_REACH = 1e-6  # of a sign that hardly differs between cells
_BACKGROUND = 0.01  # share of the cells that are less probable than the background
_LEAST_OF_A_GROUP, _GENES = 5, 5  # cells of a group; genes that are named


@dataclass(frozen=True, slots=True, eq=False)
class Strangeness:
    """The fitted strangeness score."""

    parameters: Parameters  # of types, and of as many components that no label names
    labeled: NDArray[np.float64]  # (labels, dimensions), scaled states of (some) labeled cells, views side by side
    others: NDArray[np.float64]  # (cells, dimensions), likewise of some of the cells
    cells: int  # of how many these are some
    background: float  # log-density
    ranks: NDArray[np.float64]  # (quantiles, signs) among the cells without an exact label

    @classmethod
    def fit(
        cls,
        views: Sequence[ArrayLike],
        weights: ArrayLike,
        codes: NDArray[np.integer],
        allowed: NDArray[np.bool_],
        probabilities: NDArray[np.float64],
        *,
        seed: int = 0,
    ) -> Strangeness:
        """Learn from all cells.

        Args:
            views: States of all cells, each (cells, dimensions).
            weights: How much each view counts, (views,).
            codes: Exact labels, (cells,), -1 for none.
            allowed: Which types each cell may be of, (cells, types).
            probabilities: What is answered, (cells, types).
            seed: Draws where unnamed components begin, and the cells that are counted.
        """
        unnamed = allowed.shape[1] if (codes < 0).any() else 0
        found = LabelModel(views, weights, unnamed=unnamed, **_SETTINGS).fit(codes, allowed, seed=seed).parameters
        joint = _joint(found, views)
        some = np.random.default_rng(seed).permutation(len(joint))[:_MOST_OTHERS]
        # labeled cells are closer to labels than other cells, so they are no reference for these
        free = codes < 0 if (codes < 0).any() else codes >= 0
        rest = [np.asarray(view)[free] for view in views]
        background = float(np.quantile(logsumexp(found.log_joint(rest), 1), _BACKGROUND))
        labeled = joint[np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:_MOST_LABELS]]
        new = cls(found, labeled, joint[some], len(joint), background, np.empty((0, 3)))
        signs = new.signs(rest, probabilities[free])
        return replace(new, ranks=np.quantile(signs, np.linspace(0, 1, _POINTS), axis=0))

    def __call__(self, views: Sequence[ArrayLike], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of the squared ranks of the signs of each cell, (cells,), the larger the stranger.

        A rank lies between 0 and 1, and above where a cell is beyond all cells that were learned from: by how far, in
        units of the distance from the median of these to the last.
        """
        ranks = []
        for sign, known in zip(self.signs(views, probabilities).T, self.ranks.T, strict=True):
            sides = [np.searchsorted(known, sign, side) for side in ("left", "right")]
            reach = max(known[-1] - np.median(known), _LEAST_REACH)
            ranks.append(np.mean(sides, axis=0) / len(known) + np.maximum(sign - known[-1], 0) / reach)
        return np.square(ranks).mean(0)

    def signs(self, views: Sequence[ArrayLike], p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the three signs, (cells, 3); larger values mean less similar to the types.

        `p` are the probabilities of the answer, (cells, types).
        """
        joint = self.parameters.log_joint(views)
        others = np.logaddexp(logsumexp(joint, 1), self.background)
        improbable, unsure = others - joint[:, : p.shape[1]].max(1), 1 - p.max(1)
        pieces = _pieces(_joint(self.parameters, views))
        closer = np.concatenate([self._closer(piece) for piece in pieces])
        closer *= self.cells / len(self.others)
        return np.column_stack([improbable, unsure, closer])

    def component_of(self, views: Sequence[ArrayLike], types: int) -> NDArray[np.int64]:
        """Return the most probable component without a name of each cell, (cells,), counted from zero."""
        joint = self.parameters.log_joint(views)[:, types:]
        return joint.argmax(1) if joint.shape[1] else np.zeros(len(joint), dtype=np.int64)

    def _closer(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many of `others` are closer to each cell than the second label is, (cells,)."""
        if len(self.labeled) < 2:
            return np.zeros(len(states))
        second = np.partition(euclidean_distances(states, self.labeled), 1, axis=1)[:, [1]]
        return (euclidean_distances(states, self.others) < second).sum(1).astype(float)


def groups_of_refused(
    cells: AnnData, refused: NDArray[np.bool_], component: NDArray[np.integer]
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the group of each refused cell, -1 for no group, and a table of groups: cells, and genes that are high.

    Cells of one component without a name are a group, if they are five at the least; the largest comes first. Genes
    are ranked by scanpy's t-test against all cells that are not refused.

    Args:
        cells: Raw counts in `X`.
        refused: (cells,).
        component: The most probable component without a name of each cell, (cells,).
    """
    sizes = pd.Series(component[refused]).value_counts()
    kept = list(sizes.index[sizes >= _LEAST_OF_A_GROUP])
    group = np.full(cells.n_obs, -1)
    for number, own in enumerate(kept):
        group[refused & (component == own)] = number
    rows = []
    if kept:
        named = pd.Categorical(np.where(refused, group.astype(str), "named"))
        obs, var = pd.DataFrame({"group": named}, index=cells.obs_names), pd.DataFrame(index=cells.var_names)
        logs = AnnData(log_cp10k(cells.X), obs=obs, var=var)
        if (~refused).sum() > 1:
            own = {"groups": [*map(str, range(len(kept)))], "reference": "named", "n_genes": _GENES}
            with threadpool_limits():  # numba sets the threads of PyTorch too; this puts them back
                scanpy_module().tl.rank_genes_groups(logs, "group", **own)
    for number in range(len(kept)):
        found = logs.uns.get("rank_genes_groups")
        high = [] if found is None else found["names"][str(number)][found["scores"][str(number)] > 0]
        rows.append({"cells": int((group == number).sum()), "high": ", ".join(high)})
    return group, pd.DataFrame(
        rows, columns=["cells", "high"], index=[f"group {number + 1}" for number in range(len(kept))]
    )


def _joint(parameters: Parameters, views: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return states of all views side by side, (cells, dimensions), so scaled that each view counts by its weight."""
    parts = zip(views, parameters.origins, parameters.units, parameters.weights, strict=True)
    return np.hstack(
        [(np.asarray(z) - origin) / unit * np.sqrt(weight / len(origin)) for z, origin, unit, weight in parts]
    )


def _pieces(states: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return np.array_split(states, max(1, -(-len(states) // _CELLS_AT_ONCE)))

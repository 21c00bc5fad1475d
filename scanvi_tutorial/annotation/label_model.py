"""A generative model of states and labels, fitted to all cells, with wrong and coarse labels (book/12_labels.md).

    π ~ Dirichlet              shares of the types among cells without an exact label
    y ~ Categorical(π)         the type; for cells with an exact label Categorical(ρ), the shares among labels
    Σ_y ~ inverse Wishart      the covariance of a type, centered on a common covariance of all types
    z_v | y ~ Student's t      the state of the cell in view v: one fit, or principal components
    r | y ~ C_y                the label: y itself with high probability, else another type

All views describe the same cell, so log p(z | y) is a weighted mean over views. A label r allows the types S_r, one if
it is exact: p(r | y) = Σ_{s ∈ S_r} C[y, s]. Expectation maximization gives the maximum a posteriori parameters.
A cell without an exact label has the weight `unlabeled_weight`, so that the many unlabeled cells do not dominate. This
weight rises from zero, so that each component stays near the labeled cells of its type.

The model can have further components, `unnamed`, for cells that resemble none of the types (book/13_guarantee.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, logsumexp, softmax

from scanvi_tutorial.inputs.cells import allowed_of
from scanvi_tutorial.inputs.errors import InputError

_TAILS = 5.0  # ν, degrees of freedom of Student's t: fewer have heavier tails
_CELLS_IN_PRIOR = 10.0  # unlabeled cells of each type, in the prior of the shares
_WEIGHT_OF_COMMON = 200.0  # cells, in the prior of a type's own covariance
_SPREAD_WITHIN = 0.3  # of all variance, expected within types, with the weight of twice as many cells as dimensions
_LEAST_VARIANCE = 1e-4  # expected within types, where all is one in the mean over dimensions
_RAMP, _MOST_ROUNDS, _TOLERANCE = 30, 100, 1e-6  # rounds of expectation maximization; nats per cell
_MOST_CELLS = 5_000  # with, and without an exact label, that parameters are fitted to
_IMPOSSIBLE = 1e-30
_CELLS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """The fitted parameters; unnamed components, if there are any, come after the types."""

    shares: NDArray[np.float64]  # (types,), π, among unlabeled cells
    means: Sequence[NDArray[np.float64]]  # of each view, (types, dimensions)
    covariances: Sequence[NDArray[np.float64]]  # of each view, (types, dimensions, dimensions)
    common: Sequence[NDArray[np.float64]]  # of each view, (dimensions, dimensions): the prior center of covariances
    weights: NDArray[np.float64]  # (views,)
    origins: Sequence[NDArray[np.float64]]  # of each view, (dimensions,): its mean
    units: Sequence[float]  # of each view: its mean standard deviation

    def log_joint(self, views: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Return log p(z, y), (cells, types), of any cells from their states, each view (cells, dimensions)."""
        scaled = [
            (np.asarray(view, dtype=np.float64) - origin) / unit
            for view, origin, unit in zip(views, self.origins, self.units, strict=True)
        ]
        return self.log_densities(scaled) + np.log(self.shares)

    def log_densities(self, views: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return log p(z | y), (cells, types), the weighted mean over views about zero in their units."""
        found = np.zeros((len(views[0]), len(self.shares)))
        for first in range(0, len(found), _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            for weight, z, means, covariances in zip(self.weights, views, self.means, self.covariances, strict=True):
                found[rows] += weight * _student(_products(z[rows]), means, covariances)[0]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """The posterior of the types of the cells under the model."""

    probabilities: NDArray[np.float64]  # (cells, types), p(y | z), whatever the label of a cell
    of_labels: NDArray[np.float64]  # (cells, types), p(y | z, r); as the former where there is no label
    log_density: NDArray[np.float64]  # (cells,), log p(z), the weighted mean over views
    parameters: Parameters


class LabelModel:
    """The label model over some views of the cells: a `Baseline` with fixed states.

    Args:
        views: States of all cells, each (cells, dimensions): those of fits, and principal components.
        weights: How much each view counts, (views,); they are scaled to sum to one. None: all alike.
        unlabeled_weight: Weight of an unlabeled cell, relative to a labeled one.
        label_noise: Share of labels that are expected to be wrong.
        unnamed: Number of components without a label; they are learned from unlabeled cells.
    """

    def __init__(
        self,
        views: Sequence[ArrayLike],
        weights: ArrayLike | None = None,
        *,
        unlabeled_weight: float = 0.1,
        label_noise: float = 0.1,
        unnamed: int = 0,
    ) -> None:
        views = [np.asarray(view, dtype=np.float64) for view in views]
        self.origins = [view.mean(0) for view in views]
        about = [view - origin for view, origin in zip(views, self.origins, strict=True)]
        self.units = [max(view.std(0).mean(), np.finfo(float).tiny) for view in about]
        self.views = [view / unit for view, unit in zip(about, self.units, strict=True)]
        weights = np.ones(len(self.views)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.weights = weights / weights.sum()
        self.unlabeled_weight, self.label_noise, self.unnamed = unlabeled_weight, label_noise, unnamed

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, types); `seed` is that of `fit`."""
        types, codes, allowed = allowed_of(adata, labels_key)
        return pd.DataFrame(self.fit(codes, allowed, seed=seed).probabilities, adata.obs_names, types)

    def fit(self, codes: NDArray[np.integer], allowed: NDArray[np.bool_], *, seed: int = 0) -> Named:
        """Fit the model and return the posterior of the types.

        Args:
            codes: The type that the exact label of each cell names, (cells,), -1 for none.
            allowed: Which types each cell may be of, (cells, types): all, unless a label says more.
            seed: Draws the cells that parameters are fitted to: 5,000 with and 5,000 without an exact label at most.

        Raises:
            InputError: Where a label allows no type, or a type has no cell with an exact label.
        """
        rng, types = np.random.default_rng(seed), allowed.shape[1]
        if not (some := allowed.any(1)).all():
            raise InputError(f"The label of cell {np.flatnonzero(~some)[0]} allows no type. Name the types it may be.")
        exact = codes >= 0
        seeds = np.bincount(codes[exact], minlength=types)
        if not seeds.all():
            raise InputError(f"No cell has an exact label of type {np.flatnonzero(seeds == 0)[0]}. Label one.")
        evidence = self.log_labels(np.where(exact[:, None], np.eye(types, dtype=bool)[codes], allowed))
        evidence[exact] += np.log(seeds / seeds.sum())
        others = np.where(exact[:, None], np.log(_IMPOSSIBLE), np.zeros(self.unnamed))
        evidence = np.column_stack([evidence, others])
        rows = [np.flatnonzero(exact), np.flatnonzero(~exact)]
        rows = [np.sort(rng.permutation(part)[:_MOST_CELLS]) if len(part) > _MOST_CELLS else part for part in rows]
        fitted = np.concatenate(rows)
        within = softmax(evidence[fitted], 1)
        if self.unnamed and len(rows[1]):
            within = self._apart([view[fitted] for view in self.views], within, len(rows[0]), rng)
        found = self._maximize([view[fitted] for view in self.views], evidence[fitted], within, len(rows[0]))
        densities = found.log_densities(self.views)
        joint = densities + np.log(found.shares)
        of_labels = evidence + np.where(exact[:, None], densities, joint)
        return Named(softmax(joint, 1), softmax(of_labels, 1), logsumexp(joint, 1), found)

    def log_labels(self, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return log p(r | y), (cells, types), of labels that allow some types."""
        types = allowed.shape[1]
        confusion = np.full((types, types), self.label_noise / max(types - 1, 1))
        np.fill_diagonal(confusion, 1 - self.label_noise)
        return np.log(np.maximum(allowed @ confusion.T, _IMPOSSIBLE))

    def _apart(
        self, views: Sequence[NDArray[np.float64]], within: NDArray[np.float64], exact: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return responsibilities with each unlabeled cell in the closest of types and cells that lie apart from them.

        The latter, where unnamed components begin, are drawn in proportion to squared distance, as in k-means++
        (Arthur and Vassilvitskii 2007), of the best of eight a time.
        """
        z = np.hstack([view * np.sqrt(weight) for view, weight in zip(views, self.weights, strict=True)])
        known = within[:exact, : within.shape[1] - self.unnamed]
        centers = [*(known.T @ z[:exact] / known.sum(0)[:, None])]
        gaps = np.stack([np.square(z - center).sum(1) for center in centers], 1)
        for _ in range(self.unnamed):
            nearest = gaps.min(1)
            chance = nearest[exact:] / nearest[exact:].sum() if nearest[exact:].sum() > 0 else None
            tried = exact + rng.choice(len(z) - exact, size=8, p=chance)
            found = np.stack([np.square(z - z[row]).sum(1) for row in tried], 1)
            best = np.minimum(nearest[exact:, None], found[exact:]).sum(0).argmin()
            gaps = np.column_stack([gaps, found[:, best]])
        within = within.copy()
        within[exact:] = np.eye(gaps.shape[1])[gaps[exact:].argmin(1)]
        return within

    def _maximize(
        self,
        views: Sequence[NDArray[np.float64]],
        evidence: NDArray[np.float64],
        within: NDArray[np.float64],
        exact: int,
    ) -> Parameters:
        """Return the most probable parameters; the first cells have an exact label, and log ρ is in their evidence."""
        cells, types = evidence.shape
        views = [_products(view) for view in views]
        free, log_shares = slice(exact, cells), np.zeros(types)
        tails = [np.ones((cells, types)) for _ in views]
        common: Sequence[NDArray[np.float64]] | None = None  # fixed once the weight has risen
        before = -np.inf
        for number in range(_MOST_ROUNDS):
            weight = self.unlabeled_weight * (1.0 if self.unnamed else min(1.0, number / _RAMP))
            counted = within * np.where(np.arange(cells) < exact, 1.0, weight)[:, None]
            centers = common or [None] * len(views)
            moments = [
                _moments(products, counted, counted * tail, center)
                for products, tail, center in zip(views, tails, centers, strict=True)
            ]
            means, spread = zip(*moments, strict=True)
            shares = within[free].sum(0) + _CELLS_IN_PRIOR
            log_shares = np.log(shares / shares.sum())
            common_now = common or [own[0] for own in spread]
            origin = self.weights, self.origins, self.units
            found = Parameters(np.exp(log_shares), means, spread, common_now, *origin)
            joint = evidence.copy()
            joint[free] += log_shares
            laws = [_student(products, center, own) for products, center, own in zip(views, means, spread, strict=True)]
            tails = [tail for _, tail in laws]
            for of_view, (log, _) in zip(self.weights, laws, strict=True):
                joint += of_view * log
            total = logsumexp(joint, 1)
            within = np.exp(joint - total[:, None])
            score = (total[:exact].sum() + self.unlabeled_weight * total[free].sum()) / cells
            if number == _RAMP - 1:
                common = found.common
            if number > _RAMP and abs(score - before) < _TOLERANCE:
                break
            before = score
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Products:
    """All products z_i z_j of two coordinates, the coordinates and a one: a quadratic form is a sum of these."""

    table: NDArray[np.float64]  # (cells, pairs + dimensions + 1)
    pairs: tuple[NDArray[np.integer], NDArray[np.integer]]  # i and j of each product, i no larger than j
    dimensions: int


def _products(z: NDArray[np.float64]) -> _Products:
    """Return the products of the coordinates of cells, (cells, dimensions), worked out once for all rounds."""
    i, j = np.triu_indices(z.shape[1])
    return _Products(np.hstack([z[:, i] * z[:, j], z, np.ones((len(z), 1))]), (i, j), z.shape[1])


def _moments(
    products: _Products,
    counted: NDArray[np.float64],
    weighed: NDArray[np.float64],
    common: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and covariance of every type in one view; without `common` all types share theirs."""
    dimensions, (i, j), cells = products.dimensions, products.pairs, len(products.table)
    found = weighed.T @ products.table
    sums, sizes = found[:, -dimensions - 1 : -1], np.maximum(found[:, -1:], np.finfo(float).tiny)  # one may be empty
    means = sums / sizes
    squares = np.empty((len(found), dimensions, dimensions))
    squares[:, i, j] = squares[:, j, i] = found[:, : len(i)]
    scatter = squares - means[:, :, None] * sums[:, None, :]  # views are about zero, so that little cancels
    if common is None:
        prior, spread = 2 * dimensions, np.empty((dimensions, dimensions))
        spread[i, j] = spread[j, i] = products.table[:, : len(i)].sum(0) / cells
        expected = _SPREAD_WITHIN * spread + _LEAST_VARIANCE * np.eye(dimensions)
        all_of = (scatter.sum(0) + prior * expected) / (counted.sum() + prior)
        return means, np.repeat(all_of[None], len(means), 0)
    size = counted.sum(0)[:, None, None] + _WEIGHT_OF_COMMON
    return means, (scatter + _WEIGHT_OF_COMMON * common) / size


def _student(
    products: _Products, means: NDArray[np.float64], covariances: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-densities of Student's t, (cells, types), and the weights that distances leave the cells, likewise."""
    dimensions, (i, j) = products.dimensions, products.pairs
    constant = gammaln((_TAILS + dimensions) / 2) - gammaln(_TAILS / 2) - dimensions / 2 * np.log(_TAILS * np.pi)
    roots = np.linalg.cholesky(covariances)  # (types, dimensions, dimensions)
    whiten = np.linalg.inv(roots)
    log_volumes = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    precision = whiten.transpose(0, 2, 1) @ whiten
    slopes = np.einsum("kij,kj->ki", precision, means)
    # (z − μ)ᵀ Λ (z − μ) = Σ_ij Λ_ij z_i z_j − 2 μᵀ Λ z + μᵀ Λ μ
    of_pairs = precision[:, i, j] * np.where(i == j, 1.0, 2.0)
    factors = np.column_stack([of_pairs, -2 * slopes, (means * slopes).sum(1)])
    distances = np.maximum(products.table @ factors.T, 0.0)
    logs = constant - log_volumes - (_TAILS + dimensions) / 2 * np.log1p(distances / _TAILS)
    weights = (_TAILS + dimensions) / (_TAILS + distances)
    return logs, weights

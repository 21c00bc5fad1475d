"""Simpler methods for comparison with scANVI, with one interface, from scikit-learn where possible.

Met in book/06_figure.md, compared in book/08_evaluation.md. All data sets use the same settings. Numbers of
components and neighbors were chosen by accuracy against the truth, which favors the baselines: on `pbmc68k`, `facs-t`
and `facs` together, with five and ten true seeds per type and five draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph
from sklearn.semi_supervised import LabelSpreading

from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.markers import check_markers, log_cp10k, marker_scores
from scanvi_tutorial.inputs.session import usual_settings

_COMPONENTS = 10  # with the customary 50, label spreading loses a point or two, and twenty on `facs-t`
_NEIGHBORS = 5
_SPREADING_NEIGHBORS, _SPREADING_ALPHA = 30, 0.8


class Baseline(Protocol):
    """The interface of a method: any function with this signature can be compared with scANVI.

    It uses counts and seed labels, not the truth, and returns a table (cells, labels) over *all* cells whose rows sum
    to one; what it draws at random comes from `seed`.
    """

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return the probability of each label for each cell of `adata`."""
        ...


@usual_settings()
def fit_on_seeds(
    estimator: ClassifierMixin, adata: AnnData, *, labels_key: str = "label", features: ArrayLike | None = None
) -> pd.DataFrame:
    """Fit a scikit-learn classifier on the seed cells; return its probabilities (cells, labels) for all cells.

    It learns from `features` (cells, features), as `principal_components` returns them, or from log-CP10k of all genes.
    Any classifier with `predict_proba` that accepts them (log-CP10k is sparse) will do: a `Baseline` is then three
    lines long.
    """
    names, codes = check_labels(adata, labels_key)
    x = log_cp10k(check_counts(adata)) if features is None else features
    estimator.fit(x[codes >= 0], codes[codes >= 0])
    table = np.zeros((adata.n_obs, len(names)))
    table[:, estimator.classes_] = estimator.predict_proba(x)
    return pd.DataFrame(table, index=adata.obs_names, columns=list(names))


def linear_classifier() -> LogisticRegression:
    """Return an unfitted multinomial logistic regression with scikit-learn's default penalty (C = 1)."""
    return LogisticRegression(max_iter=2_000)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Fitted principal components of log-CP10k, which can be computed for new cells."""

    mean: NDArray[np.float64]  # (genes,)
    loadings: NDArray[np.float64]  # (components, genes)

    def __call__(self, adata: AnnData) -> NDArray[np.float64]:
        """Return the components (cells, components) of raw counts of the same genes."""
        return log_cp10k(check_counts(adata)) @ self.loadings.T - self.mean @ self.loadings.T


def principal_components(adata: AnnData, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the first principal components of log-CP10k, (cells, components), fitted on all cells without a label.

    There are ten of them, or as many as fewer cells or genes allow. `seed` draws the vector that the solver starts
    from, which moves them by rounding errors only.
    """
    return fit_components(adata, seed=seed)[1]


@usual_settings()
def fit_components(adata: AnnData, *, seed: int = 0) -> tuple[Components, NDArray[np.float64]]:
    """Return the fitted components, and the `principal_components` of these cells."""
    x = log_cp10k(check_counts(adata))
    count = min(_COMPONENTS, min(x.shape) - 1)
    if count < 1 or not (x.max(axis=0) - x.min(axis=0)).nnz:
        raise InputError(
            f"{adata.n_obs} × {adata.n_vars} counts have no principal component, which takes two cells that differ and "
            "two genes at the least. Pass more cells, or select more genes."
        )
    found = PCA(count, svd_solver="arpack", random_state=seed)  # arpack leaves sparse counts sparse
    z = found.fit_transform(x)
    return Components(np.asarray(found.mean_, dtype=np.float64), np.asarray(found.components_, dtype=np.float64)), z


def logistic_regression(
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
) -> pd.DataFrame:
    """Return probabilities (cells, labels) of multinomial logistic regression on log-CP10k.

    It uses scikit-learn's default penalty (C = 1) and genes without scaling. On `pbmc68k` and
    `facs-t` with ten seeds per type and five draws, choosing C by the truth gains about one
    point of accuracy. Scaling genes to unit variance loses four on `facs-t`, because it
    amplifies the noise of rare genes. The solver is not random; `seed` is unused.
    """
    return fit_on_seeds(linear_classifier(), adata, labels_key=labels_key)


def nearest_neighbors(adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
    """Return the votes (cells, labels) of the five nearest seeds of each cell, in ten principal components.

    A vote weighs 1/distance, so there is no tie with one seed a type; with fewer than five seeds all vote. The share of
    votes is a crude probability: a type without a vote gets 0, which log-loss punishes hard. A seed is its own nearest.
    """
    codes = check_labels(adata, labels_key)[1]
    voters = KNeighborsClassifier(min(_NEIGHBORS, int((codes >= 0).sum())), weights="distance")
    return fit_on_seeds(voters, adata, labels_key=labels_key, features=principal_components(adata, seed=seed))


def neighbor_graph(features: ArrayLike) -> csr_matrix:
    """Return the graph that labels spread along: an edge from each cell to the twenty-nine nearest others and itself.

    `features` is (cells, features); the graph is sparse, (cells, cells).
    """
    features = np.asarray(features)
    return kneighbors_graph(features, min(_SPREADING_NEIGHBORS, len(features)), include_self=True)


def label_spreading(
    adata: AnnData, *, labels_key: str = "label", seed: int = 0, graph: csr_matrix | None = None
) -> pd.DataFrame:
    """Return how much of each label (cells, labels) reaches a cell along a graph of all cells, as shares.

    Zhou et al. 2004 (Learning with local and global consistency, NIPS 16), by scikit-learn: labels run along `graph`,
    the `neighbor_graph` of ten principal components unless another is given, until nothing changes. Like scANVI, and
    unlike the other baselines, it learns from cells without a label how types are shaped. Where no label arrives, all
    are equally probable.
    """
    names, codes = check_labels(adata, labels_key)
    graph = neighbor_graph(principal_components(adata, seed=seed)) if graph is None else graph
    # the defaults stop after 30 rounds or at 1e-3, before labels have come to the far cells of a type
    spreading = LabelSpreading(lambda *_: graph.copy(), alpha=_SPREADING_ALPHA, max_iter=1_000, tol=1e-6)
    # the graph holds all that features say; and to scikit-learn too, -1 is a cell without a label
    spreading.fit(np.zeros((adata.n_obs, 1)), codes)
    reached = spreading.label_distributions_
    sums = reached.sum(axis=1, keepdims=True)
    shares = np.where(sums > 0, reached / np.where(sums > 0, sums, 1), 1 / len(names))
    return pd.DataFrame(shares, index=adata.obs_names, columns=list(names))


def marker_score(adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
    """Return the softmax (cells, labels) of the marker scores of `uns["markers"]`, the rule that chose the seeds.

    It uses the names of the labels but not which cells have them, so it is not trained; it is not random either. The
    sum of scores is not a logit, so the probabilities are not calibrated.

    Raises:
        InputError: Where a label has no markers, or none of its positive ones is among the genes.
    """
    names, _ = check_labels(adata, labels_key)
    table = check_markers(adata.uns.get("markers"))
    if unmarked := [name for name in names if name not in table]:
        raise InputError(
            f"{listed(unmarked)}: among the labels of obs[{labels_key!r}], and not in the marker table of "
            f"uns['markers'] ({listed(table)}). Add their markers, or leave the marker score out of the comparison."
        )
    logits = marker_scores(adata, {name: table[name] for name in names})
    return pd.DataFrame(softmax(logits.to_numpy(), axis=1), index=adata.obs_names, columns=list(names))


BASELINES: dict[str, Baseline] = {
    "logistic regression": logistic_regression,
    "nearest neighbors": nearest_neighbors,
    "label spreading": label_spreading,
    "marker score": marker_score,
}
"""The simpler methods by the name that tables and figures give them."""

"""Classification rules on states: logistic regression and label spreading (chapter 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

from scanvi_tutorial.evaluation import fit_on_seeds, label_spreading, linear_classifier, neighbor_graph, pooled
from scanvi_tutorial.inputs.labels import check_labels

_MOST_KEPT, _NEIGHBORS = 5_000, 30  # cells that spread labels to new ones; how many do to each
_LEAST = 1e-6  # as in `pooled`


class StateClassifier:
    """Logistic regression and label spreading on fixed latent states, as a `Baseline`.

    Both are fitted on the states of each fit. The result is the weighted geometric mean of
    all; `spreading` is the weight of label spreading.
    """

    def __init__(self, states: Sequence[ArrayLike], *, spreading: float = 0.2) -> None:
        self.spreading = spreading
        self.states = [np.asarray(z, dtype=np.float64) for z in states]  # (cells, latent)
        self.graphs = [neighbor_graph(z) for z in states]  # the same for all hidden labels

    def __call__(
        self,
        adata: AnnData,
        *,
        labels_key: str = "label",
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return probabilities (cells, labels); nothing is drawn at random."""
        tables, weights = [], []
        for z, graph in zip(self.states, self.graphs, strict=True):
            linear = fit_on_seeds(linear_classifier(), adata, labels_key=labels_key, features=z)
            spread = label_spreading(adata, labels_key=labels_key, graph=graph)
            tables += [linear, spread]
            weights += [1 - self.spreading, self.spreading]
        return pooled(tables, weights)

    def restricted(self, fits: Iterable[int]) -> StateClassifier:
        """Return the same rules on the states of some fits alone."""
        return StateClassifier([self.states[fit] for fit in fits], spreading=self.spreading)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedRules:
    """The rules for new cells, where label spreading is replaced by the mean over the nearest training cells."""

    weights: NDArray[np.float64]  # (fits, types, latent)
    biases: NDArray[np.float64]  # (fits, types)
    states: NDArray[np.float64]  # (fits, cells, latent)
    spread: NDArray[np.float64]  # (fits, cells, types)
    spreading: float

    @classmethod
    def of(cls, rules: StateClassifier, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> LearnedRules:
        """Return what `rules` learn from labels; `seed` draws the cells that spread labels to new ones."""
        names, codes = check_labels(adata, labels_key)
        labeled = codes >= 0
        some = np.sort(np.random.default_rng(seed).permutation(adata.n_obs)[:_MOST_KEPT])
        weights, biases, spread = [], [], []
        for z, graph in zip(rules.states, rules.graphs, strict=True):
            linear = linear_classifier().fit(z[labeled], codes[labeled])
            first = len(names) - len(linear.coef_)  # of two types scikit-learn keeps the difference to the first
            weights.append(np.pad(linear.coef_, ((first, 0), (0, 0))))
            biases.append(np.pad(linear.intercept_, (first, 0)))
            spread.append(label_spreading(adata, labels_key=labels_key, graph=graph)[list(names)].to_numpy()[some])
        kept = np.stack([z[some] for z in rules.states])
        return cls(np.stack(weights), np.stack(biases), kept, np.stack(spread), rules.spreading)

    def __call__(self, states: Sequence[ArrayLike]) -> NDArray[np.float64]:
        """Return probabilities (cells, types) from states of each fit, (cells, latent)."""
        logs = 0.0
        for z, weight, bias, known, spread in zip(
            states, self.weights, self.biases, self.states, self.spread, strict=True
        ):
            z = np.asarray(z, dtype=np.float64)
            nearest = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(known))).fit(known).kneighbors(z)[1]
            linear, spread_here = softmax(z @ weight.T + bias, 1), spread[nearest].mean(1)
            logs += (1 - self.spreading) * np.log(np.maximum(linear, _LEAST))
            logs += self.spreading * np.log(np.maximum(spread_here, _LEAST))
        return softmax(logs / len(self.states), 1)

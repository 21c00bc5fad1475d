"""Simple rules on states: logistic regression and label spreading, which take every label for right (chapter 8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike

from scanvi_tutorial.evaluation import fit_on_seeds, label_spreading, linear_classifier, neighbor_graph, pooled


class StateClassifier:
    """From states and a few labels to probabilities: a `Baseline` with fixed states.

    On each set of states, logistic regression and label spreading; then the weighted
    geometric mean of all, in which `spreading` is the share of label spreading.
    """

    def __init__(self, states: Sequence[ArrayLike], *, spreading: float = 0.2) -> None:
        self.spreading = spreading
        self.states = [np.asarray(z, dtype=np.float64) for z in states]  # (cells, latent)
        self.graphs = [neighbor_graph(z) for z in states]  # whichever labels are hidden

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

"""Draw the paper's figure 6 for its four T-cell classes (888 sorted cells, `facs-t`), with accuracies: `make figure`.

The cells of chapter 6 are another data set, because the paper's 20,000 cells are a large download. The seeds are chosen
as in the paper: the 50 cells of each type with the highest marker scores, labeled by the truth. Writes two pictures and
`figure6.json` to `benchmarks/results`, which chapter 6 shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from numpy.typing import NDArray
from provenance import provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.evaluation import BASELINES, scored_cells, scores
from scanvi_tutorial.plotting.style import palette_of, sheet

RESULTS = Path(__file__).resolve().parent / "results"
DATASET, PER_LABEL, GENES = "facs-t", 50, 2_000
RIVALS = ("logistic regression", "nearest neighbors")
MAPS, LABELS = "figure6-maps.png", "figure6-labels.png"
DPI = 150


def draw_labels(adata: AnnData, answers: dict[str, pd.DataFrame], right: dict[str, float], xy: NDArray) -> Figure:
    """Draw the cells on one map a method, colored by the label that it gives; labeled cells keep theirs."""
    colors = palette_of(adata, "truth", "label")
    with sheet(height=2.9) as figure:
        for axes, (method, table) in zip(figure.subplots(1, len(answers)), answers.items(), strict=True):
            given = np.where(scored_cells(adata), table.idxmax(axis=1), adata.obs["label"].astype(str))
            axes.scatter(*xy.T, c=[colors[name] for name in given], s=6, linewidths=0)
            axes.set(title=f"{method}\naccuracy {right[method]:.3f}", xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#d0d7de")
    return figure


def main() -> None:
    """Fit, draw, and write pictures and accuracies."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    matplotlib.use("Agg")
    adata = st.seed_labels(st.load(DATASET), per_label=PER_LABEL, how="typical")
    adata = st.select_genes(adata, GENES)
    model, _ = st.fit_or_load(adata)
    adata.obsm["X_scanvi"] = st.latent(model, adata)
    adata.obsm["scanvi_probabilities"] = st.label_probabilities(model, adata, seed=0)
    answers = {"scANVI": adata.obsm["scanvi_probabilities"]}
    answers |= {name: BASELINES[name](adata) for name in RIVALS}
    right = {method: float(scores(adata, table)["accuracy"]) for method, table in answers.items()}
    xy = st.plotting.umap(adata)
    st.plotting.figure6(adata, coordinates=xy).savefig(RESULTS / MAPS, dpi=DPI)
    draw_labels(adata, answers, right, xy).savefig(RESULTS / LABELS, dpi=DPI)
    about = {
        "dataset": DATASET,
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "seeds": int((~scored_cells(adata)).sum()),
    }
    write_json(RESULTS / "figure6.json", provenance() | about | {"accuracy": right, "pictures": [MAPS, LABELS]})
    print(pd.Series(right).round(3).to_string())


if __name__ == "__main__":
    main()

"""What the book promises of its default model, on real cells: mean of three draws of seed cells and weights."""

from dataclasses import replace

import pytest

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.download import DownloadError
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.evaluation import logistic_regression, score_table, summary
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit

pytestmark = pytest.mark.slow


def scanvi(adata, *, labels_key="label", seed=0):
    model = SCANVI.from_anndata(adata, ModelConfig(), labels_key=labels_key, seed=seed)
    fit(model, adata, replace(TrainConfig(), seed=seed))
    return label_probabilities(model, adata, seed=seed)


def accuracies(name):
    adata = load(name)

    def draw(seed):
        return select_genes(seed_labels(adata, per_label=10, how="random", seed=seed), 2_000)

    methods = {"scANVI": scanvi, "logistic regression": logistic_regression}
    return summary(score_table(methods, draw, range(3)))["mean"]


def test_blood_cells_are_named_nearly_as_well_as_by_logistic_regression():
    mean = accuracies("pbmc68k")
    assert mean["scANVI"] >= 0.78
    assert mean["scANVI"] >= mean["logistic regression"] - 0.03


def test_sorted_t_cells_are_named_better_than_by_logistic_regression():
    try:
        mean = accuracies("facs-t")
    except DownloadError as error:
        pytest.skip(str(error))
    assert mean["scANVI"] >= 0.76
    assert mean["scANVI"] > mean["logistic regression"]

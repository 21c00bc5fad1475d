"""One fit of scANVI as a method: what a `Baseline` promises."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scanvi_tutorial.annotation.methods import SingleFit, recommended
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.evaluation import largest_class_rate, scored_cells, scores
from scanvi_tutorial.inputs import InputWarning

SHORT = TrainConfig(max_epochs=15, batch_size=64, warmup=0.25)
SMALL = ModelConfig(n_latent=4, gene_hidden=(32,), label_hidden=(16,), classifier_hidden=(16,))


@pytest.mark.parametrize("objective", ["labels", "everywhere"])
def test_one_fit_beats_chance_and_never_sees_the_truth(adata, objective, tmp_path):
    method = SingleFit(SMALL, replace(SHORT, objective=objective), folder=tmp_path)
    blind = adata.copy()
    blind.obs["truth"] = np.random.default_rng(0).permutation(blind.obs["truth"].to_numpy())
    said = method(adata, seed=1)
    assert said.equals(method(blind, seed=1))
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    assert scores(adata, said)["accuracy"] > 1.5 * largest_class_rate(adata.obs["truth"][scored_cells(adata)])


def test_another_seed_is_another_fit(adata, tmp_path):
    method = SingleFit(SMALL, SHORT, folder=tmp_path)
    assert not np.allclose(method(adata, seed=0), method(adata, seed=1), atol=0.01)


def test_counts_in_a_layer_give_what_counts_in_x_give(adata, tmp_path):
    adata = adata[:, :40].copy()
    adata.var["feature_types"] = ["Gene Expression"] * 35 + ["Antibody Capture"] * 5
    layered = adata.copy()
    layered.layers["umi"], layered.X = layered.X.copy(), layered.X.log1p()
    settings = {"model": SMALL, "train": TrainConfig(max_epochs=2), "fits": 1, "folder": tmp_path}
    with pytest.warns(InputWarning, match="5 of 40 features are no genes"):
        plain = recommended(adata, **settings)
    with pytest.warns(InputWarning, match="5 of 40"):
        from_layer = recommended(layered, layer="umi", **settings)
    pd.testing.assert_frame_equal(plain, from_layer)

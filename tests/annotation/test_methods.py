"""scANVI as a method: what a `Baseline` promises, in every variant."""

from dataclasses import replace

import numpy as np
import pytest

from scanvi_tutorial.annotation import methods
from scanvi_tutorial.annotation.methods import FrozenLatent, SingleFit
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.evaluation import largest_class_rate, scored_cells, scores

SHORT = TrainConfig(max_epochs=15, batch_size=64, warmup=0.25)
SMALL = ModelConfig(n_latent=4, gene_hidden=(32,), label_hidden=(16,), classifier_hidden=(16,))


@pytest.fixture(autouse=True)
def _cache_of_our_own(tmp_path, monkeypatch):
    fit = methods.fit_or_load
    monkeypatch.setattr(methods, "fit_or_load", lambda *a, **k: fit(*a, **(k | {"folder": tmp_path})))


@pytest.mark.parametrize(
    "method",
    [SingleFit(SMALL, SHORT), SingleFit(SMALL, replace(SHORT, objective="everywhere")), FrozenLatent(SMALL, SHORT)],
    ids=["labels", "everywhere", "frozen"],
)
def test_a_method_beats_chance_and_never_sees_the_truth(adata, method):
    blind = adata.copy()
    blind.obs["truth"] = np.random.default_rng(0).permutation(blind.obs["truth"].to_numpy())
    said = method(adata, seed=1)
    assert said.equals(method(blind, seed=1))
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    assert scores(adata, said)["accuracy"] > 1.5 * largest_class_rate(adata.obs["truth"][scored_cells(adata)])


def test_another_seed_is_another_fit(adata):
    method = SingleFit(SMALL, SHORT)
    assert not np.allclose(method(adata, seed=0), method(adata, seed=1), atol=0.01)


def test_a_frozen_latent_space_knows_no_label(adata, monkeypatch):
    """Two seeds that swap their labels move the classifier, not the cells."""
    swapped = adata.copy()
    label = swapped.obs["label"].to_numpy().copy()
    first, second = np.flatnonzero(label == "type A")[0], np.flatnonzero(label == "type B")[0]
    label[[first, second]] = label[[second, first]]
    swapped.obs["label"] = label
    states, read_off = [], methods.latent
    monkeypatch.setattr(methods, "latent", lambda *a: states.append(read_off(*a)) or states[-1])
    method = FrozenLatent(SMALL, replace(SHORT, max_epochs=2))
    said = [method(cells) for cells in (adata, swapped)]
    assert np.array_equal(*states)
    assert not said[0].equals(said[1])

"""scANVI as a method: what a `Baseline` promises, in every variant."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scanvi_tutorial import methods
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.datasets import load
from scanvi_tutorial.evaluation import evaluate, largest_class_rate, logistic_regression, stack, unlabelled
from scanvi_tutorial.methods import FrozenLatent, ScANVI, plain_cells, recommended, stack_fits
from scanvi_tutorial.seeds import seed_labels

SHORT = TrainConfig(max_epochs=15, minibatch=64, warmup=0.25)
SMALL = ModelConfig(latent_dim=4, gene_hidden=(32,), label_hidden=(16,), classifier_hidden=(16,))


@pytest.fixture(autouse=True)
def _cache_of_our_own(tmp_path, monkeypatch):
    fit = methods.fit_or_load
    monkeypatch.setattr(methods, "fit_or_load", lambda *a, **k: fit(*a, **(k | {"folder": tmp_path})))


@pytest.fixture(scope="module")
def adata():
    return seed_labels(load("simulated"), per_label=10, how="random", seed=0)


@pytest.mark.parametrize(
    "method",
    [ScANVI(SMALL, SHORT), ScANVI(SMALL, replace(SHORT, objective="everywhere")), FrozenLatent(SMALL, SHORT)],
    ids=["labels", "everywhere", "frozen"],
)
def test_a_method_beats_chance_and_never_sees_the_truth(adata, method):
    blind = adata.copy()
    blind.obs["truth"] = np.random.default_rng(0).permutation(blind.obs["truth"].to_numpy())
    said = method(adata, seed=1)
    assert said.equals(method(blind, seed=1))
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    assert evaluate(adata, said)["accuracy"] > 1.5 * largest_class_rate(adata.obs["truth"][unlabelled(adata)])


def test_another_seed_is_another_fit(adata):
    method = ScANVI(SMALL, SHORT)
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


def test_what_is_recommended_is_no_worse_than_its_worst_part_and_says_how_it_came_about(adata):
    answer = recommended(adata, seed=0, model=SMALL, train=SHORT, folds=2)
    accuracy = evaluate(adata, answer.probabilities)["accuracy"]
    parts = [evaluate(adata, part.probabilities)["accuracy"] for part in answer.parts.values()]
    assert accuracy >= min(parts)
    assert set(answer.parts) == {"scANVI", "logistic regression", "label spreading"}
    assert answer.weights.sum() == pytest.approx(1)


def test_cells_are_stripped_to_what_a_method_reads(adata):
    given = adata.copy()
    given.layers["umi"] = given.X.copy()
    given.X = np.log1p(given.X.toarray())
    given.obs["kind"] = given.obs["label"].astype(str).replace({"Unknown": "later", "type A": "1"})
    cells = plain_cells(given, "kind", layer="umi", unlabelled="later", batch="batch")
    assert (given.layers["umi"] != cells.X).nnz == 0
    assert list(cells.obs) == ["kind", "batch"]
    assert list(cells.obs["kind"].cat.categories) == ["1", "type B", "type C", "type D"]
    assert (cells.obs["kind"].isna() == (given.obs["kind"] == "later")).all()


def simple(adata, *, labels="label", seed=0):
    """A method that is quick, and tells seeds apart."""
    table = logistic_regression(adata, labels=labels)
    return table ** (1 + seed % 3) / (table ** (1 + seed % 3)).sum(axis=1).to_numpy()[:, None]


class Quick:
    """What `stack_fits` asks of a ScANVI, without the fit."""

    samples = 0

    def fit(self, adata, labels, seed):
        return (adata, seed), None


def test_fits_handed_over_are_those_that_the_stack_would_have_made(adata, monkeypatch):
    monkeypatch.setattr(methods, "label_probabilities", lambda fit, *a, seed, **k: simple(fit[0], seed=seed))
    ours, whole, left_out = stack_fits(Quick(), adata, folds=3, seed=2, whole=True)
    theirs = stack({"scANVI": simple, **methods.SIMPLER}, adata, folds=3, seed=2)
    pd.testing.assert_frame_equal(ours.probabilities, theirs.probabilities)
    assert ours.temperature == theirs.temperature
    assert whole[0][1] == 2
    assert left_out == []


def test_a_simpler_method_that_fails_is_left_out_and_said(adata, monkeypatch):
    def fails(*_args, **_options):
        raise RuntimeError("ARPACK error 3")

    monkeypatch.setattr(methods, "label_probabilities", lambda fit, *a, seed, **k: simple(fit[0], seed=seed))
    monkeypatch.setattr(methods, "SIMPLER", {"logistic regression": logistic_regression, "label spreading": fails})
    answer, _, left_out = stack_fits(Quick(), adata, folds=2)
    assert set(answer.weights.index) == {"scANVI", "logistic regression"}
    assert "label spreading part was left out" in left_out[0]
    assert "ARPACK error 3" in left_out[0]

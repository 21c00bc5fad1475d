"""What the book recommends: no fit knows a label, a pool is what SciPy says it is, one model answers for itself."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

from scanvi_tutorial.annotation.methods import Ensemble, recommended
from scanvi_tutorial.annotation.rules import LearnedRules, StateClassifier
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.evaluation import (
    cross_fit,
    fit_on_seeds,
    label_spreading,
    largest_class_rate,
    linear_classifier,
    neighbor_graph,
    pooled,
    scored_cells,
    scores,
)
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.inputs.batches import ConfoundedBatchWarning

SHORT = TrainConfig(max_epochs=15, batch_size=64, warmup=0.25)
SMALL = ModelConfig(n_latent=4, gene_hidden=(32,), label_hidden=(16,), classifier_hidden=(16,))


@pytest.fixture(scope="module")
def fitted(adata):
    return Ensemble(SMALL, SHORT, fits=2, keep=False).fit(adata, "label", 0)


def relabeled(adata):
    """Return the cells with their seeds elsewhere, and as many types."""
    other = seed_labels(adata, per_label=3, how="random", seed=7)
    assert (other.obs["label"] != adata.obs["label"]).any()
    return other


def test_no_fit_knows_which_cells_have_which_label(adata, fitted):
    again = Ensemble(SMALL, SHORT, fits=2, keep=False).fit(relabeled(adata), "label", 0)
    for (ours, _), (theirs, _) in zip(fitted, again, strict=True):
        np.testing.assert_array_equal(latent(ours, adata), latent(theirs, adata))
    assert "cross_entropy" not in fitted[0][1].frame


def test_fits_differ_in_seed_and_take_turns_in_norm(adata, fitted):
    assert [model.config.norm for model, _ in fitted] == ["layer", "batch"]
    twins = Ensemble(SMALL, replace(SHORT, max_epochs=1), fits=3, keep=False).fit(adata, "label", 0)
    assert not np.allclose(latent(twins[0][0], adata), latent(twins[2][0], adata), atol=1e-3)


def test_the_answer_is_the_weighed_geometric_mean_of_two_rules_a_space(adata, fitted):
    """Against scikit-learn and SciPy, put together by hand."""
    states = [latent(model, adata) for model, _ in fitted]
    codes = adata.obs["label"].astype(str).map({f"type {name}": code for code, name in enumerate("ABCD")})
    told = codes.notna().to_numpy()
    logs = 0
    for z in states:
        linear = LogisticRegression(max_iter=2_000).fit(z[told], codes[told].astype(int)).predict_proba(z)
        known = codes.fillna(-1).astype(int)
        spread = LabelSpreading("knn", n_neighbors=30, alpha=0.8, max_iter=1_000, tol=1e-6).fit(z, known)
        shares = spread.label_distributions_
        logs = logs + 0.4 * np.log(np.maximum(linear, 1e-6)) + 0.1 * np.log(np.maximum(shares, 1e-6))
    said = StateClassifier(states)(adata)
    assert list(said) == [f"type {name}" for name in "ABCD"]
    np.testing.assert_allclose(said, softmax(logs, axis=1), atol=1e-6)


def test_more_is_learned_than_chance_and_the_truth_is_never_seen(adata, tmp_path):
    blind = adata.copy()
    blind.obs["truth"] = np.random.default_rng(0).permutation(blind.obs["truth"].to_numpy())
    settings = {"model": SMALL, "train": SHORT, "fits": 2}
    said = recommended(adata, **settings, folder=tmp_path)
    assert said.equals(recommended(blind, **settings, folder=tmp_path / "other"))
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-9)
    assert scores(adata, said)["accuracy"] > 1.5 * largest_class_rate(adata.obs["truth"][scored_cells(adata)])


def test_counts_in_a_layer_and_another_word_for_unknown_change_nothing(adata, tmp_path):
    settings = {"model": SMALL, "train": replace(SHORT, max_epochs=2), "fits": 1}
    plain = recommended(adata, **settings, folder=tmp_path)
    other = adata.copy()
    other.layers["umi"] = other.X.copy()
    other.X = np.log1p(other.X.toarray())
    other.obs["label"] = other.obs["label"].astype(str).replace("Unknown", "later")
    said = recommended(other, **settings, folder=tmp_path, layer="umi", unlabeled_category="later")
    pd.testing.assert_frame_equal(plain, said)


@pytest.mark.slow
def test_processes_side_by_side_give_what_one_gives(adata):
    ensemble = Ensemble(SMALL, replace(SHORT, max_epochs=2), fits=2, keep=False)
    one = ensemble.fit(adata, "label", 3)
    two = replace(ensemble, jobs=2).fit(adata, "label", 3)
    for (ours, _), (theirs, _) in zip(one, two, strict=True):
        np.testing.assert_allclose(latent(ours, adata), latent(theirs, adata), atol=1e-4)


@pytest.mark.parametrize(("cells", "fits"), [(300, 6), (2_600, 6), (3_200, 5), (4_000, 4), (9_000, 4)])
def test_many_cells_are_fitted_less_often(cells, fits, monkeypatch):
    adata = load("simulated", cells=cells, genes=20)
    monkeypatch.setattr("scanvi_tutorial.annotation.methods._one", lambda *task: task)
    assert len(Ensemble().fit(adata, "label", 0)) == fits
    assert len(Ensemble(fits=3).fit(adata, "label", 0)) == 3


@pytest.mark.parametrize("settings", [{"fits": 0}, {"fits": -1}, {"jobs": 0}])
def test_no_fit_is_no_ensemble(settings):
    with pytest.raises(InputError, match="must be a whole number of at least 1"):
        Ensemble(**settings)


def test_hidden_labels_have_no_part_in_what_is_said_of_them(adata):
    """Permuted among themselves within a fold, the answer about them stays."""
    rng = np.random.default_rng(0)
    rules = StateClassifier([rng.normal(size=(adata.n_obs, 3))])
    folds = []

    def spy(cells, *, labels_key="label", seed=0):
        folds.append(cells.obs[labels_key].copy())
        return rules(cells, labels_key=labels_key)

    part = cross_fit(spy, adata)
    told = adata.obs["label"].astype(str)
    for shown in folds:
        hidden = shown.isna().to_numpy() & (told != "Unknown").to_numpy()
        assert hidden.any()
        alone = adata.copy()
        alone.obs["label"] = told.where(~hidden, "Unknown")
        said = rules(alone)
        names = adata.obs_names[hidden]
        np.testing.assert_allclose(part.held_out.loc[names], said.loc[names], atol=1e-9)


def test_what_lies_in_memory_is_no_feature(adata, monkeypatch):
    """scikit-learn refuses features that are no numbers, which memory that was used before may hold."""
    graph = neighbor_graph(np.random.default_rng(0).normal(size=(adata.n_obs, 2)))
    empty = np.empty

    def used(shape, dtype=float, **rest):
        return np.full(shape, np.nan) if dtype is float else empty(shape, dtype, **rest)

    monkeypatch.setattr("numpy.empty", used)
    label_spreading(adata, graph=graph)


def test_rules_can_be_restricted_to_some_fits_and_to_one_kind(adata):
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(adata.n_obs, 3)) for _ in range(3)]
    few = StateClassifier(states).restricted([2, 0])(adata)
    pd.testing.assert_frame_equal(few, StateClassifier([states[2], states[0]])(adata))
    linear = StateClassifier(states[:1], spreading=0.0)(adata)
    pd.testing.assert_frame_equal(linear, fit_on_seeds(linear_classifier(), adata, features=states[0]))


@pytest.mark.parametrize("types", [2, 4])
def test_rules_say_of_new_cells_what_they_say_of_the_same_cells_among_many(types):
    """Logistic regression to rounding; label spreading through the neighbors, so nearly."""
    adata = load("simulated", cells=300, genes=30, types=types, effect=3.0)
    codes = adata.obs["truth"].cat.codes.to_numpy()
    states = [np.random.default_rng(fit).normal(size=(300, types)) + 4 * np.eye(types)[codes] for fit in range(2)]
    told = (adata.obs["label"] != "Unknown").to_numpy()
    linear = StateClassifier(states[:1], spreading=0.0)
    rule = LogisticRegression(max_iter=2_000).fit(states[0][told], adata.obs["label"][told].astype(str))
    said = LearnedRules.of(linear, adata)(states[:1])
    np.testing.assert_allclose(said, rule.predict_proba(states[0]), atol=1e-5)
    both = StateClassifier(states)
    np.testing.assert_allclose(LearnedRules.of(both, adata)(states)[~told], both(adata).to_numpy()[~told], atol=0.05)


def test_labels_spread_along_the_graph_that_is_given(adata):
    """Where each cell is joined to its own type alone, no label comes to another."""
    rng, truth = np.random.default_rng(0), adata.obs["truth"].cat.codes.to_numpy()
    apart = 100 * truth[:, None] + rng.normal(size=(adata.n_obs, 2))
    said = label_spreading(adata, graph=neighbor_graph(apart))
    assert (said.idxmax(axis=1) == adata.obs["truth"].astype(str)).all()


def test_a_pool_weighs_logarithms_and_minds_the_order_of_columns():
    rng = np.random.default_rng(0)
    one, two = (pd.DataFrame(rng.dirichlet(np.ones(3), 5), columns=list("ABC")) for _ in range(2))
    said = pooled([one, two[["C", "A", "B"]]], [3, 1])
    by_hand = one**0.75 * two**0.25
    pd.testing.assert_frame_equal(said, by_hand.div(by_hand.sum(axis=1), axis=0))


def test_one_table_that_says_never_does_not_make_it_impossible():
    never = pd.DataFrame({"A": [0.0], "B": [1.0]})
    sure = pd.DataFrame({"A": [0.9], "B": [0.1]})
    assert 0.001 < pooled([never, sure], [0.2, 0.8])["A"].item() < 0.5


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_confounded_batch_is_warned_of_once(jobs):
    adata = load("simulated", cells=120, genes=30)
    adata.obs["run"] = np.where(adata.obs["truth"].isin(["type A", "type B"]), "first", "second")
    train = TrainConfig(max_epochs=1, batch_size=64)
    with pytest.warns(ConfoundedBatchWarning) as caught:
        Ensemble(train=train, fits=3, batch_key="run", keep=False, jobs=jobs).fit(adata, "label", 0)
    assert len([one for one in caught if one.category is ConfoundedBatchWarning]) == 1

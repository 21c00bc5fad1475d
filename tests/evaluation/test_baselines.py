"""Baselines find what is there, from counts and seed labels alone, and all in one form."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial.distance import cdist
from sklearn.datasets import make_moons
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from three_types import TYPES, three_types

from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.evaluation import (
    BASELINES,
    fit_on_seeds,
    label_spreading,
    log_cp10k,
    logistic_regression,
    marker_score,
    nearest_neighbors,
    principal_components,
    scored_cells,
    scores,
)
from scanvi_tutorial.inputs import InputError

every = pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
taught = pytest.mark.parametrize(
    "method", [logistic_regression, nearest_neighbors, label_spreading], ids=lambda method: method.__name__
)


# What all have in common


@every
def test_a_baseline_finds_types_that_differ(method, cells):
    p = method(cells)
    assert list(p.columns) == TYPES
    assert p.index.equals(cells.obs_names)
    assert (p >= 0).all(axis=None)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-9)
    assert scores(cells, p)["accuracy"] > 0.95


@every
def test_a_baseline_never_sees_the_truth(method, cells):
    before = method(cells)
    cells.obs["truth"] = np.random.default_rng(0).permutation(cells.obs["truth"].to_numpy())
    pd.testing.assert_frame_equal(before, method(cells))
    cells.obs["truth"] = pd.Categorical(cells.obs["truth"], categories=["NK", "T", "B"])  # nor the order of its types
    pd.testing.assert_frame_equal(before, method(cells))
    del cells.obs["truth"]
    pd.testing.assert_frame_equal(before, method(cells))


@every
def test_names_of_types_mean_nothing(method, cells):
    other = {"T": "Z", "B": "A", "NK": "M"}
    before = method(cells)
    cells.obs["label"] = cells.obs["label"].cat.rename_categories(other)
    cells.uns["markers"] = {other[name]: sides for name, sides in cells.uns["markers"].items()}
    pd.testing.assert_frame_equal(before.rename(columns=other), method(cells))


@every
@pytest.mark.parametrize("nothing", ["missing", "-1"])
def test_however_a_cell_without_label_is_written(method, nothing, cells):
    before = method(cells)
    label = cells.obs["label"].cat.set_categories(TYPES)  # missing where it was "Unknown"
    cells.obs["label"] = label if nothing == "missing" else label.cat.add_categories("-1").fillna("-1")
    pd.testing.assert_frame_equal(before, method(cells))


@every
def test_one_seed_a_type_is_enough_to_start_with(method):
    cells = three_types(seeds=1)
    p = method(cells)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-9)
    assert scores(cells, p)["accuracy"] > 0.8


@every
def test_a_baseline_leaves_the_cells_alone(method, cells):
    copy = cells.copy()
    method(cells)
    assert (copy.X != cells.X).nnz == 0
    pd.testing.assert_frame_equal(copy.obs, cells.obs)
    assert not cells.obsm
    assert cells.uns == copy.uns


@every
def test_equal_seeds_give_equal_probabilities(method, cells):
    pd.testing.assert_frame_equal(method(cells, seed=4), method(cells, seed=4))
    pd.testing.assert_frame_equal(method(cells, seed=4), method(cells, seed=5), rtol=1e-6)  # none is a matter of luck


@taught
def test_wrong_seeds_teach_wrong_names(method, cells):
    cells.obs["label"] = cells.obs["label"].cat.rename_categories({"T": "B", "B": "NK", "NK": "T"})
    assert scores(cells, method(cells))["accuracy"] < 0.05


@every
def test_another_column_of_labels_can_be_named(method, cells):
    before = method(cells)
    cells.obs = cells.obs.rename(columns={"label": "annotation"})
    pd.testing.assert_frame_equal(before, method(cells, labels_key="annotation"))


@every
def test_a_baseline_says_what_it_cannot_use(method, cells):
    cells.X = cells.X.multiply(0.5).tocsr()
    with pytest.raises(InputError, match="raw counts"):
        method(cells)
    unnamed = three_types(seeds=0)
    with pytest.raises(InputError, match="holds no label, and at least 2"):
        method(unnamed)


# Each by a calculation of its own


def test_components_agree_with_a_singular_value_decomposition(cells):
    x = log_cp10k(cells.X).toarray()
    left, size, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(principal_components(cells)), np.abs(left * size)[:, :10], atol=1e-8)


def test_components_are_as_many_as_cells_and_genes_allow(cells):
    assert principal_components(cells[:6]).shape == (6, 5)
    with pytest.raises(InputError, match=r"1 × 24 counts .*Pass more cells"):
        principal_components(cells[:1])


def test_neighbors_vote_by_their_nearness(cells):
    z, seeds = principal_components(cells), np.flatnonzero(~scored_cells(cells))
    distance = cdist(z, z[seeds])
    want = np.zeros((90, 3))
    for cell in scored_cells(cells).nonzero()[0]:
        for voter in np.argsort(distance[cell])[:5]:
            want[cell, TYPES.index(cells.obs["label"].iloc[seeds[voter]])] += 1 / distance[cell, voter]
    want /= np.maximum(want.sum(1, keepdims=True), 1e-300)
    np.testing.assert_allclose(nearest_neighbors(cells)[scored_cells(cells)], want[scored_cells(cells)], atol=1e-9)


def test_spreading_ends_where_its_equation_says(cells):
    """Zhou et al. 2004: the labels that stay are (I − αS)⁻¹ of the seeds, S the normalized graph without self-loops."""
    z, alpha = principal_components(cells), 0.8
    graph = np.zeros((90, 90))
    np.put_along_axis(graph, np.argsort(cdist(z, z), axis=1)[:, :30], 1, axis=1)
    np.fill_diagonal(graph, 0)
    degree = np.sqrt(graph.sum(0))  # SciPy's Laplacian takes in-degrees
    s = graph / degree[:, None] / degree[None, :]
    told = (cells.obs["label"].to_numpy()[:, None] == np.array(TYPES)).astype(float)
    kept = np.linalg.solve(np.eye(90) - alpha * s, told)
    np.testing.assert_allclose(label_spreading(cells), kept / kept.sum(1, keepdims=True), atol=1e-6)


def test_cells_that_no_label_reaches_stay_undecided():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 60)
    rate = np.ones((3, 30)) + 40 * np.repeat(np.eye(3), 10, axis=1)
    label = np.where((np.arange(180) % 60 < 3) & (truth < 2), np.array(["a", "b", ""])[truth], "Unknown")
    cells = AnnData(sp.csr_matrix(rng.poisson(rate[truth]), dtype=np.float32), obs=labels_of(label))
    p = label_spreading(cells)
    assert (p[truth == 2] == 0.5).all(axis=None)  # an island of its own
    assert (p["a"][truth == 0] > 0.99).all()


def test_spreading_follows_the_shape_of_a_type():
    """On two half moons, the far end of a type lies nearer to the seeds of the other; the cells between know better."""
    where, truth = make_moons(400, noise=0.04, random_state=0)
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(4 + 0.4 * where @ rng.normal(size=(2, 300))))
    end = np.where(truth == 0, where[:, 0] > 0.9, where[:, 0] < 0.1)
    seeds = end & (pd.Series(end).groupby(truth).cumsum().to_numpy() <= 5)
    cells = AnnData(
        sp.csr_matrix(counts, dtype=np.float32), obs=labels_of(np.where(seeds, np.array(["a", "b"])[truth], "Unknown"))
    )
    cells.obs["truth"] = np.array(["a", "b"])[truth]
    spread_out, nearest = (scores(cells, method(cells)) for method in (label_spreading, nearest_neighbors))
    assert spread_out["accuracy"] > 0.98
    assert nearest["accuracy"] < 0.9


def labels_of(label):
    return pd.DataFrame({"label": label}, index=[f"cell{i}" for i in range(len(label))])


def test_marker_scores_are_logits(cells):
    x = log_cp10k(cells.X).toarray()
    standard = (x - x.mean(0)) / x.std(0)
    logits = np.stack([standard[:, 6 * k : 6 * k + 6].sum(1) for k in range(3)], axis=1)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(marker_score(cells), odds / odds.sum(1, keepdims=True), rtol=1e-9)


def test_marker_score_picks_the_cells_that_marker_seeds_pick(cells):
    seeded = seed_labels(cells, 1, "markers")
    p = marker_score(seeded)
    seeds = seeded.obs["label"][~scored_cells(seeded)]
    assert (p.loc[seeds.index].idxmax(axis=1) == seeds.astype(str)).all()


def test_a_label_without_markers_is_refused(cells):
    del cells.uns["markers"]["NK"]
    with pytest.raises(InputError, match=r"^NK: among the labels .*\(T, B\)"):
        marker_score(cells)
    del cells.uns["markers"]
    with pytest.raises(InputError, match="leave the marker score out"):
        marker_score(cells)


def test_markers_of_types_that_are_not_asked_for_are_passed_over(cells):
    before = marker_score(cells)
    cells.uns["markers"] = {"ILC": {"positive": ["KIT"], "negative": []}, **cells.uns["markers"]}
    pd.testing.assert_frame_equal(before, marker_score(cells))


def test_logistic_regression_is_at_the_optimum_of_its_loss(cells):
    """The gradient of the penalized loss with respect to the intercepts is mean probability − class share: zero."""
    seeds = ~scored_cells(cells)
    p = logistic_regression(cells)[seeds]
    np.testing.assert_allclose(p.mean(), np.full(3, 1 / 3), atol=1e-3)


# Others of the reader's own


def test_any_classifier_can_be_a_baseline(cells):
    p = fit_on_seeds(KNeighborsClassifier(3), cells)
    assert scores(cells, p)["accuracy"] > 0.9
    np.testing.assert_allclose(p.sum(1), 1)


def test_fit_on_seeds_learns_from_seeds_alone(cells):
    """The prior of a dummy classifier is the share of each type among what it was fitted on."""
    label = cells.obs["label"].to_numpy(dtype=object)
    label[[0, 1, 2]] = "Unknown"  # two T seeds are left, five of the others
    cells.obs["label"] = pd.Categorical(label, categories=[*TYPES, "Unknown"])
    p = fit_on_seeds(DummyClassifier(strategy="prior"), cells)
    np.testing.assert_allclose(p.iloc[0], [2 / 12, 5 / 12, 5 / 12])


# Their scale


def test_log_cp10k_agrees_with_the_formula_and_stays_sparse(cells):
    dense = cells.X.toarray().astype(float)
    got = log_cp10k(cells.X)
    assert sp.issparse(got)
    assert got.nnz == cells.X.nnz
    np.testing.assert_allclose(got.toarray(), np.log1p(1e4 * dense / dense.sum(1, keepdims=True)), rtol=1e-12)


def test_a_cell_without_counts_stays_at_zero():
    assert log_cp10k(sp.csr_matrix([[0.0, 0.0], [1.0, 3.0]])).toarray()[0].tolist() == [0, 0]
    stored = sp.csr_matrix((np.float32([0, 1, 3]), [0, 0, 1], [0, 1, 3]))
    assert log_cp10k(stored).toarray()[0].tolist() == [0, 0]


def test_log_cp10k_of_some_genes_counts_all_of_them(cells):
    some = np.arange(cells.n_vars) % 5 == 0
    np.testing.assert_array_equal(log_cp10k(cells.X, some).toarray(), log_cp10k(cells.X).toarray()[:, some])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_cp10k_leaves_the_counts_alone(cells, dtype):
    counts = cells.X.astype(dtype)
    log_cp10k(counts)
    assert (counts != cells.X).nnz == 0

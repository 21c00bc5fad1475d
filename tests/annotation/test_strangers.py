"""Cells that no label names: unnamed components, how strange cells look, groups of refused cells, false discoveries."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata import AnnData
from scipy.stats import multivariate_t
from sklearn.metrics import roc_auc_score

from scanvi_tutorial.annotation import label_model
from scanvi_tutorial.annotation.answer import strangers_table
from scanvi_tutorial.annotation.label_model import LabelModel
from scanvi_tutorial.annotation.strangers import Strangeness, groups_of_refused

CENTERS = {"far": np.array([0.0, 0.0, 0.0, 5.0]), "halfway": np.array([2.5, 2.5, 0.0, 0.0])}


def world(where="far", strangers=200, cells=400, seed=0, labels=20, distance=5.0):
    """Return two views of cells of three types and of a fourth that no label names, types and labels."""
    rng = np.random.default_rng(seed)
    types = rng.permutation(np.repeat([0, 1, 2, 3], [cells - 2 * (cells // 3), cells // 3, cells // 3, strangers]))
    centers = np.vstack([distance * np.eye(3, 4), CENTERS[where]])
    z = centers[types] + rng.standard_normal((len(types), 4))
    views = [z + 0.3 * rng.standard_normal(z.shape), z[:, :3] @ rng.standard_normal((3, 3)) + z[:, 3:]]
    codes = np.full(len(types), -1)
    for kind in range(3):
        codes[rng.choice(np.flatnonzero(types == kind), labels, replace=False)] = kind
    return views, types, codes


def asked(views, codes, weights=(1.0, 0.5), seed=0):
    """Return how strange cells are, as learned from them, and the probabilities of a label model."""
    allowed = np.ones((len(codes), 3), dtype=bool)
    probabilities = LabelModel(views, weights).fit(codes, allowed).probabilities
    return Strangeness.fit(views, weights, codes, allowed, probabilities, seed=seed), probabilities


@pytest.mark.parametrize(("unnamed", "at_once"), [(0, 5_000), (3, 5_000), (3, 7)])
def test_log_joint_is_that_of_students_t_and_the_shares(unnamed, at_once, monkeypatch):
    monkeypatch.setattr(label_model, "_CELLS_AT_ONCE", at_once)
    views, _, codes = world()
    model = LabelModel(views, [1.0, 3.0], unnamed=unnamed)
    found = model.fit(codes, np.ones((len(codes), 3), dtype=bool)).parameters
    assert len(found.shares) == 3 + unnamed
    assert found.shares.sum() == pytest.approx(1)
    some = [view[:50] + 0.1 for view in views]
    expected = np.tile(np.log(found.shares), (50, 1))
    for number, weight in enumerate([0.25, 0.75]):
        scaled = (some[number] - views[number].mean(0)) / views[number].std(0).mean()
        for kind in range(3 + unnamed):
            law = multivariate_t(found.means[number][kind], found.covariances[number][kind], df=5)
            expected[:, kind] += weight * law.logpdf(scaled)
    np.testing.assert_allclose(found.log_joint(some), expected, rtol=1e-9)


def test_cells_that_no_label_names_get_the_unnamed_component_and_others_keep_their_types():
    views, types, codes = world()
    every = np.ones((len(codes), 3), dtype=bool)
    plain, open_minded = (LabelModel(views, unnamed=unnamed).fit(codes, every) for unnamed in (0, 1))
    named = open_minded.probabilities[:, :3].sum(1)
    strange = types == 3
    assert (named[strange] < 0.1).mean() > 0.95
    assert (named[~strange] > 0.9).mean() > 0.95
    assert (open_minded.probabilities.argmax(1) == types)[~strange].mean() > 0.95
    assert plain.probabilities.shape[1] == 3
    assert (plain.probabilities.max(1)[strange] > 0.5).all()  # without such a component each gets some type's name


def test_unnamed_components_take_few_cells_where_labels_name_all_types():
    views, types, codes = world(strangers=0)
    found = LabelModel(views, unnamed=3).fit(codes, np.ones((len(codes), 3), dtype=bool))
    assert (found.probabilities[:, :3].argmax(1) == types).mean() > 0.95
    labeled = codes >= 0
    np.testing.assert_allclose(found.of_labels[labeled, 3:], 0, atol=1e-12)  # a label names a type


@pytest.mark.parametrize(("where", "least"), [("far", 0.95), ("halfway", 0.8)])
def test_cells_of_a_type_that_no_label_names_look_strange(where, least):
    for seed in range(3):
        views, types, codes = world(where, seed=seed)
        strangeness, probabilities = asked(views, codes)
        found = strangeness(views, probabilities)
        free = codes < 0
        assert roc_auc_score(types[free] == 3, found[free]) > least


def test_how_strange_a_cell_is_lies_between_zero_and_one_also_far_from_all_cells():
    views, _, codes = world()
    strangeness, probabilities = asked(views, codes)
    found = strangeness(views, probabilities)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.mean() == pytest.approx(1 / 3, abs=0.02)  # squared ranks among these very cells
    away = strangeness([view[:5] + 1_000 for view in views], np.full((5, 3), 1 / 3))
    assert (away > found.max()).all()


@pytest.mark.parametrize("distance", [15, 50, 1_000])
def test_a_cell_far_from_all_that_were_learned_from_is_stranger_than_known_cells_however_sure_the_answer(distance):
    """No such cell was there when components were learned."""
    views, _, codes = world(strangers=0)
    strangeness, probabilities = asked(views, codes)
    most = np.quantile(strangeness(views, probabilities), 0.95)
    certain = np.tile([1.0, 0.0, 0.0], (5, 1))
    assert (strangeness([view[:5] - distance for view in views], certain) > most).all()


@pytest.mark.parametrize("rows", [slice(0, 1), slice(100, 137), slice(None, None, -7)])
def test_how_strange_a_cell_is_does_not_depend_on_the_cells_beside_it(rows):
    views, _, codes = world()
    strangeness, probabilities = asked(views, codes)
    found = strangeness([view[rows] for view in views], probabilities[rows])
    np.testing.assert_allclose(found, strangeness(views, probabilities)[rows], atol=1e-12)


def test_equal_seeds_find_equal_strangeness_and_cells_of_one_stranger_share_a_component():
    views, types, codes = world()
    twice = [asked(views, codes, seed=4) for _ in range(2)]
    np.testing.assert_array_equal(*(strangeness(views, p) for strangeness, p in twice))
    own = twice[0][0].component_of(views, 3)
    assert own.shape == types.shape
    assert pd.Series(own[types == 3]).value_counts(normalize=True).iloc[0] > 0.5


def test_where_all_cells_are_labeled_no_component_is_without_a_name():
    views, types, _ = world(strangers=0)
    strangeness, probabilities = asked(views, types)
    found = strangeness(views, probabilities)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(strangeness.component_of(views, 3), np.zeros(len(types)))


def counts(cells=120, genes=30, seed=0):
    """Return cells with two planted groups, of 30 and 20, each with a gene that is high in it alone."""
    rng = np.random.default_rng(seed)
    group = np.repeat([-1, 0, 1], [cells - 50, 30, 20])
    rates = np.full((cells, genes), 3.0)
    rates[group == 0, 4] = 40
    rates[group == 1, 11] = 40
    names = [f"c{i}" for i in range(cells)]
    x = scipy.sparse.csr_matrix(rng.poisson(rates).astype(np.float32))
    return AnnData(x, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=[f"g{i}" for i in range(genes)])), group


def test_groups_of_refused_cells_are_named_by_the_genes_that_are_high_in_them():
    adata, planted = counts()
    before = adata.copy()
    component = np.where(planted == 0, 2, np.where(planted == 1, 0, 1))
    group, table = groups_of_refused(adata, planted >= 0, component)
    np.testing.assert_array_equal(group, planted)  # the larger one first
    assert table["cells"].tolist() == [30, 20]
    assert [text.split(", ")[0] for text in table["high"]] == ["g4", "g11"]
    assert (adata.X != before.X).nnz == 0
    assert not len(adata.uns)
    assert list(adata.obs) == []


@pytest.mark.parametrize(("refused", "groups"), [(4, 0), (5, 1), (0, 0)])
def test_fewer_than_five_cells_are_no_group(refused, groups):
    adata, _ = counts()
    rows = np.arange(120) < refused
    group, table = groups_of_refused(adata, rows, np.zeros(120, dtype=int))
    assert len(table) == groups
    np.testing.assert_array_equal(group, np.where(rows & (groups > 0), 0, -1))


def test_where_every_cell_is_refused_a_group_has_no_gene_that_is_high():
    adata, _ = counts()
    _, table = groups_of_refused(adata, np.ones(120, dtype=bool), np.zeros(120, dtype=int))
    assert table["cells"].tolist() == [120]
    assert table["high"].tolist() == [""]


def benjamini_hochberg(p):
    """Return the smallest false discovery rate at which each hypothesis is rejected, one after another."""
    n, q = len(p), []
    for one in p:
        reached = [value for value in p if value >= one]
        q.append(min(min(n * value / sum(other <= value for other in p) for value in reached), 1.0))
    return np.array(q)


def test_the_share_of_false_discoveries_is_that_of_benjamini_and_hochberg_among_cells_without_a_label():
    adata, planted = counts()
    rng = np.random.default_rng(1)
    p_known = np.where(planted >= 0, 0.05 * rng.random(120), rng.integers(1, 41, 120) / 40)
    free = np.arange(120) % 6 != 0
    refused = (p_known <= 0.05) & free
    found, said = strangers_table(adata.obs_names, adata, p_known, refused, free, np.where(planted == 0, 2, 0))
    table = found["strangers"].set_index("cell")
    assert set(table.index) == set(adata.obs_names[refused])
    q = pd.Series(benjamini_hochberg(p_known[free]), adata.obs_names[free])
    np.testing.assert_allclose(table["q"], q[table.index], rtol=1e-12)
    np.testing.assert_array_equal(table["p_known"], pd.Series(p_known, adata.obs_names)[table.index])
    assert len(said) == len(found["groups"]) == 2
    assert "g4" in said[0]
    assert table["group"].value_counts().to_dict() == dict(found["groups"]["cells"])
    for _, own in table.groupby("group"):
        assert own["p_known"].is_monotonic_increasing

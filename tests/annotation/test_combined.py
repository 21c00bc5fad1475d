"""The recommended answer from states: exponents, whether hidden labels can be believed, shares with an interval."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata import AnnData
from scipy.special import softmax

from scanvi_tutorial.annotation.combined import answer_from_states, fit_exponents


def world(cells=800, shares=(0.4, 0.3, 0.3), distance=2.5, seed=0):
    """Return states of two views, total counts and types."""
    rng = np.random.default_rng(seed)
    types = rng.choice(3, size=cells, p=shares)
    z = distance * np.eye(3)[types] + rng.standard_normal((cells, 3))
    return [z + 0.3 * rng.standard_normal(z.shape) for _ in range(2)], rng.poisson(500, cells), types


def labeled(types, rows, totals=None):
    """Return cells with labels at some rows, and total counts."""
    codes = np.full(len(types), -1)
    codes[rows] = types[rows]
    names = [f"type {kind}" for kind in range(3)]
    obs = pd.DataFrame({"label": pd.Categorical.from_codes(codes, names)}, index=[f"c{i}" for i in range(len(types))])
    counts = np.ones(len(types)) if totals is None else totals
    return AnnData(scipy.sparse.csr_matrix(counts[:, None].astype(np.float32)), obs=obs), codes


def at_random(types, each=20, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.choice(np.flatnonzero(types == kind), each, replace=False) for kind in range(3)])


def test_labels_that_were_drawn_are_like_the_others_and_chosen_ones_are_not():
    """False alarms are rare, and the most typical and the deepest cells are noticed."""
    drawn, typical, deep = [], [], []
    for seed in range(12):
        (z, _), totals, types = world(seed=seed)
        own = z[np.arange(len(types)), types]  # how far a cell lies in the direction of its type

        def likeness(rows, z=z, totals=totals, types=types):
            return answer_from_states([z], None, labeled(types, rows, totals)[0]).likeness

        def best(of, types=types):
            return np.concatenate([np.flatnonzero(types == k)[np.argsort(of[types == k])[-20:]] for k in range(3)])

        drawn.append(likeness(at_random(types, seed=seed)).alike)
        typical.append(likeness(best(own)).alike)
        found = likeness(best(totals))
        deep.append(found.alike)
        assert found.depth > 0.9
    assert np.mean(drawn) > 0.9
    assert np.mean(typical) < 0.1
    assert np.mean(deep) < 0.1


def test_exponents_mend_claims_that_are_too_bold_and_leave_out_what_knows_nothing():
    """Labels are drawn from p; one table claims p³, the other p of other cells."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal((20_000, 4))
    p = softmax(logits, 1)
    codes = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    bold, useless = softmax(3 * logits, 1), rng.permutation(p)
    first, second = fit_exponents(np.stack([bold, useless]), codes)
    assert first == pytest.approx(1 / 3, rel=0.05)
    assert second < 0.03
    alone, none = fit_exponents(np.stack([bold, useless]), codes, alike=False)
    assert alone == pytest.approx(1 / 3, rel=0.05)
    assert none == 0


def test_hidden_labels_are_unknown_to_what_is_said_of_them():
    """With labels that are shuffled nothing can be found again but by chance."""
    states, _, types = world()
    rows = at_random(types, each=40)
    adata, codes = labeled(types, rows)
    shuffled = np.full(len(types), -1)
    shuffled[rows] = np.random.default_rng(1).permutation(types[rows])
    adata.obs["label"] = pd.Categorical.from_codes(shuffled, adata.obs["label"].cat.categories)
    answer = answer_from_states(states, None, adata)
    assert (answer.held_out.to_numpy().argmax(1) == answer.codes).mean() < 0.5
    honest, _ = labeled(types, rows)
    answer = answer_from_states(states, None, honest)
    hidden = (answer.held_out.to_numpy().argmax(1) == answer.codes).mean()
    free = codes < 0
    assert hidden == pytest.approx((answer.probabilities.to_numpy().argmax(1) == types)[free].mean(), abs=0.1)


def test_intervals_of_shares_hold_the_truth():
    held = []
    for seed in range(20):
        shares = np.array([0.6, 0.3, 0.1])
        states, _, types = world(cells=500, shares=shares, seed=seed)
        adata, _ = labeled(types, at_random(types, each=8, seed=seed))
        table = answer_from_states(states, None, adata, seed=seed).shares
        assert table["among_labels"].to_numpy() == pytest.approx(1 / 3)
        held.append(((table["low"] <= shares) & (shares <= table["high"])).to_numpy())
    assert np.mean(held) > 0.85


def test_one_label_a_type_gives_an_answer_that_was_not_tested():
    states, _, types = world(distance=4.0)
    adata, _ = labeled(types, at_random(types, each=1))
    answer = answer_from_states(states, None, adata)
    assert answer.held_out.empty
    assert (answer.probabilities.to_numpy().argmax(1) == types).mean() > 0.7


def test_few_labels_drawn_at_random_raise_no_alarm():
    alike = []
    for seed in range(15):
        states, totals, types = world(cells=150, distance=2.0, seed=seed)
        adata, _ = labeled(types, at_random(types, each=5, seed=seed), totals)
        alike.append(answer_from_states(states, None, adata).likeness.alike)
    assert np.mean(alike) > 0.9


def test_hidden_labels_do_not_blame_the_label_model_for_the_shares_that_it_knows():
    """As many labels a type, and types that are not: hidden labels are named as often each as there are of them."""
    found = []
    for seed in range(5):
        z, totals, types = world(1_500, (0.8, 0.15, 0.05), 1.2, seed)
        answer = answer_from_states(z, None, labeled(types, at_random(types, 30, seed), totals)[0])
        found.append(answer.held_out.mean())
    np.testing.assert_allclose(np.mean(found, axis=0), 1 / 3, atol=0.05)

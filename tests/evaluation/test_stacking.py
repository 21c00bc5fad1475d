"""Stacking and calibration, against cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import minimize

from scanvi_tutorial.evaluation import cross_fit, fit_temperature, stack, stacking_weights, tempered
from scanvi_tutorial.inputs import InputError


def draw(cells=4_000, labels=3, sharpness=1.5):
    """Return probabilities that are exactly right, and labels drawn from them."""
    rng = np.random.default_rng(1)
    logits = sharpness * rng.standard_normal((cells, labels))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, np.array([rng.choice(labels, p=row) for row in p])


def cells(codes, names=("B", "NK", "T")):
    """Return an AnnData whose label column holds `codes`, -1 for none."""
    obs = pd.DataFrame({"label": pd.Categorical.from_codes(codes, list(names))})
    obs.index = [f"cell{i}" for i in range(len(codes))]
    return AnnData(np.ones((len(codes), 4), dtype=np.float32), obs=obs)


def echo(adata, *, labels_key="label", seed=0):
    """A method that knows the label it is shown, and says equal probabilities otherwise."""
    names = list(adata.obs[labels_key].cat.categories)
    codes = adata.obs[labels_key].cat.codes.to_numpy()
    table = np.full((adata.n_obs, len(names)), 1 / len(names))
    table[codes >= 0] = np.eye(len(names))[codes[codes >= 0]]
    return pd.DataFrame(table, adata.obs_names, names)


def test_honest_probabilities_get_a_temperature_of_one():
    assert fit_temperature(*draw()) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_the_temperature_undoes_what_was_done_to_the_logits(factor):
    p, codes = draw()
    assert fit_temperature(tempered(p, 1 / factor), codes, scale=10) == pytest.approx(factor, rel=0.06)


def test_few_seeds_move_the_temperature_less_than_many():
    p, codes = draw()
    sharp = tempered(p, 0.5)
    few, many = fit_temperature(sharp[:20], codes[:20]), fit_temperature(sharp, codes)
    assert 1 < few < many
    assert fit_temperature(sharp[:20], codes[:20], scale=0.01) == pytest.approx(1, abs=0.01)


def test_tempering_leaves_the_order_and_one_hot_rows_alone():
    p, _ = draw(50)
    assert (tempered(p, 3.0).argmax(1) == p.argmax(1)).all()
    np.testing.assert_allclose(tempered(np.eye(3), 1.7), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(tempered(p, 2.0).sum(1), 1)


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # older SciPy, on its way
def test_weights_are_those_of_a_general_optimizer():
    p, codes = draw(300)
    parts = np.stack([p, tempered(p, 0.3), np.full_like(p, 1 / 3), np.roll(p, 1, axis=1)])

    def cost(weights):
        return -np.log(np.tensordot(weights, parts, 1)[np.arange(len(codes)), codes]).sum()

    whole = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    best = minimize(cost, np.full(4, 0.25), bounds=[(1e-9, 1)] * 4, constraints=whole, method="SLSQP")
    ours = stacking_weights(parts, codes)
    assert cost(ours) == pytest.approx(best.fun, abs=0.01)
    assert ours.sum() == pytest.approx(1)


def test_no_seed_is_judged_by_a_fit_that_saw_its_label():
    adata = cells(np.array([0] * 10 + [1] * 7 + [2] * 5 + [-1] * 8))
    held_out = cross_fit(echo, adata).held_out
    assert list(held_out.index) == [f"cell{i}" for i in range(22)]
    np.testing.assert_allclose(held_out, 1 / 3)


def test_every_fit_but_one_knows_a_seed_and_the_mean_says_so():
    adata = cells(np.array([0, 1, 2] * 5))
    part = cross_fit(echo, adata)
    assert len(part.fits) == 5
    own = part.probabilities.to_numpy()[np.arange(15), adata.obs["label"].cat.codes]
    np.testing.assert_allclose(own, (4 + 1 / 3) / 5)


def test_a_single_seed_is_never_hidden_and_a_type_never_lost():
    adata = cells(np.array([0, 1, 1, 1, 2, 2]))
    part = cross_fit(lambda a, **k: echo(a, **k) if a.obs["label"].cat.codes.max() == 2 else 1 / 0, adata)
    assert "cell0" not in part.held_out.index
    assert len(part.held_out) == 5


def test_the_given_cells_are_left_as_they_were():
    adata = cells(np.array([0, 1, 2, -1] * 4))
    before = adata.obs["label"].copy()
    stack({"echo": echo}, adata)
    pd.testing.assert_series_equal(adata.obs["label"], before)


def test_the_stack_weighs_by_what_methods_say_of_seeds_they_did_not_know():
    """Echo is perfect on what it is shown; hidden seeds expose it beside a method that knows a little."""
    codes = np.array([0, 1, 2] * 20)
    truth = pd.DataFrame(0.1 + 0.7 * np.eye(3)[codes], columns=["B", "NK", "T"], index=[f"cell{i}" for i in range(60)])
    answer = stack({"echo": echo, "modest": lambda a, **k: truth}, cells(codes))
    assert answer.weights["modest"] > 0.95
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1)


def test_a_stack_may_answer_with_fits_to_all_seeds():
    """Echo knows what it is shown, so only a fit to all seeds is sure of all of them."""
    adata = cells(np.array([0, 1, 2] * 5))
    folds, whole = (
        stack({"echo": echo}, adata, refit=refit).probabilities.to_numpy().max(1) for refit in (False, True)
    )
    assert (whole > 0.99).all()
    assert (folds < 0.99).all()


def test_every_fit_has_a_seed_of_its_own():
    asked = []
    for seed in (0, 1):
        cross_fit(lambda a, seed, **k: asked.append(seed) or echo(a, **k), cells(np.array([0, 1, 2] * 5)), seed=seed)
    assert len(set(asked)) == 10


@pytest.mark.filterwarnings("ignore:Observation names")
def test_cells_of_one_name_are_told_apart():
    adata = cells(np.array([0, 1, 2, -1] * 5))
    adata.obs_names = ["cell"] * adata.n_obs
    assert stack({"echo": echo}, adata).probabilities.shape == (20, 3)


def test_an_answer_without_all_cells_or_labels_is_refused():
    adata = cells(np.array([0, 1, 2, 0, 1, 2]))
    for spoil in (lambda table: table.iloc[::-1], lambda table: table[["B", "T"]]):
        with pytest.raises(InputError, match="one row for each cell"):
            cross_fit(lambda a, spoil=spoil, **k: spoil(echo(a, **k)), adata)


def test_nothing_to_hide_is_refused():
    with pytest.raises(InputError, match="two seed cells"):
        cross_fit(echo, cells(np.array([0, 1, 2, -1, -1])))

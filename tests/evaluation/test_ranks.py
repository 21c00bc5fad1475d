"""Ranks of the truth among draws: uniform where the posterior is exact, and telling where it is not."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from scanvi_tutorial.evaluation.ranks import allowed_deviation, ecdf_difference, rank_among, rank_uniformity
from scanvi_tutorial.inputs import InputError

CELLS, DRAWS = 4_000, 99


def conjugate(*, scale=1.0, shift=0.0, quantities=2, seed=0):
    """Return ranks for a normal mean with a normal prior, whose posterior is known: mean x/2, variance 1/2."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(CELLS, quantities))
    x = truth + rng.normal(size=truth.shape)
    draws = x / 2 + shift + scale * np.sqrt(0.5) * rng.normal(size=(DRAWS, *truth.shape))
    return pd.DataFrame(rank_among(truth, draws), columns=["a", "b"][:quantities])


def test_ranks_of_a_known_posterior_are_uniform():
    ranks = conjugate()
    for name in ranks:
        counts = np.bincount(ranks[name], minlength=DRAWS + 1)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    table = rank_uniformity(ranks, DRAWS)
    assert (table["deviation"] < table["allowed"]).all()
    np.testing.assert_allclose(table["spread"], 1, atol=0.05)
    np.testing.assert_allclose(table["shift"], 0, atol=0.02)


@pytest.mark.parametrize(
    ("wrong", "column", "sign"),
    [({"scale": 0.5}, "spread", 1), ({"scale": 2.0}, "spread", -1), ({"shift": -0.3}, "shift", 1)],
    ids=["too narrow", "too wide", "too low"],
)
def test_a_wrong_posterior_is_found_out_and_the_table_says_how(wrong, column, sign):
    table = rank_uniformity(conjugate(**wrong), DRAWS)
    assert (table["deviation"] > table["allowed"]).all()
    neutral = 1 if column == "spread" else 0
    assert (sign * (table[column] - neutral) > 0.1).all()


def test_ecdf_difference_agrees_with_counting_by_hand():
    ranks = pd.DataFrame({"a": [0, 0, 1, 3]})
    np.testing.assert_allclose(ecdf_difference(ranks, 3)["a"], [2 / 4 - 1 / 4, 3 / 4 - 2 / 4, 3 / 4 - 3 / 4, 0])


def test_uniform_ranks_stay_within_what_is_allowed_as_often_as_said():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        table = rank_uniformity(pd.DataFrame(rng.integers(DRAWS + 1, size=(200, 3))), DRAWS)
        inside.append((table["deviation"] < table["allowed"]).all())
    assert 0.93 < np.mean(inside) <= 1


def test_more_cells_allow_less_and_more_quantities_more():
    assert allowed_deviation(4_000) == pytest.approx(allowed_deviation(1_000) / 2, rel=0.02)
    assert allowed_deviation(1_000, 11) > allowed_deviation(1_000)


@pytest.mark.parametrize("values", [[0, 5], [-1, 2], []])
def test_ranks_beyond_the_number_of_draws_are_refused(values):
    with pytest.raises(InputError, match="number of draws"):
        rank_uniformity(pd.DataFrame({"a": np.array(values, dtype=int)}), 4)

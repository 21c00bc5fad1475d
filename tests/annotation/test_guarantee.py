"""Sets of names and p-values: by hand, as often right as asked on types of known difficulty, and as theory says."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta, binomtest

from scanvi_tutorial.annotation.guarantee import Calibration, covered, least_labels, promise

TYPES = ["easy", "middling", "hard"]
NOISE = np.array([0.5, 1.0, 2.0])  # of the types, the hard one last


def said(codes, rng):
    """Return probabilities (cells, 3) of cells whose types are known; some types are harder to tell."""
    return softmax(2 * np.eye(3)[codes] + NOISE[codes, None] * rng.standard_normal((len(codes), 3)), axis=1)


def drawn(each, rng):
    """Return what was said of so many labels of each type while they were hidden."""
    codes = np.repeat(np.arange(3), each)
    return Calibration(said(codes, rng), codes, rng.random(len(codes)))


def by_hand(calibration, probabilities, bins=(0, 1, 2)):
    """Return the p-values, one after another; types of one bin are calibrated together."""
    own = [row[code] for row, code in zip(calibration.probabilities, calibration.codes, strict=True)]
    p = np.empty(probabilities.shape)
    for cell, row in enumerate(probabilities):
        for kind, probability in enumerate(row):
            labels = [q for q, code in zip(own, calibration.codes, strict=True) if bins[code] == bins[kind]]
            p[cell, kind] = (1 + sum(q <= probability for q in labels)) / (len(labels) + 1)
    return p


def test_a_p_value_counts_the_labels_of_the_type_that_were_no_more_probable():
    rng = np.random.default_rng(0)
    calibration, new = drawn((12, 20, 9), rng), said(rng.integers(3, size=50), rng)
    np.testing.assert_allclose(calibration.p_values(new, 0.9), by_hand(calibration, new), rtol=1e-12)


def test_labels_that_are_as_probable_as_the_cell_count_in_its_favor():
    calibration = Calibration(np.tile([0.75, 0.25], (9, 1)), np.zeros(9, dtype=int), np.zeros(9))
    p = calibration.p_values(np.array([[0.75, 0.25], [0.5, 0.5]]), 0.9)
    np.testing.assert_allclose(p[:, 0], [1, 0.1])


@pytest.mark.parametrize(("each", "coverage"), [(10, 0.8), (40, 0.8), (10, 0.9), (40, 0.95)])
def test_sets_hold_the_truth_of_every_type_as_often_as_asked_and_p_values_as_often_as_theory_says(each, coverage):
    """With n labels of a type a p-value is k/(n + 1) with equal chances, so it is above α in 1 − ⌊α(n + 1)⌋/(n + 1)."""
    held, passed = [], []
    truth = np.repeat(np.arange(3), 100)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        calibration, new = drawn(each, rng), said(truth, rng)
        p, sets = calibration.p_values(new, coverage), calibration.sets(new, coverage)
        own = np.arange(300), truth
        held.append(sets[own].reshape(3, 100).mean(1))
        passed.append((p[own] > 1 - coverage + 1e-9).reshape(3, 100).mean(1))
    promised = each >= 1 / (1 - coverage) - 1 - 1e-9
    expected = 1 - np.floor((1 - coverage) * (each + 1) + 1e-9) / (each + 1)
    if promised:
        assert (np.mean(held, axis=0) > coverage - 0.01).all()
        np.testing.assert_allclose(np.mean(passed, axis=0), expected, atol=0.025)
    else:
        assert expected == 1


@pytest.mark.parametrize(("coverage", "least"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.87, 7)])
def test_a_type_can_be_left_out_of_a_set_from_as_many_labels_on_as_are_needed(coverage, least):
    """A cell that is less probable than every label is left out with `least` labels, and held with one less."""
    assert least_labels(coverage) == least
    for labels, left_out in ((least, True), (least - 1, False)):
        codes = np.repeat([0, 1], [labels, least])
        calibration = Calibration(np.where(np.eye(2)[codes] > 0, 0.9, 0.1), codes, np.zeros(len(codes)))
        p = by_hand(calibration, np.array([[0.01, 0.99]]))[0, 0]
        assert (p <= 1 - coverage + 1e-9) == left_out
        if left_out:
            assert calibration.sets(np.array([[0.01, 0.99]]), coverage).tolist() == [[False, True]]


def test_types_with_few_labels_are_calibrated_together():
    rng = np.random.default_rng(1)
    calibration, new = drawn((5, 30, 6), rng), said(rng.integers(3, size=40), rng)
    bins = calibration.categories(0.9)
    assert bins[0] == bins[2] != bins[1]
    np.testing.assert_allclose(calibration.p_values(new, 0.9), by_hand(calibration, new, bins), rtol=1e-12)
    text = promise(calibration, TYPES, 0.9, alike=True)
    assert "easy, hard taken together" in text
    assert "of each of 1 types" in text
    assert calibration.found(TYPES, 0.9)["promised"].tolist() == [False, True, False]


def test_types_that_are_too_few_even_together_are_calibrated_with_all_others():
    rng = np.random.default_rng(2)
    calibration, new = drawn((3, 30, 4), rng), said(rng.integers(3, size=40), rng)
    assert len(set(calibration.categories(0.9))) == 1
    np.testing.assert_allclose(calibration.p_values(new, 0.9), by_hand(calibration, new, (0, 0, 0)), rtol=1e-12)
    text = promise(calibration, TYPES, 0.9, alike=True)
    assert all(name in text for name in TYPES)
    assert not calibration.found(TYPES, 0.9)["promised"].any()


def test_where_all_labels_are_too_few_every_set_holds_every_name_and_that_is_said():
    rng = np.random.default_rng(3)
    calibration = drawn((2, 3, 3), rng)
    assert calibration.sets(said(rng.integers(3, size=40), rng), 0.9).all()
    assert "every set holds every name" in promise(calibration, TYPES, 0.9, alike=True)


def test_with_labels_enough_of_every_type_the_promise_is_for_each_and_not_if_labels_are_chosen():
    calibration = drawn(20, np.random.default_rng(4))
    assert calibration.found(TYPES, 0.9)["promised"].all()
    assert "of each type" in promise(calibration, TYPES, 0.9, alike=True)
    assert "nothing is promised" not in promise(calibration, TYPES, 0.9, alike=True)
    assert "nothing is promised" in promise(calibration, TYPES, 0.9, alike=False)


def test_a_set_always_holds_the_most_probable_type():
    """Also where its p-value is small: here labels of the first two types were far surer than any new cell."""
    codes = np.repeat(np.arange(3), 50)
    calibration = Calibration(np.where(np.eye(3)[codes] > 0, 0.98, 0.01), codes, np.zeros(150))
    new = np.random.default_rng(5).dirichlet(np.full(3, 5.0), size=60)
    new = new[new.max(1) < 0.9]
    assert (calibration.p_values(new, 0.9) < 0.1).all()
    np.testing.assert_array_equal(calibration.sets(new, 0.9), np.eye(3, dtype=bool)[new.argmax(1)])


def test_a_higher_coverage_makes_no_set_smaller():
    rng = np.random.default_rng(6)
    calibration, new = drawn(100, rng), said(rng.integers(3, size=200), rng)
    sizes = [calibration.sets(new, coverage).sum(1) for coverage in (0.6, 0.8, 0.9, 0.98)]
    assert all((large >= small).all() for small, large in pairwise(sizes))
    assert sizes[-1].mean() > sizes[0].mean() + 0.5


def test_p_known_counts_the_labels_that_looked_as_strange():
    rng = np.random.default_rng(7)
    strange, new = rng.integers(10, size=25) / 10, rng.integers(12, size=30) / 10
    found = Calibration(np.full((25, 2), 0.5), np.zeros(25, dtype=int), strange).p_known(new)
    expected = [(1 + sum(one >= cell for one in strange)) / 26 for cell in new]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_p_known_is_uniform_for_known_cells_and_small_for_strange_ones():
    found, strange = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        calibration = Calibration(np.full((39, 2), 0.5), np.zeros(39, dtype=int), rng.standard_normal(39))
        found.append(calibration.p_known(rng.standard_normal(100)))
        strange.append(calibration.p_known(rng.standard_normal(20) + 5))
    for level in (0.05, 0.1, 0.25, 0.5, 0.9):
        assert np.mean(np.array(found) <= level + 1e-9) == pytest.approx(level, abs=0.02)
    assert np.mean(strange) < 0.03


def test_what_is_said_of_labels_is_said_without_them():
    calibration = drawn((15, 25, 20), np.random.default_rng(8))
    expected = []
    for row, code in enumerate(calibration.codes):
        others = calibration.without(np.arange(60) == row)
        assert len(others.codes) == 59
        p = by_hand(others, calibration.probabilities[[row]])[0]
        own = p > 0.2 + 1e-9
        own[calibration.probabilities[row].argmax()] = True
        expected.append(own)
        assert code == calibration.codes[row]
    np.testing.assert_array_equal(calibration.of_hidden(0.8), expected)
    found = calibration.found(TYPES, 0.8)
    expected = np.array(expected)
    for kind, name in enumerate(TYPES):
        rows = calibration.codes == kind
        assert found.loc[name, "labels"] == rows.sum()
        assert np.isnan(found.loc[name, "coverage"])  # each is calibrated by itself, which fixes how many are held
        assert found.loc[name, "size"] == pytest.approx(expected[rows].sum(1).mean())


def without_itself(calibration, coverage):
    """Return the sets of the labels, each held against the others by hand, types taken together as with all labels."""
    bins = calibration.categories(coverage)
    sets = []
    for row in range(len(calibration.codes)):
        p = by_hand(
            calibration.without(np.arange(len(calibration.codes)) == row), calibration.probabilities[[row]], bins
        )
        sets.append(p[0] > 1 - coverage + 1e-9)
        sets[-1][calibration.probabilities[row].argmax()] = True
    return np.array(sets)


def test_of_types_taken_together_it_is_said_how_often_sets_held_each():
    calibration = drawn((6, 30, 7), np.random.default_rng(0))
    sets, found = calibration.of_hidden(0.9), calibration.found(TYPES, 0.9)
    for kind in (0, 2):
        held = sets[calibration.codes == kind, kind]
        reach = binomtest(int(held.sum()), len(held)).proportion_ci()
        assert found.loc[TYPES[kind], ["coverage", "low", "high"]].tolist() == [held.mean(), reach.low, reach.high]
    assert found["promised"].tolist() == [False, True, False]


def test_few_labels_of_one_type_leave_the_others_their_own_calibration():
    """Three labels are too few for nine, so the type with the next fewest joins them."""
    calibration = drawn((3, 40, 12), np.random.default_rng(0))
    assert calibration.categories(0.9).tolist() == [0, 1, 0]


def test_labels_of_types_taken_together_are_held_against_the_others_too():
    """A label of one of these counts in the p-value of another of them only where it was no more probable."""
    for seed in range(5):
        calibration = drawn((6, 30, 7), np.random.default_rng(seed))
        np.testing.assert_array_equal(calibration.of_hidden(0.9), without_itself(calibration, 0.9))


def test_a_batch_whose_probabilities_are_worse_is_noticed():
    rng = np.random.default_rng(9)
    codes = np.tile(np.arange(3), 60)
    batches = np.repeat(np.array(["one", "two", "bad"], dtype=object), 60)
    seen = np.where(batches == "bad", rng.permutation(codes), codes)  # of a bad batch another type is seen
    calibration = Calibration(said(seen, rng), codes, np.zeros(180))
    found = calibration.found_in_batches(batches, 0.8)
    assert found["labels"].tolist() == [60, 60, 60]
    assert found.loc["bad", "high"] < 0.8
    assert (found.loc[["one", "two"], "coverage"] > 0.8).all()
    rest = calibration.without(batches == "bad")
    sets = rest.sets(calibration.probabilities[batches == "bad"], 0.8)
    assert found.loc["bad", "coverage"] == pytest.approx(sets[np.arange(60), codes[batches == "bad"]].mean())


@pytest.mark.parametrize(("held", "cells"), [(0, 7), (7, 7), (3, 10), (86, 100)])
def test_intervals_are_those_of_clopper_and_pearson(held, cells):
    found = covered(np.arange(cells) < held)
    low = beta.ppf(0.025, held, cells - held + 1) if held else 0
    high = beta.ppf(0.975, held + 1, cells - held) if held < cells else 1
    assert found == pytest.approx({"labels": cells, "coverage": held / cells, "low": low, "high": high})


def test_where_no_label_could_be_hidden_nothing_is_left_out_and_every_cell_is_known():
    nothing = Calibration(np.empty((0, 3)), np.empty(0, dtype=int), np.empty(0))
    new = said(np.arange(3), np.random.default_rng(10))
    np.testing.assert_array_equal(nothing.p_values(new, 0.9), np.ones((3, 3)))
    assert nothing.sets(new, 0.9).all()
    np.testing.assert_array_equal(nothing.p_known(np.array([0.1, 0.99])), [1, 1])
    assert nothing.of_hidden(0.9).shape == (0, 3)
    found = nothing.found(TYPES, 0.9)
    assert found["labels"].tolist() == [0, 0, 0]
    assert found["coverage"].isna().all()
    assert not found["promised"].any()
    assert "0 hidden labels are too few" in promise(nothing, TYPES, 0.9, alike=True)

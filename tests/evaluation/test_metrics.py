"""Metrics, held against hand calculation, closed forms, simulation and scikit-learn's own."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from three_types import TYPES, table

from scanvi_tutorial.evaluation import (
    accuracy,
    calibration_error_by_chance,
    confusion,
    largest_class_rate,
    largest_class_scores,
    per_class,
    reliability,
    scores,
)
from scanvi_tutorial.inputs import InputError


def calibrated(cells, labels=4, seed=0, *, boast=0.0):
    """Return truth and probabilities (cells, labels) that are right exactly as often as they say, or `boast` less."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(labels, 0.25), cells)
    p = p[p.max(1) > 0.5 + boast]
    rows, top = np.arange(len(p)), p.argmax(1)
    honest = p.copy()
    honest[rows, top] -= boast
    honest[rows, (top + 1) % labels] += boast
    truth = (rng.random((len(p), 1)) > honest.cumsum(1)).sum(1).clip(max=labels - 1)
    names = np.array([f"type {t}" for t in range(labels)])
    return names[truth], pd.DataFrame(p, columns=names)


# One number for all cells


def test_accuracy_of_a_table_takes_the_most_probable_type():
    p = table([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    assert accuracy(pd.Categorical(["T", "B"]), p) == 0.5


def test_who_knows_only_the_shares_of_the_types_pays_their_entropy():
    truth = pd.Series(["B"] * 6 + ["T"] * 3 + ["NK"])
    shares = np.array([0.6, 0.3, 0.1])
    got = largest_class_scores(truth)
    assert got["accuracy"] == pytest.approx(largest_class_rate(truth)) == pytest.approx(0.6)
    assert got["balanced_accuracy"] == pytest.approx(1 / 3)
    assert got["log_loss"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert got["brier"] == pytest.approx(1 - (shares**2).sum())
    assert got["calibration_error"] == pytest.approx(0)


def test_one_true_type_leaves_nothing_to_mistake():
    with pytest.raises(InputError, match="All true types are 'B'"):
        largest_class_scores(["B", "B"])


def test_scores_agree_with_hand_calculation():
    truth = pd.Series(["T", "T", "T", "B"])
    p = table([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    got = scores(truth, p)
    assert got["accuracy"] == pytest.approx(3 / 4)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)  # NK occurs in no cell and so doesn't count
    assert got["macro_f1"] == pytest.approx((2 * 2 / (2 * 2 + 1) + 1) / 2)  # 2 TP / (2 TP + FP + FN), T then B
    assert got["log_loss"] == pytest.approx(-np.log([0.5, 0.8, 0.1, 0.5]).mean())
    assert got["brier"] == pytest.approx((0.375 + 0.06 + 1.34 + 0.38) / 4)
    # two cells say 0.5 and are right, one says 0.8 and is right, one 0.7 and is wrong
    assert got["calibration_error"] == pytest.approx((2 * 0.5 + 0.2 + 0.7) / 4)


def test_equal_probabilities_lose_log_labels():
    assert scores(["B", "NK", "T"], table(np.full((3, 3), 1 / 3)))["log_loss"] == pytest.approx(np.log(3))


def test_order_of_columns_does_not_matter():
    rng = np.random.default_rng(1)
    p = table(rng.dirichlet(np.ones(3), 50))
    truth = rng.choice(TYPES, 50)
    pd.testing.assert_series_equal(scores(truth, p), scores(truth, p[["NK", "T", "B"]]))


def test_float32_probabilities_are_not_refused():
    p = table(np.random.default_rng(2).dirichlet(np.ones(3), 40).astype(np.float32))
    assert np.isfinite(scores(np.array(TYPES)[np.arange(40) % 3], p)).all()


def test_certainty_is_perfect_where_right_and_worst_where_wrong():
    sure = table(np.eye(3))
    right, wrong = scores(TYPES, sure), scores([TYPES[1], TYPES[2], TYPES[0]], sure)
    np.testing.assert_allclose(right, [1, 1, 1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(wrong, [0, 0, 0, 52 * np.log(2), 2, 1])  # scikit-learn counts a 0 as 2⁻⁵²


def test_brier_of_two_types_is_twice_the_usual():
    q = np.random.default_rng(3).random(60)
    truth = np.random.default_rng(4).random(60) < q
    p = pd.DataFrame({"no": 1 - q, "yes": q})
    usual = brier_score_loss(truth, q)
    assert scores(np.where(truth, "yes", "no"), p)["brier"] == pytest.approx(2 * usual)


# Calibration


def test_a_calibrated_method_errs_by_chance_only():
    few = np.mean([scores(*calibrated(1_000, seed=seed))["calibration_error"] for seed in range(12)])
    many = scores(*calibrated(100_000))["calibration_error"]
    assert 0.015 < few < 0.045  # of the size that the docstring tells for 700 cells
    assert many < 0.006


@pytest.mark.parametrize("boast", [0.1, 0.25])
def test_calibration_error_is_how_much_a_method_boasts(boast):
    truth, p = calibrated(60_000, boast=boast)
    assert scores(truth, p)["calibration_error"] == pytest.approx(boast, abs=0.01)


def test_reliability_agrees_with_scikit_learn():
    truth, p = calibrated(400, boast=0.1)
    got = reliability(truth, p)
    accurate, confident = calibration_curve(p.idxmax(axis=1) == truth, p.max(axis=1), n_bins=10)
    seen = got[got["cells"] > 0]
    np.testing.assert_allclose(seen["accuracy"], accurate)
    np.testing.assert_allclose(seen["confidence"], confident)
    assert got["cells"].sum() == len(p)
    assert len(got) == 10


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    p = pd.DataFrame([[0.3, 0.3, 0.2, 0.2], [0.6, 0.4, 0, 0], [1, 0, 0, 0]], columns=list("ABCD"))
    got = reliability(["A", "A", "A"], p)
    assert [str(place) for place in got.index[got["cells"] > 0]] == ["(0.2, 0.3]", "(0.5, 0.6]", "(0.9, 1.0]"]
    assert got["accuracy"].isna().sum() == 7  # a bin without cells says nothing


# By type


def test_per_class_agrees_with_hand_calculation():
    #        called     T  T  B  T  B
    p = table(np.eye(3)[[0, 0, 1, 0, 1]])
    got = per_class(["T", "B", "B", "T", "T"], p)
    want = pd.DataFrame(
        {
            "precision": [2 / 3, 1 / 2, np.nan],  # nothing was called NK
            "recall": [2 / 3, 1 / 2, np.nan],  # and nothing is
            "f1": [2 / 3, 1 / 2, np.nan],
            "cells": [3, 2, 0],
        },
        index=TYPES,
    )
    pd.testing.assert_frame_equal(got, want, check_names=False)


def test_a_type_that_is_never_called_has_no_precision_and_no_f1():
    got = per_class(["T", "B"], table(np.eye(3)[[0, 0]])).loc["B"]
    assert np.isnan(got["precision"])
    assert got[["recall", "f1"]].tolist() == [0, 0]


def test_macro_scores_are_means_over_the_true_types():
    truth, p = calibrated(200)
    each = per_class(truth, p)
    got = scores(truth, p)
    assert got["balanced_accuracy"] == pytest.approx(each["recall"].mean())
    assert got["macro_f1"] == pytest.approx(each["f1"].mean())


def test_confusion_counts_truth_in_rows_and_keeps_the_order_of_categories():
    truth = pd.Series(pd.Categorical(["T", "T", "B", "NK", "NK"], categories=TYPES))
    got = confusion(truth, ["T", "B", "B", "NK", "T"])
    want = pd.DataFrame([[1, 1, 0], [0, 1, 0], [1, 0, 1]], index=TYPES, columns=TYPES)
    pd.testing.assert_frame_equal(got, want, check_names=False)
    assert np.trace(got) / got.to_numpy().sum() == accuracy(truth, ["T", "B", "B", "NK", "T"])


# Bad input


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match=r"2 cells and the prediction 3.*scored_cells\(adata\)"):
        accuracy(["B", "T"], ["B", "T", "T"])


def test_missing_types_are_refused():
    with pytest.raises(InputError, match="1 of 2 cells have no type in the truth"):
        accuracy(["B", None], ["B", "T"])
    with pytest.raises(InputError, match="at least one cell"):
        largest_class_rate([])


def test_rows_that_do_not_sum_to_one_are_refused():
    with pytest.raises(InputError, match=r"'cell1' sums to 1\.2.*label_probabilities"):
        scores(["B", "T"], table([[0.5, 0.25, 0.25], [0.9, 0.2, 0.1]]))
    with pytest.raises(InputError, match="'cell0' sums to nan"):
        scores(["B", "T"], table([[np.nan, 0.25, 0.25], [0.9, 0.0, 0.1]]))


def test_a_negative_probability_is_refused_and_its_cell_is_named():
    with pytest.raises(InputError, match=r"'cell1' holds -0\.2"):
        scores(["B", "T"], table([[0.5, 0.25, 0.25], [-0.2, 0.6, 0.6]]))


def test_a_true_type_without_a_column_is_refused():
    with pytest.raises(InputError, match=r"no column of probabilities: ILC\. The columns are T, B, NK"):
        scores(["B", "ILC"], table(np.full((2, 3), 1 / 3)))


@pytest.mark.parametrize("measure", [reliability, per_class])
def test_tables_refuse_what_scores_refuse(measure):
    with pytest.raises(InputError, match="sums to 1\\.2"):
        measure(["B"], table([[0.9, 0.2, 0.1]]))
    with pytest.raises(InputError, match="no column of probabilities: ILC"):
        measure(["ILC"], table([[0.7, 0.2, 0.1]]))


def test_calibration_error_by_chance_falls_with_the_square_root_of_the_cells():
    """The error of k cells in one bin is |mean of k coins − p|, whose mean is √(2 p (1 − p) / (π k))."""
    p = 0.75
    for cells in (100, 1_600):
        stated = pd.DataFrame({"A": np.full(cells, p), "B": np.full(cells, 1 - p)})
        found = calibration_error_by_chance(stated, draws=400).mean()
        assert found == pytest.approx(np.sqrt(2 * p * (1 - p) / (np.pi * cells)), rel=0.15)

"""Who is scored, and how methods are compared on the same draws."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from three_types import TYPES

from scanvi_tutorial.evaluation import (
    METRICS,
    accuracy,
    confusion,
    interval,
    label_spreading,
    largest_class_rate,
    logistic_regression,
    score_table,
    scored_cells,
    scores,
    summary,
)
from scanvi_tutorial.inputs import InputError

# Which cells are scored


def test_seeds_are_not_scored(cells):
    assert (scored_cells(cells) == (cells.obs["label"] == "Unknown")).all()
    right_on_seeds_only = np.where(scored_cells(cells), "B", cells.obs["truth"])
    p = pd.get_dummies(pd.Categorical(right_on_seeds_only, categories=TYPES), dtype=float).set_index(cells.obs_names)
    assert scores(cells, p)["accuracy"] == pytest.approx(25 / 75)  # 0.44 with the seeds


def test_cells_of_unknown_truth_are_not_scored(cells):
    always_t = pd.DataFrame({name: float(name == "T") for name in TYPES}, index=cells.obs_names)
    assert scores(cells, always_t)["accuracy"] == pytest.approx(1 / 3)
    cells.obs.loc[cells.obs["truth"] != "T", "truth"] = np.nan
    assert scores(cells, always_t)["accuracy"] == 1


@pytest.mark.parametrize("nothing", ["Unknown", "", "-1"])
def test_cells_whose_truth_says_unknown_are_not_scored(cells, nothing):
    always_t = pd.DataFrame({name: float(name == "T") for name in TYPES}, index=cells.obs_names)
    cells.obs["truth"] = cells.obs["truth"].cat.rename_categories({"B": nothing})
    assert scores(cells, always_t)["accuracy"] == 1 / 2  # T and NK are left


@pytest.mark.parametrize("dtype", [int, float, "category"])
def test_types_may_be_numbers(cells, dtype):
    number = {"T": 10, "B": 2, "NK": 3, "Unknown": -1}
    want = scores(cells, logistic_regression(cells))
    cells.obs["label"] = cells.obs["label"].astype(object).map(number)
    cells.obs["truth"] = cells.obs["truth"].astype(object).map(number).astype(float).astype(dtype)
    p = logistic_regression(cells)
    np.testing.assert_allclose(scores(cells, p), want, rtol=1e-3)
    np.testing.assert_allclose(scores(cells, p.rename(columns=float)), want, rtol=1e-3)
    table = confusion(cells.obs["truth"], p)
    assert set(table.index) == {"2", "3", "10"}
    assert np.trace(table) > 0.95 * 90


def test_evaluate_reads_what_the_model_stored(cells):
    cells.obsm["scanvi_probabilities"] = logistic_regression(cells)
    pd.testing.assert_series_equal(scores(cells), scores(cells, logistic_regression(cells)))


# Comparisons


def draw_of(cells):
    def draw(seed):
        rng = np.random.default_rng(seed)
        label = np.full(cells.n_obs, "Unknown", dtype=object)
        for name in cells.obs["truth"].unique():
            label[rng.choice(np.flatnonzero(cells.obs["truth"] == name), 4, replace=False)] = name
        drawn = cells.copy()
        drawn.obs["label"] = pd.Categorical(label, categories=[*TYPES, "Unknown"])
        return drawn

    return draw


def test_methods_share_each_draw_and_its_seed(cells):
    seen = {"one": [], "other": []}

    def spy(name):
        def method(adata, *, labels_key="label", seed=0):
            seen[name].append((seed, tuple(adata.obs[labels_key])))
            return logistic_regression(adata, labels_key=labels_key)

        return method

    got = score_table({name: spy(name) for name in seen}, draw_of(cells), [3, 8])
    assert seen["one"] == seen["other"]
    assert [seed for seed, _ in seen["one"]] == [3, 8]
    assert seen["one"][0][1] != seen["one"][1][1]
    assert list(zip(got["seed"], got["method"], strict=True)) == [(3, "one"), (3, "other"), (8, "one"), (8, "other")]


def test_score_table_holds_every_metric_of_every_draw(cells):
    draw, methods = draw_of(cells), {"LR": logistic_regression, "spreading": label_spreading}
    got = score_table(methods, draw, [3, 8])
    assert list(got.columns) == ["method", "seed", *METRICS]
    assert list(zip(got["method"], got["seed"], strict=True)) == [(name, seed) for seed in (3, 8) for name in methods]
    want = scores(draw(8), label_spreading(draw(8), seed=8))
    pd.testing.assert_series_equal(got.loc[3, list(METRICS)].astype(float), want, check_names=False)


def test_each_method_runs_once_a_draw(cells):
    runs = []

    def method(adata, *, labels_key="label", seed=0):
        runs.append(seed)
        return logistic_regression(adata, labels_key=labels_key)

    score_table({"LR": method}, draw_of(cells), iter([5, 6, 5]))
    assert runs == [5, 6]


def test_the_reference_knows_the_shares_of_the_cells_that_are_scored(cells):
    draw = draw_of(cells[:50])  # 30 T and 20 B, of which 26 and 16 are no seeds
    got = score_table({}, draw, range(2), reference="largest class")
    assert list(got["method"]) == ["largest class"] * 2
    np.testing.assert_allclose(got["accuracy"], 26 / 42)
    truth = draw(0).obs["truth"]
    assert got["accuracy"].iloc[0] == pytest.approx(largest_class_rate(truth[scored_cells(draw(0))]))
    assert accuracy(truth, ["T"] * 50) != pytest.approx(26 / 42)  # it would differ with the seeds


def test_summary_is_mean_and_extremes_of_each_method():
    values = {"b": [0.1, 0.1, 0.4], "a": [0.5, 0.7, 0.9]}
    rows = [{"method": name, "seed": seed, "brier": values[name][seed]} for seed in range(3) for name in values]
    got = summary(pd.DataFrame(rows), "brier")
    assert list(got.index) == ["b", "a"]
    np.testing.assert_allclose(got.loc["a", ["mean", "min", "max", "draws"]].astype(float), [0.7, 0.5, 0.9, 3])
    np.testing.assert_allclose(got.loc["b", ["mean", "min", "max"]].astype(float), [0.2, 0.1, 0.4])


# Bad input


def test_scores_say_what_is_missing(cells):
    with pytest.raises(InputError, match="label_probabilities"):
        scores(cells)
    with pytest.raises(InputError, match="in its order"):
        scores(cells, logistic_regression(cells)[::-1])
    with pytest.raises(InputError, match="no column 'sorted'"):
        scores(cells, logistic_regression(cells), truth_key="sorted")
    with pytest.raises(InputError, match="No cell can be scored"):
        scores(cells, logistic_regression(cells), labels_key="truth")


def test_an_unknown_metric_is_refused(cells):
    with pytest.raises(ValueError, match=r"accuracy, balanced_accuracy, .*calibration_error, got 'f1'"):
        summary(score_table({"LR": logistic_regression}, draw_of(cells), [0]), "f1")


def test_an_interval_of_a_mean_is_that_of_the_t_test_and_one_draw_has_none():
    gains = np.random.default_rng(0).normal(0.02, 0.01, 5)
    expected = ttest_1samp(gains, 0).confidence_interval(0.9)
    np.testing.assert_allclose(interval(gains, 0.9), expected)
    assert interval([0.3]) == (-np.inf, np.inf)

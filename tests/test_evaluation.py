"""Metrics and baselines, held against hand calculation, closed forms and the counts themselves."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from scanvi_tutorial.checks import InputError
from scanvi_tutorial.evaluation import (
    accuracy,
    compare,
    confusion,
    evaluate,
    fit_on_seeds,
    largest_class_rate,
    log_cp10k,
    logistic_regression,
    scores,
    spread,
    unlabelled,
)

TYPES = ["T", "B", "NK"]  # on purpose not in alphabetical order: scikit-learn sorts, we don't


@pytest.fixture
def cells():
    """Return 90 cells of three types that differ by six genes each; the first five of each type are seeds."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 30)
    rate = np.ones((3, 24))
    for k in range(3):
        rate[k, 6 * k : 6 * k + 6] = 9
    counts = rng.poisson(rate[truth])
    label = np.where(np.arange(90) % 30 < 5, np.array(TYPES)[truth], "Unknown")
    obs = pd.DataFrame(
        {
            "truth": pd.Categorical.from_codes(truth, TYPES),
            "label": pd.Categorical(label, categories=[*TYPES, "Unknown"]),
        },
        index=[f"cell{i}" for i in range(90)],
    )
    return AnnData(
        sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(24)])
    )


def table(rows, columns=TYPES):
    return pd.DataFrame(rows, columns=columns, index=[f"cell{i}" for i in range(len(rows))])


# Metrics


def test_accuracy_is_the_share_of_right_cells():
    assert accuracy(["T", "B", "B", "NK"], ["T", "B", "NK", "NK"]) == 0.75


def test_accuracy_of_a_table_takes_the_most_probable_type():
    p = table([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    assert accuracy(pd.Categorical(["T", "B"]), p) == 0.5


def test_largest_class_rate_counts_the_commonest_type():
    assert largest_class_rate(pd.Series(["B", "T", "B", "B", "NK"])) == pytest.approx(0.6)


def test_scores_agree_with_hand_calculation():
    truth = pd.Series(["T", "T", "T", "B"])
    p = table([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    got = scores(truth, p)
    assert got["accuracy"] == pytest.approx(3 / 4)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)  # NK occurs in no cell and so doesn't count
    assert got["log_loss"] == pytest.approx(-np.log([0.5, 0.8, 0.1, 0.5]).mean())


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


def test_confusion_counts_truth_in_rows_and_keeps_the_order_of_categories():
    truth = pd.Series(pd.Categorical(["T", "T", "B", "NK", "NK"], categories=TYPES))
    got = confusion(truth, ["T", "B", "B", "NK", "T"])
    want = pd.DataFrame([[1, 1, 0], [0, 1, 0], [1, 0, 1]], index=TYPES, columns=TYPES)
    pd.testing.assert_frame_equal(got, want, check_names=False)
    assert np.trace(got) / got.to_numpy().sum() == accuracy(truth, ["T", "B", "B", "NK", "T"])


def test_confusion_shows_a_predicted_type_that_truth_does_not_know():
    assert confusion(["B", "T"], ["B", "ILC"]).loc["T", "ILC"] == 1


# Which cells are scored


def test_seeds_are_not_scored(cells):
    assert (unlabelled(cells) == (cells.obs["label"] == "Unknown")).all()
    right_on_seeds_only = np.where(unlabelled(cells), "B", cells.obs["truth"])
    p = pd.get_dummies(pd.Categorical(right_on_seeds_only, categories=TYPES), dtype=float).set_index(cells.obs_names)
    assert evaluate(cells, p)["accuracy"] == pytest.approx(25 / 75)  # 0.44 with the seeds


def test_cells_of_unknown_truth_are_not_scored(cells):
    always_t = pd.DataFrame({name: float(name == "T") for name in TYPES}, index=cells.obs_names)
    assert evaluate(cells, always_t)["accuracy"] == pytest.approx(1 / 3)
    cells.obs.loc[cells.obs["truth"] != "T", "truth"] = np.nan
    assert evaluate(cells, always_t)["accuracy"] == 1


@pytest.mark.parametrize("nothing", ["Unknown", "", "-1"])
def test_cells_whose_truth_says_unknown_are_not_scored(cells, nothing):
    always_t = pd.DataFrame({name: float(name == "T") for name in TYPES}, index=cells.obs_names)
    cells.obs["truth"] = cells.obs["truth"].cat.rename_categories({"B": nothing})
    assert evaluate(cells, always_t)["accuracy"] == 1 / 2  # T and NK are left


@pytest.mark.parametrize("dtype", [int, float, "category"])
def test_types_may_be_numbers(cells, dtype):
    number = {"T": 10, "B": 2, "NK": 3, "Unknown": -1}
    want = evaluate(cells, logistic_regression(cells))
    cells.obs["label"] = cells.obs["label"].astype(object).map(number)
    cells.obs["truth"] = cells.obs["truth"].astype(object).map(number).astype(float).astype(dtype)
    p = logistic_regression(cells)
    np.testing.assert_allclose(evaluate(cells, p), want, rtol=1e-3)
    np.testing.assert_allclose(evaluate(cells, p.rename(columns=float)), want, rtol=1e-3)
    table = confusion(cells.obs["truth"], p)
    assert set(table.index) == {"2", "3", "10"}
    assert np.trace(table) > 0.95 * 90


def test_evaluate_reads_what_the_model_stored(cells):
    cells.obsm["scanvi_probabilities"] = logistic_regression(cells)
    pd.testing.assert_series_equal(evaluate(cells), evaluate(cells, logistic_regression(cells)))


# Baselines


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


def test_logistic_regression_finds_types_that_differ(cells):
    p = logistic_regression(cells)
    assert list(p.columns) == TYPES
    assert p.index.equals(cells.obs_names)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert evaluate(cells, p)["accuracy"] > 0.95


def test_logistic_regression_is_at_the_optimum_of_its_loss(cells):
    """The gradient of the penalized loss with respect to the intercepts is mean probability − class share: zero."""
    seeds = ~unlabelled(cells)
    p = logistic_regression(cells)[seeds]
    np.testing.assert_allclose(p.mean(), np.full(3, 1 / 3), atol=1e-3)


def test_baselines_never_see_the_truth(cells):
    before = logistic_regression(cells)
    cells.obs["truth"] = cells.obs["truth"].to_numpy()[::-1]
    pd.testing.assert_frame_equal(before, logistic_regression(cells))


def test_baselines_leave_the_cells_alone(cells):
    copy = cells.copy()
    logistic_regression(cells)
    assert (copy.X != cells.X).nnz == 0
    pd.testing.assert_frame_equal(copy.obs, cells.obs)
    assert not cells.obsm


def test_any_classifier_can_be_a_baseline(cells):
    p = fit_on_seeds(KNeighborsClassifier(3), cells)
    assert evaluate(cells, p)["accuracy"] > 0.9
    np.testing.assert_allclose(p.sum(1), 1)


def test_fit_on_seeds_learns_from_seeds_alone(cells):
    """The prior of a dummy classifier is the share of each type among what it was fitted on."""
    label = cells.obs["label"].to_numpy(dtype=object)
    label[[0, 1, 2]] = "Unknown"  # two T seeds are left, five of the others
    cells.obs["label"] = pd.Categorical(label, categories=[*TYPES, "Unknown"])
    p = fit_on_seeds(DummyClassifier(strategy="prior"), cells)
    np.testing.assert_allclose(p.iloc[0], [2 / 12, 5 / 12, 5 / 12])


# Comparisons


def draw_of(cells):
    def draw(seed):
        rng = np.random.default_rng(seed)
        label = np.full(cells.n_obs, "Unknown", dtype=object)
        for name in TYPES:
            label[rng.choice(np.flatnonzero(cells.obs["truth"] == name), 4, replace=False)] = name
        drawn = cells.copy()
        drawn.obs["label"] = pd.Categorical(label, categories=[*TYPES, "Unknown"])
        return drawn

    return draw


def test_methods_share_each_draw_and_its_seed(cells):
    seen = {"one": [], "other": []}

    def spy(name):
        def method(adata, *, labels="label", seed=0):
            seen[name].append((seed, tuple(adata.obs[labels])))
            return logistic_regression(adata, labels=labels)

        return method

    got = compare({name: spy(name) for name in seen}, draw_of(cells), [3, 8])
    assert seen["one"] == seen["other"]
    assert [seed for seed, _ in seen["one"]] == [3, 8]
    assert seen["one"][0][1] != seen["one"][1][1]
    assert list(got.index) == [3, 8]
    assert list(got.columns) == ["one", "other"]


def test_compare_reports_the_score_of_each_draw(cells):
    draw = draw_of(cells)
    got = compare({"LR": logistic_regression}, draw, range(2), metric="log_loss")
    assert got.loc[1, "LR"] == evaluate(draw(1), logistic_regression(draw(1)))["log_loss"]


def test_spread_is_mean_and_extremes_of_each_method():
    got = spread(pd.DataFrame({"a": [0.5, 0.7, 0.9], "b": [0.1, 0.1, 0.4]}))
    np.testing.assert_allclose(got.loc["a", ["mean", "min", "max", "draws"]].astype(float), [0.7, 0.5, 0.9, 3])
    np.testing.assert_allclose(got.loc["b", ["mean", "min", "max"]].astype(float), [0.2, 0.1, 0.4])


# Bad input


def test_lengths_that_differ_are_refused():
    with pytest.raises(InputError, match=r"2 cells and the prediction 3.*unlabelled\(adata\)"):
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


def test_evaluate_says_what_is_missing(cells):
    with pytest.raises(InputError, match="label_probabilities"):
        evaluate(cells)
    with pytest.raises(InputError, match="in its order"):
        evaluate(cells, logistic_regression(cells)[::-1])
    with pytest.raises(InputError, match=r"obs\['sorted'\] is missing"):
        evaluate(cells, logistic_regression(cells), truth="sorted")
    with pytest.raises(InputError, match="No cell can be scored"):
        evaluate(cells, logistic_regression(cells), labels="truth")


def test_an_unknown_metric_is_refused(cells):
    with pytest.raises(ValueError, match="accuracy, balanced_accuracy, log_loss, got 'f1'"):
        compare({"LR": logistic_regression}, draw_of(cells), [0], metric="f1")

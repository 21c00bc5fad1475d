"""Seed labels: what the scores are, who wins a cell, what a random draw keeps back, what is refused."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from scanvi_tutorial.data.seeds import purity, seed_labels
from scanvi_tutorial.data.simulated import load_simulated
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.inputs.markers import marker_scores

MARKERS = {"T": {"positive": ["CD3", "CD4"], "negative": ["CD79"]}, "B": {"positive": ["CD79"], "negative": ["CD3"]}}


@pytest.fixture
def adata():
    """Return twelve cells, seven T and five B, whose truth has a category that no cell is of."""
    rng = np.random.default_rng(0)
    truth = np.array(["T"] * 7 + ["B"] * 5)
    mean = np.where((truth == "T")[:, None], [9, 6, 1, 20], [1, 1, 9, 20])
    obs = pd.DataFrame({"truth": pd.Categorical(truth, ["T", "phantom", "B"])}, index=[f"c{c}" for c in range(12)])
    var = pd.DataFrame(index=["CD3", "CD4", "CD79", "ACTB"])
    counts = sparse.csr_matrix(rng.poisson(mean) + np.array([0, 0, 0, 1]), dtype=np.float32)
    return AnnData(counts, obs=obs, var=var, uns={"markers": MARKERS, "dataset": "twelve"})


def labels(adata):
    return adata.obs["label"].astype(str).to_numpy()


# scores


def test_scores_follow_the_recipe_of_the_tutorial():
    import scanpy as sc

    adata = load_simulated(cells=150)
    normal = adata.copy()
    normal.X = normal.X.astype(np.float64)
    sc.pp.normalize_total(normal, target_sum=1e4)
    sc.pp.log1p(normal)
    scaled = np.asarray(sc.pp.scale(normal.X.toarray().astype(np.float64)))
    scaled *= np.sqrt(150 / 149)  # scanpy divides by the standard deviation of a sample, we by that of these cells
    columns = pd.DataFrame(scaled, adata.obs_names, adata.var_names)
    table = {"first": {"positive": ["gene01", "gene02"], "negative": ["gene03"]}}
    expected = columns["gene01"] + columns["gene02"] - columns["gene03"]
    np.testing.assert_allclose(marker_scores(adata, table)["first"], expected, rtol=1e-9, atol=1e-12)


def test_scores_agree_with_a_calculation_by_hand():
    counts = np.array([[1, 0, 9], [0, 1, 9], [0, 0, 10]])  # CP10k of one count in ten is 1,000
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), var=pd.DataFrame(index=["a", "b", "c"]))
    high = np.log(1001)
    mean, spread = high / 3, high * np.sqrt(2) / 3  # of (high, 0, 0)
    expected = np.array([high, 0, 0]) - mean - (np.array([0, high, 0]) - mean)
    scores = marker_scores(adata, {"t": {"positive": ["a"], "negative": ["b"]}})
    np.testing.assert_allclose(scores["t"], expected / spread)


def test_a_gene_that_does_not_vary_adds_nothing(adata):
    adata.X = sparse.csr_matrix(np.tile([1, 2, 3, 4], (12, 1)), dtype=np.float32)
    assert (marker_scores(adata) == 0).all(axis=None)


# who gets a label


def test_the_cells_with_the_highest_scores_are_the_seeds(adata):
    scores, seeds = marker_scores(adata), seed_labels(adata, 3)
    for name in MARKERS:
        assert set(adata.obs_names[labels(seeds) == name]) == set(scores[name].nlargest(3).index)
    assert (labels(seeds) == "Unknown").sum() == 6


def test_a_cell_that_two_types_claim_goes_to_the_later():
    counts = sparse.csr_matrix([[9, 9, 1], [5, 0, 5], [0, 5, 5], [1, 1, 9]], dtype=np.float32)
    adata = AnnData(counts, var=pd.DataFrame(index=["a", "b", "c"]))
    table = {"A": {"positive": ["a"], "negative": []}, "B": {"positive": ["b"], "negative": []}}
    assert list(labels(seed_labels(adata, 2, markers=table))) == ["B", "A", "B", "Unknown"]
    reverse = dict(reversed(table.items()))
    assert list(labels(seed_labels(adata, 2, markers=reverse))) == ["A", "A", "B", "Unknown"]


def test_labels_have_the_categories_of_the_truth_and_unknown_last(adata):
    for how in ("markers", "random"):
        assert list(seed_labels(adata, 2, how).obs["label"].cat.categories) == ["T", "B", "Unknown"]


def test_labels_follow_the_order_of_the_truth_whatever_the_order_of_claim(adata):
    seeds = seed_labels(adata, 2, markers=dict(reversed(MARKERS.items())))
    assert list(seeds.obs["label"].cat.categories) == ["T", "B", "Unknown"]
    assert purity(seeds).loc["all", "purity"] == 1


def test_markers_need_no_truth(adata):
    with_truth = seed_labels(adata, 2)
    del adata.obs["truth"]
    np.testing.assert_array_equal(labels(seed_labels(adata, 2)), labels(with_truth))


def test_a_file_does_not_change_who_wins(tmp_path):
    adata = load_simulated(cells=80)
    adata.uns["markers"] = dict.fromkeys(adata.uns["markers"], adata.uns["markers"]["type A"])  # all claim the same
    adata.obs["truth"] = adata.obs["truth"].cat.reorder_categories(["type D", "type B", "type A", "type C"])
    with pytest.raises(InputError, match="'type D' is a class with no seed"):
        seed_labels(adata, 5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="'type D' is a class with no seed"):
        seed_labels(read_h5ad(tmp_path / "a.h5ad"), 5)


def test_random_seeds_are_true_and_as_many_as_asked(adata):
    seeds = seed_labels(adata, 3, "random", seed=1)
    table = purity(seeds)
    assert list(table["seeds"]) == [3, 3, 6]
    assert (table["purity"] == 1).all()


def test_a_rare_type_keeps_a_cell_to_be_tested_on(adata):
    assert list(purity(seed_labels(adata, 6, "random"))["seeds"]) == [6, 4, 10]


def test_the_same_seed_draws_the_same_cells_and_another_draws_others():
    adata = load_simulated()
    first, again, other = (labels(seed_labels(adata, 10, "random", seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_every_cell_of_a_type_is_as_likely_to_be_drawn(adata):
    drawn = sum((labels(seed_labels(adata, 2, "random", seed=seed)) == "T") for seed in range(700))
    # each of seven cells is drawn with chance 2/7: 200 times of 700, give or take 12
    assert np.abs(drawn[:7] - 200).max() < 4 * 12
    assert drawn[7:].sum() == 0


# what comes back


def test_counts_are_shared_and_the_rest_is_not(adata):
    adata.raw = adata.copy()
    adata.layers["more"] = adata.X.copy()
    seeds = seed_labels(adata, 2)
    assert np.shares_memory(seeds.X.data, adata.X.data)
    assert np.shares_memory(seeds.layers["more"].data, adata.layers["more"].data)
    assert seeds.raw.shape == adata.raw.shape
    seeds.uns["markers"]["T"]["positive"].append("CD5")
    seeds.obs["truth"] = "B"
    assert "label" not in adata.obs
    assert "CD5" not in adata.uns["markers"]["T"]["positive"]
    assert (adata.obs["truth"] == "T").sum() == 7


def test_counts_may_lie_in_a_layer(adata):
    expected = labels(seed_labels(adata, 3))
    adata.layers["umi"] = adata.X.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    np.testing.assert_array_equal(labels(seed_labels(adata, 3, layer="umi")), expected)


@pytest.mark.parametrize("dtype", [int, float, "category"])
def test_types_may_be_numbers(adata, dtype):
    adata.obs["truth"] = pd.Series(np.where(adata.obs["truth"] == "T", 10, 2), adata.obs_names).astype(dtype)
    adata.uns["markers"] = {10: MARKERS["T"], 2: MARKERS["B"]}
    for how in ("random", "markers"):
        seeds = seed_labels(adata, 2, how)
        assert list(seeds.obs["label"].cat.categories) == ["2", "10", "Unknown"]
        assert (purity(seeds)["purity"] == 1).all()


def test_a_missing_value_may_make_numbers_of_types_fractional(adata):
    adata.obs["truth"] = np.where(adata.obs["truth"] == "T", 1, 2)
    adata.obs.loc["c0", "truth"] = np.nan
    seeds = seed_labels(adata, 6, "random")
    assert seeds.obs.loc["c0", "label"] == "Unknown"
    assert purity(seeds).to_dict("list") == {"seeds": [5, 4, 9], "right": [5, 4, 9], "purity": [1, 1, 1]}


@pytest.mark.parametrize("nothing", ["Unknown", "", "-1", None])
@pytest.mark.parametrize("how", ["random", "markers"])
def test_cells_of_unknown_truth_are_of_no_type_and_not_drawn(adata, nothing, how):
    truth = adata.obs["truth"].astype(object)
    truth.iloc[[0, 11]] = nothing
    adata.obs["truth"] = truth.astype("category")
    seeds = seed_labels(adata, 6, how)
    assert list(seeds.obs["label"].cat.categories) == ["B", "T", "Unknown"]
    if how == "random":
        assert (labels(seeds)[[0, 11]] == "Unknown").all()
        assert list(purity(seeds)["right"]) == [3, 5, 8]


def test_purity_counts_seeds_that_the_truth_agrees_with(adata):
    adata.obs["label"] = pd.Categorical(["T", "T", "B", "Unknown"] * 3, ["T", "B", "Unknown"])  # truth: 7 T, 5 B
    table = purity(adata)
    assert table.loc["T"].to_dict() == {"seeds": 6, "right": 4, "purity": 4 / 6}
    assert table.loc["B"].to_dict() == {"seeds": 3, "right": 1, "purity": 1 / 3}
    assert table.loc["all"].to_dict() == {"seeds": 9, "right": 5, "purity": 5 / 9}


# what is refused


def test_a_marker_that_is_not_measured_is_left_out_and_noted(adata):
    table = MARKERS | {"T": {"positive": ["CD3", "CD4", "FOXP3"], "negative": ["CD79", "CD19"]}}
    seeds = seed_labels(adata, 3, markers=table)
    assert seeds.uns["seeds"]["missing_markers"] == ["CD19", "FOXP3"]
    np.testing.assert_array_equal(labels(seeds), labels(seed_labels(adata, 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"markers": MARKERS | {"B": {"positive": ["CD19"], "negative": []}}}, "'B' .CD19. is among"),
        ({"markers": {}}, "no marker table"),
        ({"markers": {"T": MARKERS["T"]}}, "B: a class with no seed"),
        ({"markers": MARKERS | {"NK": {"positive": ["ACTB"], "negative": []}}}, "NK: in the marker table"),
        ({"markers": {"T": MARKERS["B"], "B": MARKERS["B"]}}, "'T' is a class with no seed"),
        ({"per_label": 0}, "per_label must be at least 1"),
        ({"per_label": 13}, "12 cells, fewer than the 13"),
        ({"how": "guess"}, "how must be"),
    ],
)
def test_what_cannot_give_every_type_a_seed_is_refused(adata, options, words):
    with pytest.raises(InputError, match=words):
        seed_labels(adata, **{"per_label": 3} | options)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"B": ["CD79"]}, "says of 'B'"),
        ({"B": {"plus": ["CD79"]}}, "says of 'B'"),
        ({"B": {"positive": "CD79"}}, "genes of 'B'"),
        ({"B": {"positive": ["CD79"], "negative": None}}, "genes of 'B'"),
        ({"B": {"positive": [79]}}, "genes of 'B'"),
        ({"Unknown": {"positive": ["CD79"]}}, "'Unknown' means a cell without a label"),
        (["CD79"], "of type list"),
        (pd.DataFrame(MARKERS), "of type DataFrame"),
    ],
)
def test_a_marker_table_of_another_form_is_refused_and_the_form_is_shown(adata, table, words):
    del adata.obs["truth"]
    for options in ({"markers": MARKERS | table if isinstance(table, dict) else table}, {}):
        with pytest.raises(InputError, match=f"{words}.*'positive': ..GENE"):
            seed_labels(adata, 2, **options)
        adata.uns["markers"] = table


def test_a_side_of_the_marker_table_may_be_left_out(adata):
    table = MARKERS | {"B": {"positive": ("CD79",)}}
    full = MARKERS | {"B": {"positive": ["CD79"], "negative": []}}
    pd.testing.assert_frame_equal(marker_scores(adata, table), marker_scores(adata, full))


@pytest.mark.parametrize(("truth", "types"), [(np.nan, "0 different types .none"), ("T", "1 different types .T")])
def test_a_random_draw_from_fewer_than_two_types_is_refused(adata, truth, types):
    adata.obs["truth"] = truth
    with pytest.raises(InputError, match=types):
        seed_labels(adata, 2, "random")


def test_a_random_draw_without_truth_is_refused(adata):
    del adata.obs["truth"]
    with pytest.raises(InputError, match="no column 'truth'"):
        seed_labels(adata, 2, "random")


def test_a_type_of_one_cell_is_refused_by_a_random_draw(adata):
    with pytest.raises(InputError, match="'B' is a class with no seed"):
        seed_labels(adata[:8], 2, "random")

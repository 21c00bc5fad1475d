"""What a user may hand over, and what is said where it cannot be used."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from refused import refused
from scipy import sparse

from scanvi_tutorial.inputs import (
    InputError,
    align_genes,
    check_batches,
    check_cells,
    check_counts,
    check_genes,
    check_labels,
    confounding,
    label_name,
    listed,
    quality_warnings,
    read_h5ad,
    strip_to_inputs,
)
from scanvi_tutorial.inputs.batches import batch_warnings
from scanvi_tutorial.inputs.cells import Columns

COUNTS = np.array([[3, 0, 1], [0, 2, 0], [7, 0, 0], [1, 1, 1]])
FORMS = {
    "dense": lambda x: x.astype(np.float64),
    "integers": lambda x: x.astype(np.int32),
    "unsigned": lambda x: x.astype(np.uint16),
    "CSC": lambda x: sparse.csc_matrix(x, dtype=np.float64),
    "CSR integers": lambda x: sparse.csr_matrix(x, dtype=np.int64),
    "CSR": lambda x: sparse.csr_matrix(x, dtype=np.float32),
    "CSR array": lambda x: sparse.csr_array(x, dtype=np.float32),
}


def cells(matrix=COUNTS, label=None, **parts):
    """Return an AnnData of cells c0, c1 and so on, and genes g0, g1 and so on."""
    obs = pd.DataFrame(index=[f"c{c}" for c in range(matrix.shape[0])])
    if label is not None:
        obs["label"] = label
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"g{g}" for g in range(matrix.shape[1])]), **parts)


# counts


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_counts_of_any_form_become_csr_float32(form):
    counts = check_counts(cells(form(COUNTS)))
    assert isinstance(counts, sparse.csr_matrix)
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts.toarray(), COUNTS)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_checking_counts_changes_nothing(form):
    adata = cells(form(COUNTS))
    kind, dtype = type(adata.X), adata.X.dtype
    check_counts(adata)
    assert type(adata.X) is kind
    assert adata.X.dtype == dtype


def test_counts_in_csr_float32_are_not_copied():
    adata = cells(FORMS["CSR"](COUNTS))
    assert np.shares_memory(check_counts(adata).data, adata.X.data)


def test_an_entry_stored_in_two_parts_is_their_sum_and_a_stored_zero_is_none():
    parts = sparse.csr_matrix((np.float32([1, 2, 0, 5]), [0, 0, 1, 1], [0, 3, 4]), shape=(2, 2))
    counts = check_counts(cells(parts))
    assert counts.nnz == 2
    np.testing.assert_array_equal(counts.toarray(), [[3, 0], [0, 5]])
    assert parts.nnz == 4


@pytest.mark.parametrize(
    ("value", "word"), [(-1, "negative"), (0.5, "whole"), (np.nan, "missing"), (np.inf, "finite"), (-np.inf, "finite")]
)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_a_value_that_is_no_count_is_named_with_its_cell_and_gene(form, value, word):
    matrix = COUNTS.astype(np.float32)
    matrix[2, 1] = matrix[3, 0] = value  # column by column the second would come first
    text = refused(check_counts, cells(form(matrix)))
    assert "'c2'" in text
    assert "'g1'" in text
    assert word in text


@given(arrays(np.float64, (3, 4), elements=st.one_of(st.integers(-1, 3), st.floats(-1, 3, width=16), st.just(np.nan))))
def test_counts_are_accepted_exactly_where_every_value_is_one(matrix):
    matrix[:, 0] = 1  # no cell is empty
    if all(float(value).is_integer() and value >= 0 for value in matrix.ravel()):
        np.testing.assert_array_equal(check_counts(cells(matrix)).toarray(), matrix)
    else:
        refused(check_counts, cells(matrix))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_counts_that_are_whole_but_for_rounding_are_refused_with_what_mends_them(form):
    total = COUNTS.sum(1, keepdims=True)
    back = np.expm1(np.log1p(COUNTS * 100 / total * 1e4).astype(np.float32)) * total / 1e4
    adata = cells(form(back.astype(np.float32)))
    text = refused(check_counts, adata)
    shown = float(re.search(r" is ([-0-9.e+]+), which is not a whole number", text)[1])
    assert shown != round(shown)
    mended = re.search(r"rounding: adata.X = (.*) is all", text)[1]
    adata.X = eval(mended, {"adata": adata, "numpy": np})
    np.testing.assert_array_equal(check_counts(adata).toarray(), COUNTS * 100)
    assert "rounding" not in refused(check_counts, cells(form(COUNTS * 0.87)))


def test_a_gap_of_a_join_is_no_normalization():
    matrix = COUNTS.astype(np.float32)
    matrix[2, 1] = np.nan
    text = refused(check_counts, cells(matrix))
    assert "fill_value=0" in text
    assert "normaliz" not in text


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_counts_that_dask_holds_are_computed_block_by_block(form):
    array = pytest.importorskip("dask.array")
    lazy = array.from_array(COUNTS.astype(np.float32), chunks=(2, 2))
    adata = cells(lazy.rechunk((2, -1)).map_blocks(form) if form is sparse.csr_matrix else lazy)
    np.testing.assert_array_equal(check_counts(adata).toarray(), COUNTS)
    assert isinstance(adata.X, array.Array)


def test_logarithms_are_refused_and_the_layer_with_the_counts_is_named():
    adata = cells(np.log1p(COUNTS), layers={"scaled": COUNTS - 0.5, "umi": COUNTS})
    assert "layer='umi'" in refused(check_counts, adata)
    np.testing.assert_array_equal(check_counts(adata, "umi").toarray(), COUNTS)


def test_logarithms_in_a_layer_point_to_the_counts_in_x():
    assert "adata.X" in refused(check_counts, cells(layers={"log": np.log1p(COUNTS)}), "log")


def test_logarithms_are_refused_and_raw_is_named_where_it_holds_the_counts():
    adata = cells()
    adata.raw = adata.copy()
    adata.X = np.log1p(COUNTS)
    assert "raw.to_adata()" in refused(check_counts, adata)


def test_logarithms_alone_send_the_reader_back_to_the_counts():
    assert "before normalization" in refused(check_counts, cells(np.log1p(COUNTS)))


def test_a_missing_layer_is_refused_with_those_there_are():
    assert "umi" in refused(check_counts, cells(layers={"umi": COUNTS}), "counts")


@pytest.mark.filterwarnings("ignore:Transforming to str index")  # older AnnData, of no names at all
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_cells_or_no_genes_are_refused(shape):
    assert f"{shape[0]} cells × {shape[1]} genes" in refused(check_counts, cells(np.zeros(shape)))


def test_a_cell_without_counts_is_refused_by_name():
    matrix = COUNTS.copy()
    matrix[1] = 0
    assert "'c1'" in refused(check_counts, cells(matrix))


def test_a_gene_name_that_occurs_twice_is_refused():
    adata = cells()
    adata.var_names = ["a", "b", "a"]
    with pytest.warns(UserWarning, match="not unique"):  # anndata's own word on reading such names
        adata = adata.copy()
    assert "a." in refused(check_counts, adata)


def test_text_in_place_of_numbers_is_refused():
    adata = cells()
    adata.layers["text"] = COUNTS.astype(str)
    assert "adata.layers['text'] holds <U" in refused(check_counts, adata, "text")


@pytest.mark.parametrize("form", ["dense", "CSC", "CSR"])
def test_counts_still_on_disk_are_read(tmp_path, form):
    cells(FORMS[form](COUNTS)).write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(check_counts(adata).toarray(), COUNTS)
    np.testing.assert_array_equal(check_counts(adata[[0, 3]]).toarray(), COUNTS[[0, 3]])
    assert adata.isbacked
    adata.file.close()


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">i8", "longdouble", "bool", "int8", "uint64"])
def test_counts_of_a_dtype_that_scipy_may_not_know_are_converted(dtype):
    matrix = np.minimum(COUNTS, 1).astype(dtype)
    np.testing.assert_array_equal(check_counts(cells(matrix)).toarray(), np.minimum(COUNTS, 1))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint32", "int64"])
def test_a_count_that_float32_cannot_hold_is_refused(dtype):
    matrix = COUNTS.astype(dtype)
    matrix[1, 1] = 2**24
    assert check_counts(cells(matrix))[1, 1] == 2**24
    matrix[1, 1] = 2**24 + 2
    assert "rounding" in refused(check_counts, cells(matrix))


# labels


def codes_of(values, **options):
    """Return the labels and codes of a column."""
    names, codes = check_labels(cells(np.ones((len(values), 1)), label=values), **options)
    assert codes.dtype == np.int64
    return names, list(codes)


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, "", "-1", "Unknown"])
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_every_way_to_say_unlabeled_gives_code_minus_one(nothing, dtype):
    values = pd.Series(["T", nothing, "B", "T"], dtype=object).astype(dtype).to_numpy()
    assert codes_of(values) == (["B", "T"], [1, -1, 0, 1])


def test_numbers_are_labels_and_minus_one_is_none():
    assert codes_of([10, -1, 2, 10]) == (["2", "10"], [1, -1, 0, 1])


def test_numbers_that_a_missing_value_made_fractional_are_the_same_labels():
    assert codes_of([10, np.nan, 2, 10]) == (["2", "10"], [1, -1, 0, 1])


def test_a_name_of_the_users_own_means_unlabeled_beside_ours():
    values = ["T", "not sorted", "B", "Unknown"]
    assert codes_of(values, unlabeled_category="not sorted") == (["B", "T"], [1, -1, 0, -1])


def test_a_name_of_the_users_own_may_be_unused_if_it_is_a_category():
    values = pd.Categorical(["T", "B"], categories=["B", "T", "not sorted"])
    assert codes_of(values, unlabeled_category="not sorted") == (["B", "T"], [1, 0])


def test_a_misspelled_name_for_unlabeled_is_refused_and_does_not_become_a_type():
    adata = cells(label=["T", "not sorted", "B", "B"])
    assert "did you mean 'not sorted'?" in refused(check_labels, adata, unlabeled_category="not-sorted")


def test_a_number_may_mean_unlabeled():
    assert codes_of([0, 1, 2, 0], unlabeled_category=0) == (["1", "2"], [-1, 0, 1, -1])
    assert codes_of([0.0, 1.0, np.nan, 2.0], unlabeled_category=0) == (["1", "2"], [-1, 0, -1, 1])
    assert "No cell has '0'" in refused(check_labels, cells(label=["T", "B", "B", "B"]), unlabeled_category=0)


def test_a_whole_number_has_one_name():
    assert [label_name(value) for value in (1, 1.0, np.int64(1), np.float32(1), "1")] == ["1"] * 5
    assert [label_name(value) for value in (1.5, "1.0", "B", True)] == ["1.5", "1.0", "B", "True"]


def test_categories_keep_their_order_and_unused_ones_are_dropped():
    values = pd.Categorical(["T", "Unknown", "B", "T"], categories=["T", "phantom", "B", "Unknown"])
    assert codes_of(values) == (["T", "B"], [0, -1, 1, 0])


def test_checking_labels_changes_nothing():
    adata = cells(label=pd.Categorical(["T", "B", "T", "T"], categories=["T", "phantom", "B"]))
    before = adata.obs.copy()
    check_labels(adata)
    pd.testing.assert_frame_equal(adata.obs, before)


def test_a_missing_label_column_is_refused_with_those_there_are():
    text = refused(check_labels, cells(label=["T", "B", "T", "T"]), "labels")
    assert "did you mean 'label'?" in text
    assert "no column None" in refused(check_labels, cells(label=["T", "B", "T", "T"]), None)


@pytest.mark.parametrize("values", [["T", "T", "Unknown", "T"], ["Unknown"] * 4])
def test_fewer_than_two_labels_are_refused(values):
    assert "at least 2" in refused(check_labels, cells(label=values))


def test_one_label_is_enough_where_the_caller_says_so():
    assert check_labels(cells(label=["T"] * 4), least=1)[0] == ["T"]


# genes


def test_the_same_genes_give_the_same_object():
    adata = cells()
    assert check_genes(adata, ["g0", "g1", "g2"]) is adata


def test_other_order_and_further_genes_are_put_right():
    there = check_genes(cells(), ["g2", "g0"])
    assert list(there.var_names) == ["g2", "g0"]
    np.testing.assert_array_equal(check_counts(there[[0, 2, 3]]).toarray(), COUNTS[np.ix_([0, 2, 3], [2, 0])])


def test_missing_genes_are_counted_and_named():
    text = refused(check_genes, cells(), ["g0", "CD4", "CD8B"])
    assert "2 of the 3 genes" in text
    assert "CD4, CD8B" in text


def test_genes_are_aligned_as_a_table_would_be():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(1.0, (5, 6)), dtype=np.float32)
    names, wanted = pd.Index(list("abcdef")), ["f", "x", "a", "c"]
    ours, share, notes = align_genes(counts, pd.DataFrame(index=names), wanted)
    theirs = pd.DataFrame(counts.toarray(), columns=names).reindex(columns=wanted, fill_value=0)
    np.testing.assert_array_equal(ours.toarray(), theirs)
    assert share == 0.75
    assert notes == ["25.0% of the model's genes are missing here and were taken as zero: x."]
    assert ours.dtype == np.float32


# cells and batches


@pytest.mark.filterwarnings("ignore:Observation names")
def test_cells_of_one_name_are_refused_with_a_remedy():
    adata = cells()
    check_cells(adata)
    adata.obs_names = ["a", "b", "a", "b"]
    assert "2 cell names occur more than once: a, b. If samples were joined, use anndata.concat" in refused(
        check_cells, adata
    )


def test_what_is_no_anndata_is_refused():
    assert "this is a ndarray" in refused(check_cells, COUNTS)


def test_a_column_that_occurs_twice_is_refused():
    adata = cells(label=["T", "B", "T", "B"])
    adata.obs = pd.concat([adata.obs, adata.obs], axis=1)
    assert "2 columns called 'label'" in refused(check_labels, adata)


def test_batches_are_text_and_none_is_missing():
    adata = cells()
    adata.obs["run"] = [2, 1, 2, 1]
    assert list(check_batches(adata, "run")) == ["2", "1", "2", "1"]
    adata.obs["run"] = pd.Categorical(["a", None, "b", "a"], categories=["a", "b", "c"])
    assert "1 of 4 cells have no batch" in refused(check_batches, adata, "run")
    adata.obs["run"] = ["a", "nan", "", "a "]
    assert "2 of 4 cells have no batch" in refused(check_batches, adata, "run")
    adata.obs["run"] = ["a", "b ", "b", b"a"]
    assert list(check_batches(adata, "run").categories) == ["a", "b"]
    adata.obs["run"] = pd.Categorical(["a", "b", "b", "a"], categories=["a", "b", "c"])
    assert list(check_batches(adata, "run").categories) == ["a", "b"]
    assert "did you mean 'run'?" in refused(check_batches, adata, "rum")


# what can be used and should be looked at


def test_a_batch_that_gives_the_type_away_is_told_from_one_that_crosses_types():
    codes = np.repeat([0, 1, 2], 20)
    names = ["A", "B", "C"]
    assert confounding(names, codes, pd.Categorical(np.tile(["x", "y"], 30))) is None
    text = confounding(names, codes, pd.Categorical(np.where(codes == 0, "x", "y")))
    assert "adjusted mutual information 1.00" in text
    assert "labeled in one batch alone: A, B, C" in text


def test_cells_without_a_label_and_a_single_batch_confound_nothing():
    codes = np.array([0, 0, 1, 1, -1, -1])
    for batches in (["x"] * 4 + ["y"] * 2, ["x"] * 6):
        assert confounding(["A", "B"], codes, pd.Categorical(batches)) is None


def test_many_donors_with_few_labels_are_not_taken_for_confounded_by_accident():
    """Forty labels and thirty donors, drawn apart from each other: what they share is chance."""
    rng = np.random.default_rng(0)
    names, codes = ["A", "B", "C"], rng.integers(3, size=40)
    donors = rng.integers(30, size=40).astype(str)
    assert confounding(names, codes, pd.Categorical(donors)) is None
    own = np.char.add(codes.astype(str), rng.integers(10, size=40).astype(str))  # thirty donors, each of one type
    assert "labeled in one batch" in confounding(names, codes, pd.Categorical(own))


def test_batches_that_hidden_labels_cannot_test_are_named():
    codes = np.array([*np.repeat([0, 1], 20), *np.repeat(-1, 30)])
    batches = pd.Categorical([*["reference"] * 40, *["query"] * 30])
    (said,) = batch_warnings(["A", "B"], codes, batches)
    assert "No cell is labeled in query (30 cells)" in said
    assert batch_warnings(["A", "B"], codes[:40], batches[:40]) == []


def test_a_type_that_is_labeled_in_one_of_several_batches_is_named():
    codes = np.repeat([0, 1, 2], 20)
    batches = np.tile(["x", "y"], 30)
    batches[codes == 2] = "y"
    (said,) = batch_warnings(["A", "B", "C"], codes, pd.Categorical(batches))
    assert "Labeled in one batch alone: C." in said
    few = np.r_[codes, 3, 3]  # two cells may be of one batch by chance
    assert "D" not in " ".join(batch_warnings([*"ABCD"], few, pd.Categorical([*batches, "x", "x"])))


def test_a_warning_is_given_where_there_is_cause_and_not_elsewhere():
    codes = np.array([*[0] * 12, *[1] * 12, -1])
    assert quality_warnings(["A", "B"], codes, genes=2_000) == []
    few = np.array([*[0] * 12, *[1] * 9, 2, -1])
    said = " ".join(quality_warnings(["A", "B", "C"], few, genes=150))
    assert "C: a single labeled cell" in said
    assert "Fewer than 10 labeled cells: B (9)" in said
    assert "Only 150 genes" in said
    assert "Every cell has a label" in quality_warnings(["A", "B"], codes[:-1], genes=2_000)[0]


# files


def test_what_was_written_is_read(tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read_h5ad(tmp_path / "a.h5ad").X, COUNTS)


def test_a_missing_file_is_refused_with_the_folder_looked_in(tmp_path):
    assert str(tmp_path) in refused(read_h5ad, tmp_path / "a.h5ad")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a.csv", "read_csv"), ("a.h5", "10x"), ("a.loom", "read_loom"), ("a.h5ad.gz", "gunzip"), ("a.xyz", "tool")],
)
def test_a_file_of_another_format_is_refused_with_its_reader(tmp_path, name, remedy):
    (tmp_path / name).write_text("gene,c0\n")
    assert remedy in refused(read_h5ad, tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "a.h5ad").mkdir()
    for folder in (tmp_path, tmp_path / "a.h5ad"):
        assert "a folder" in refused(read_h5ad, folder)


def test_a_web_page_under_the_name_of_a_file_is_refused(tmp_path):
    (tmp_path / "a.h5ad").write_text("<html>404</html>")
    assert "not HDF5" in refused(read_h5ad, tmp_path / "a.h5ad")


def test_half_a_file_is_refused(tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    half = (tmp_path / "a.h5ad").read_bytes()[:-5000]
    (tmp_path / "a.h5ad").write_bytes(half)
    assert "damaged" in refused(read_h5ad, tmp_path / "a.h5ad")


def test_a_long_list_is_cut_and_counted():
    assert listed("abcde", 3) == "a, b, c and 2 more"
    assert listed([]) == "none"


def test_cells_are_stripped_to_what_a_method_reads():
    adata = cells(label=["a", "later", "b", "b"], layers={"umi": COUNTS.copy()})
    adata.X = np.log1p(COUNTS)
    adata.obs["run"], adata.obs["age"] = [1, 2, 1, 2], [40, 50, 60, 70]
    plain, _ = strip_to_inputs(adata, Columns("label", "later", "umi", "run"))
    np.testing.assert_array_equal(plain.X.toarray(), COUNTS)
    assert list(plain.obs) == ["label", "run"]
    assert list(plain.obs["label"].cat.categories) == ["a", "b"]
    assert plain.obs["label"].isna().tolist() == [False, True, False, False]
    assert "two" in refused(strip_to_inputs, adata, Columns("label", batch_key="label")).lower()


DAMAGED = {
    "a row that begins far outside": lambda x: x.indptr.__setitem__(1, 10**6),
    "an end that is too early": lambda x: x.indptr.__setitem__(-1, 2),
    "rows that run backward": lambda x: x.indptr.__setitem__(2, 0),
    "a column far outside": lambda x: x.indices.__setitem__(0, 10**6),
    "a column below zero": lambda x: x.indices.__setitem__(0, -5),
}


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_sparse_matrix_that_would_crash_the_interpreter_is_refused(damage, form):
    adata = AnnData(form(COUNTS.astype(np.float32)))
    damage(adata.X)
    with pytest.raises(InputError, match=r"adata\.X is damaged: its indices point outside"):
        check_counts(adata)


def test_counts_that_are_elsewhere_alone_are_pointed_at():
    adata = cells(layers={"umi": COUNTS})
    adata.raw = adata.copy()
    adata.X = None
    text = refused(check_counts, adata)
    assert "use adata.raw.to_adata()" in text
    assert "The layers are umi" in text

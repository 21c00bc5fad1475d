"""Labels as people write them: every way to say none, one type in several spellings, columns that hold no types."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scanvi_tutorial.inputs import InputError, check_labels, label_warnings, strip_to_inputs
from scanvi_tutorial.inputs.cells import Columns


def cells(labels):
    """Return an AnnData of one gene with these labels in obs["kind"]."""
    obs = pd.DataFrame({"kind": labels}, index=[f"c{i}" for i in range(len(labels))])
    return AnnData(np.ones((len(labels), 1), dtype=np.float32), obs=obs)


NONE = [
    " ",
    "<NA>",
    "#N/A",
    "?",
    "-1.0",
    "not assigned",
    "unassigned ",
    "Unclassified",
    "NaN",
    b"Unknown",
    "b'Unknown'",
]


@pytest.mark.parametrize("none", NONE, ids=repr)
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_a_usual_word_for_none_is_none(none, dtype):
    names, codes = check_labels(cells(pd.array(["T", none, "B", none], dtype=object).astype(dtype)), "kind")
    assert names == ["B", "T"]
    assert codes.tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize("said", [np.nan, None, pd.NA, "", -1, -1.0, "NA", "Unknown"], ids=repr)
def test_what_means_none_already_may_be_said(said):
    assert check_labels(cells(["T", None, "B"]), "kind", unlabeled_category=said)[1].tolist() == [1, -1, 0]
    assert Columns("kind", said).unlabeled_category == "Unknown"


@pytest.mark.parametrize("number", [99, 99.0, np.int64(99), "99"], ids=repr)
def test_a_number_for_none_is_one_name_in_whatever_type(number):
    assert check_labels(cells(pd.Categorical([0, 99, 1])), "kind", unlabeled_category=number)[0] == ["0", "1"]
    assert Columns("kind", number).unlabeled_category == "99"


KINDS = {
    "bytes": [b"T", b"B", None],
    "bytes that became text": ["b'T'", 'b"B"', ""],
    "numpy bytes": np.array([b"T", b"B", b""], dtype="S1"),
    "nullable text": pd.array(["T", "B", None], dtype="string"),
    "blanks": ["T ", "\xa0B", "\t"],
    "blanks without a width": ["T\u200b", "\ufeffB", ""],
}


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_text_of_any_kind_is_text(values):
    names, codes = check_labels(cells(values), "kind")
    assert names == ["B", "T"]
    assert codes.tolist() == [1, 0, -1]


@pytest.mark.parametrize("values", [pd.array([2, 10, None], dtype="Int64"), pd.Categorical([2.0, 10.0, None])])
def test_whole_numbers_of_any_kind_are_labels(values):
    assert check_labels(cells(values), "kind")[0] == ["2", "10"]


def test_words_taken_for_none_are_counted_and_those_documented_are_not():
    assert label_warnings(cells(["T", "B", "Unknown", "", "-1", None, "T", "B"]), "kind") == []
    (said,) = label_warnings(cells(["T", "B", "?", "NA", "NA"]), "kind")
    assert said.startswith("3 cells called '?', 'NA'")
    assert label_warnings(cells(["T", "B", "NA"]), "kind", unlabeled_category="NA") == []


@pytest.mark.parametrize(
    "name",
    [
        "doublet/unknown",
        "missing",
        "Failed QC",
        "Negative",
        "Unknown 2",
        "low quality",
        "not sorted",
        "other",
        "Unassigned_3",
    ],
)
def test_a_type_that_sounds_like_none_is_doubted_with_a_remedy(name):
    (said,) = label_warnings(cells(["T", "B", name]), "kind")
    assert f"unlabeled_category={name!r}" in said


ALIKE = [("Neutrophil", "Neutrophils"), ("T.cell", "T cell"), ("T_cell", "t-cell"), ("Fetal_Neuron", "Fetal_neuron")]
APART = [("CD4+", "CD4-"), ("CD4+ T", "CD8+ T"), ("c1.1", "c11"), ("1", "11"), ("γδ T", "T"), ("B", "NK")]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_one_type_written_in_two_ways_is_doubted_and_stays_two(one, other):
    adata = cells([one, other, "something else"])
    assert len(check_labels(adata, "kind")[0]) == 3
    (said,) = label_warnings(adata, "kind")
    assert repr(one) in said
    assert repr(other) in said


@pytest.mark.parametrize(("one", "other"), APART)
def test_types_that_differ_are_not_doubted(one, other):
    assert label_warnings(cells([one, other]), "kind") == []


def test_spellings_that_differ_by_blanks_are_one_type_and_said():
    adata = cells(["T cell", "T cell ", "T\xa0cell", "B"])
    assert check_labels(adata, "kind")[0] == ["B", "T cell"]
    (said,) = label_warnings(adata, "kind")
    assert said.startswith("T cell: written in several ways")


NO_TYPES = {
    "totals": (np.arange(400) // 2, "200 different"),
    "scores": (np.linspace(0, 1, 400).round(3), "400 different values for as many cells"),
    "scores of few digits": (np.tile(np.linspace(0, 1, 120), 10), "120 different numbers"),
    "dates": (pd.to_datetime(["2024-01-01", "2024-02-01"] * 50), "dates"),
    "durations": (pd.to_timedelta([1, 2] * 50, unit="D"), "times"),
    "names of cells": ([f"AAAC-{i}" for i in range(60)], "60 different values"),
    "categories of numbers": (pd.Categorical(np.tile(np.arange(150), 10)), "150 different numbers"),
}


@pytest.mark.parametrize(("values", "said"), NO_TYPES.values(), ids=NO_TYPES)
def test_a_column_that_holds_no_types_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        strip_to_inputs(cells(values), Columns("kind"))


def test_hundreds_of_clusters_are_doubted():
    _, doubts = strip_to_inputs(cells([f"cluster {i % 300}" for i in range(3_000)]), Columns("kind"))
    assert any("300 labels" in text for text in doubts)


def test_numbers_of_clusters_are_types():
    assert strip_to_inputs(cells(np.arange(400) % 60), Columns("kind"))[1] == []

"""Coarse labels: which types each allows, and tables that are none."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata import AnnData
from refused import refused

from scanvi_tutorial.inputs.cells import Columns, allowed_of, strip_to_inputs
from scanvi_tutorial.inputs.coarse import allowed_types, smallest_parents

TREE = {"T": ["CD4", "CD8"], "lymphocyte": ["T", "B"]}


def cells(labels, **columns):
    obs = pd.DataFrame({"kind": labels, **columns}, index=[f"c{i}" for i in range(len(labels))])
    return AnnData(scipy.sparse.csr_matrix(np.eye(len(labels), dtype=np.float32) + 1), obs=obs)


def test_a_coarse_label_allows_all_types_below_it_and_is_none():
    names = ["B", "CD4", "CD8", "T", "lymphocyte", "monocyte"]
    types, codes, allowed = allowed_types(names, np.array([0, 3, 4, -1, 5]), TREE)
    assert types == ["B", "CD4", "CD8", "monocyte"]
    assert [[kind for kind, may in zip(types, allowed[code], strict=True) if may] for code in codes if code >= 0] == [
        ["B"],
        ["CD4", "CD8"],
        ["B", "CD4", "CD8"],
        ["monocyte"],
    ]
    assert codes[3] == -1


def test_what_cells_may_be_is_read_off_them_and_a_hidden_label_is_hidden():
    adata = cells(["B", "CD4", "CD8", "T", "lymphocyte", "", "B", "CD4"])
    plain, _ = strip_to_inputs(adata, Columns("kind", coarse=TREE))
    types, codes, allowed = allowed_of(plain, "kind")
    assert types == ["B", "CD4", "CD8"]
    assert codes.tolist() == [0, 1, 2, -1, -1, -1, 0, 1]
    assert allowed[3].tolist() == [False, True, True]
    assert np.delete(allowed, 3, axis=0).all()  # what an exact label says is not told twice, so it can be hidden


def test_a_column_of_parents_labels_cells_that_have_no_other_label():
    kinds, parents = ["CD4", "CD8", "B", "", "", "CD4", "mono", "", ""], ["T", "T", "B", "T", "", "T", "myeloid"]
    adata = cells(kinds, parent=[*parents, "myeloid", "stroma"])
    plain, notes = strip_to_inputs(adata, Columns("kind", coarse="parent"))
    types, codes, allowed = allowed_of(plain, "kind")
    assert types == ["B", "CD4", "CD8", "mono"]
    assert allowed[3].tolist() == [False, True, True, False]
    assert allowed[4].all()
    assert codes[7] == -1  # its parent says which type it is, and it has no label of its own that could be hidden
    assert allowed[7].tolist() == [False, False, False, True]
    said = " ".join(notes)
    assert "'myeloid' stands for 'mono' alone" in said
    assert "Of the parent 'stroma' no type is labeled" in said


def test_a_coarse_name_that_no_cell_has_is_said():
    adata = cells(["CD4", "CD8", "B", "T cell", ""])
    _, notes = strip_to_inputs(adata, Columns("kind", coarse={"T cells": ["CD4", "CD8"]}))
    assert any("'T cells'; did you mean 'T cell'?" in note for note in notes)


@pytest.mark.parametrize(
    ("coarse", "words"),
    [
        ({"T": ["CD4", "CD8"], "helper": ["CD4"]}, ["CD4", "T", "helper", "two parents"]),
        ({"T": ["X"], "X": ["T"]}, ["'T'", "'X'", "circle"]),
        ({"T": ["T"]}, ["circle"]),
        ({"T": ["CD4", "CD88"]}, ["CD88", "CD8"]),
        ({"T": []}, ["'T'"]),
        ({"T": "CD4"}, ["list"]),
        (["T"], ["dict"]),
        ({"T": ["CD4", "CD8", "B"]}, None),
    ],
)
def test_tables_that_make_no_tree_are_refused_by_name(coarse, words):
    adata = cells(["CD4", "CD8", "B", "T", ""])
    if words is None:  # a coarse name for all types says nothing, and does no harm
        assert allowed_of(strip_to_inputs(adata, Columns("kind", coarse=coarse))[0], "kind")[2][3].all()
        return
    text = refused(lambda: strip_to_inputs(adata, Columns("kind", coarse=coarse)))
    assert all(word in text for word in words)


def test_a_column_with_two_parents_of_one_type_is_refused():
    adata = cells(["CD4", "CD4", "B"], parent=["T", "lymph", "B"])
    text = refused(lambda: strip_to_inputs(adata, Columns("kind", coarse="parent")))
    assert "2 parents" in text
    assert "'lymph' (1 cells)" in text


def test_a_set_of_types_has_the_smallest_coarse_name_that_holds_it():
    tree = {"lymphocyte": ["T", "B"], "blood": ["lymphocyte", "monocyte"], "T": ["CD4", "CD8"]}
    types = ["B", "CD4", "CD8", "monocyte", "stroma"]
    expected = {
        ("CD4",): "CD4",
        ("stroma",): "stroma",
        ("CD4", "CD8"): "T",
        ("B", "CD8"): "lymphocyte",
        ("B", "CD4", "CD8"): "lymphocyte",
        ("CD4", "monocyte"): "blood",
        ("B", "CD4", "CD8", "monocyte"): "blood",
        ("B", "stroma"): "",
        tuple(types): "",
    }
    own = [*expected, ("CD4", "CD8"), ("CD4",)]  # a set may come again
    sets = np.array([[kind in inside for kind in types] for inside in own])
    assert smallest_parents(tree, types, sets) == [expected[inside] for inside in own]
    assert smallest_parents({}, types, sets[:3]) == ["CD4", "stroma", ""]

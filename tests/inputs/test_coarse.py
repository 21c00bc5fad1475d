"""Coarse labels: which types each allows, and tables that are none."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata import AnnData
from refused import refused

from scanvi_tutorial.inputs.cells import Columns, allowed_of, strip_to_inputs
from scanvi_tutorial.inputs.coarse import allowed_types

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
    types, allowed = allowed_of(plain, "kind")
    assert types == ["B", "CD4", "CD8"]
    assert allowed.astype(int).tolist() == [
        *([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]),
        *([1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 0]),
    ]
    plain.obs.loc["c0", "kind"] = np.nan
    assert allowed_of(plain, "kind")[1][0].all()


def test_a_column_of_parents_labels_cells_that_have_no_other_label():
    adata = cells(["CD4", "CD8", "B", "", "", "CD4", "mono"], parent=["T", "T", "B", "T", "", "T", "myeloid"])
    plain, _ = strip_to_inputs(adata, Columns("kind", coarse="parent"))
    types, allowed = allowed_of(plain, "kind")
    assert types == ["B", "CD4", "CD8", "mono"]
    assert allowed[3].tolist() == [False, True, True, False]
    assert allowed[4].all()


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
        assert allowed_of(strip_to_inputs(adata, Columns("kind", coarse=coarse))[0], "kind")[1][3].all()
        return
    text = refused(lambda: strip_to_inputs(adata, Columns("kind", coarse=coarse)))
    assert all(word in text for word in words)


def test_a_column_with_two_parents_of_one_type_is_refused():
    adata = cells(["CD4", "CD4", "B"], parent=["T", "lymph", "B"])
    assert "two parents" in refused(lambda: strip_to_inputs(adata, Columns("kind", coarse="parent")))

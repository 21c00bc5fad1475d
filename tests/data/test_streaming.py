"""Counts read in blocks: the same as all at once, checked as well, and never held whole."""

import tracemalloc
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.data import load, streaming
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.data.streaming import open_cells
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.inputs import InputError, InputWarning, check_counts
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit


@pytest.fixture
def adata():
    made = load("simulated", cells=120, genes=40)
    made.layers["twice"] = made.X * 2
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "_CELLS_AT_ONCE", 50)  # the last block is short
    monkeypatch.setattr(streaming, "_NUMBERS_AT_ONCE", 120 * 7)  # and seven genes at once


def same(found, wanted):
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
    pd.testing.assert_index_equal(found.var_names, wanted.var_names)
    assert (found.X != wanted.X).nnz == 0
    assert found.X.dtype == np.float32


def mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("n", [25, 40, 100])
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("store", ["h5ad", "zarr v2", "zarr v3"])
def test_a_file_read_in_blocks_gives_what_it_gives_when_read_at_once(adata, tmp_path, n, form, store):
    adata.X = adata.X.asformat(form)
    path = tmp_path / f"cells.{store[:4]}"
    if store == "h5ad":
        adata.write_h5ad(path)
    else:
        with anndata.settings.override(zarr_write_format=int(store[-1])), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what anndata and zarr say of their own future on writing
            adata.write_zarr(path)
    found = open_cells(path, n)
    same(found, select_genes(adata, n))
    assert found.uns["markers"].keys() == adata.uns["markers"].keys()
    same(open_cells(f"{path}/" if path.is_dir() else str(path), n), found)


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_a_store_without_uns_is_read(adata, tmp_path, form):
    del adata.uns["markers"]
    adata.X = adata.X.asformat(form)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as store:
        del store["uns"]
    found = open_cells(tmp_path / "cells.h5ad", 25)
    same(found, select_genes(anndata.read_h5ad(tmp_path / "cells.h5ad"), 25))
    assert not found.uns


def test_counts_stored_gene_by_gene_may_stay_on_disk(adata, tmp_path):
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = open_cells(tmp_path / "cells.h5ad", 25, folder=tmp_path / "kept")
    same(found, select_genes(adata, 25))
    assert all(mapped(part) for part in (found.X.data, found.X.indices))
    assert np.shares_memory(check_counts(found).data, found.X.data)


def test_kept_counts_may_stay_on_disk_and_the_fit_is_the_same(adata, tmp_path):
    seed_labels(adata, 5, "random").write_h5ad(tmp_path / "cells.h5ad")
    held = open_cells(tmp_path / "cells.h5ad", 25)
    on_disk = open_cells(tmp_path / "cells.h5ad", 25, folder=tmp_path / "new" / "kept")
    same(on_disk, held)
    assert len(list((tmp_path / "new" / "kept").iterdir())) == 1  # nothing half written is left
    assert all(mapped(part) for part in (on_disk.X.data, on_disk.X.indices))
    assert not mapped(held.X.data)
    counts = check_counts(on_disk)
    assert np.shares_memory(counts.data, on_disk.X.data)  # what looks at them takes no copy
    tables = []
    for cells in (held, on_disk):
        model = SCANVI.from_anndata(cells, labels_key="label")
        fit(model, cells, TrainConfig(max_epochs=2, batch_size=32, device="cpu"))
        tables.append(label_probabilities(model, cells))
    pd.testing.assert_frame_equal(*tables)


def test_a_folder_used_again_leaves_the_cells_read_before_alone(adata, tmp_path):
    adata.write_h5ad(tmp_path / "first.h5ad")
    adata.X = adata.X * 2
    adata[::2].copy().write_h5ad(tmp_path / "second.h5ad")
    first = open_cells(tmp_path / "first.h5ad", 25, folder=tmp_path / "kept")
    before = first.X.toarray()
    second = open_cells(tmp_path / "second.h5ad", 25, folder=tmp_path / "kept")
    np.testing.assert_array_equal(first.X.toarray(), before)
    np.testing.assert_array_equal(second.X.toarray(), 2 * before[::2])


def test_counts_that_are_on_disk_are_not_read_again_until_a_file_changes(adata, tmp_path, monkeypatch):
    path, read = tmp_path / "cells.h5ad", []
    adata.write_h5ad(path)
    original = streaming._part_of
    monkeypatch.setattr(streaming, "_part_of", lambda *which: read.append(1) or original(*which))
    same(open_cells(path, 25, folder=tmp_path / "kept"), select_genes(adata, 25))
    first = len(read)
    same(open_cells(path, 25, folder=tmp_path / "kept"), select_genes(adata, 25))
    assert len(read) == first > 0
    adata.X = adata.X * 2
    adata.write_h5ad(path)
    same(open_cells(path, 25, folder=tmp_path / "kept"), select_genes(adata, 25))


@pytest.fixture
def three(adata, tmp_path):
    """Cells in three files: genes in another order and one gene fewer, labels in the first, in three layouts."""
    parts = [adata[:50].copy(), adata[50:90, ::-1].copy(), adata[90:, adata.var_names != "gene07"].copy()]
    parts[0].obs["kind"] = parts[0].obs["truth"]
    parts[1].X, parts[2].X = parts[1].X.tocsc(), parts[2].X.toarray()
    for number, part in enumerate(parts):
        part.write_h5ad(tmp_path / f"donor{number}.h5ad")
    return adata[:, adata.var_names != "gene07"].copy(), [tmp_path / f"donor{number}.h5ad" for number in range(3)]


@pytest.mark.parametrize("folder", [None, "kept"])
def test_several_files_are_one_table_with_the_genes_that_all_have(three, tmp_path, folder):
    whole, paths = three
    wanted = select_genes(whole, 25)
    with pytest.warns(InputWarning, match="1 of 40 genes are not in all of the 3 files"):
        found = open_cells(paths, 25, folder=folder and tmp_path / folder)
    assert list(found.obs_names) == list(whole.obs_names)
    assert list(found.var_names) == list(wanted.var_names)
    assert (found.X != wanted.X).nnz == 0
    assert list(found.obs["file"]) == ["donor0"] * 50 + ["donor1"] * 40 + ["donor2"] * 30
    assert list(found.obs["kind"][:50]) == list(whole.obs["truth"][:50])
    assert found.obs["kind"][50:].isna().all()
    assert isinstance(found.obs["truth"].dtype, pd.CategoricalDtype)


def test_the_files_of_a_folder_are_taken_by_name_and_their_cells_told_apart(adata, tmp_path):
    for name in ("b", "a"):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    found = open_cells(tmp_path, 25)
    assert list(found.obs["file"].cat.categories) == ["a", "b"]
    assert found.obs_names[0] == f"{adata.obs_names[0]}-a"
    assert found.obs_names.is_unique


def test_what_is_wrong_with_one_of_several_files_is_said_with_its_name(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    whole = adata.X.toarray()
    whole[3, 3] = 0.5
    adata.X = whole
    adata.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"b\.h5ad: .*gene 'gene04' is 0\.5"):
        open_cells([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], 25)
    adata.var_names = [f"ENSG{number:011d}" for number in range(40)]
    adata.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"b\.h5ad .*share 0 of the 40 genes"):
        open_cells(tmp_path, 25)
    for paths, text in (([], "empty list"), ([tmp_path / "a.h5ad"] * 2, "named twice")):
        with pytest.raises(InputError, match=text):
            open_cells(paths)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no \.h5ad or \.zarr in the folder"):
        open_cells(tmp_path / "none")


def test_other_processes_map_counts_on_disk_and_are_not_sent_them(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = open_cells(tmp_path / "cells.h5ad", 25, folder=tmp_path / "kept")
    get_reusable_executor().shutdown(wait=True)  # of an earlier test, which cannot import this file
    (there,) = Parallel(2, max_nbytes=None)([delayed(is_mapped)(found), delayed(int)(1)])[:1]
    assert there


def is_mapped(adata):
    return mapped(adata.X.data) and mapped(adata.X.indices) and adata.X.sum() > 0


def test_counts_on_disk_are_never_held(tmp_path):
    load("simulated", cells=3_000, genes=60).write_h5ad(tmp_path / "cells.h5ad")
    peaks = {}
    for folder in (None, tmp_path):
        tracemalloc.start()
        found = open_cells(tmp_path / "cells.h5ad", 50, folder=folder)
        check_counts(found)
        peaks[folder], size = tracemalloc.get_traced_memory()[1], 8 * found.X.nnz
        tracemalloc.stop()
    assert peaks[None] - peaks[tmp_path] > 0.8 * size


def test_a_folder_that_cannot_take_the_counts_is_named(adata, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file cannot take .* more room"):
        open_cells(tmp_path / "cells.h5ad", 25, folder=tmp_path / "file")
    with pytest.raises(InputError, match="n must be"):
        open_cells(tmp_path / "cells.h5ad", 0)


@pytest.mark.parametrize("form", ["dense", "int32", "explicit zeros"])
def test_other_forms_of_counts_are_converted(adata, tmp_path, form):
    wanted = select_genes(adata, 25)
    if form == "dense":
        adata.X = adata.X.toarray()
    elif form == "int32":
        adata.X = adata.X.astype(np.int32)
    else:
        coo = adata.X.tocoo()
        zeros = np.zeros(60, dtype=np.float32)
        parts = np.r_[coo.data, zeros], (np.r_[coo.row, np.arange(60)], np.r_[coo.col, np.full(60, 39)])
        adata.X = scipy.sparse.csr_matrix(parts, adata.shape)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    same(open_cells(tmp_path / "cells.h5ad", 25), wanted)


def test_counts_may_be_in_a_layer(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found, wanted = open_cells(tmp_path / "cells.h5ad", 25, layer="twice"), select_genes(adata, 25)
    assert (found.X != 2 * wanted.X).nnz == 0


def test_a_fault_is_found_in_whichever_block_it_is_and_the_cell_is_named(adata, tmp_path):
    whole = adata.X.toarray()
    whole[110, 3] = 0.5
    adata.X = scipy.sparse.csr_matrix(whole)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match=rf"cell '{adata.obs_names[110]}', gene 'gene04' is 0.5"):
        open_cells(tmp_path / "cells.h5ad", 25)


def test_what_cannot_be_streamed_is_refused_with_advice(adata, tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        open_cells(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("cells")
    with pytest.raises(InputError, match=r"called \.h5ad but is not HDF5"):
        open_cells(tmp_path / "text.h5ad")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*empty\.zarr as an AnnData"):
        open_cells(tmp_path / "empty.zarr")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match=r"no counts in layers/none of .* layer='twice'"):
        open_cells(tmp_path / "cells.h5ad", layer="none")


@pytest.mark.parametrize(("form", "most"), [("csr", 50 * 40), ("csc", 120 * 7), ("dense", 50 * 40)])
def test_no_block_larger_than_asked_for_is_ever_read(adata, tmp_path, monkeypatch, form, most):
    sizes, original = [], streaming._part_of
    adata.X = adata.X.toarray() if form == "dense" else adata.X.asformat(form)
    adata.write_h5ad(tmp_path / "cells.h5ad")

    def watched(matrix, which):
        part = original(matrix, which)
        sizes.append(part.shape[0] * part.shape[1])
        return part

    monkeypatch.setattr(streaming, "_part_of", watched)
    open_cells(tmp_path / "cells.h5ad", 25)
    assert max(sizes) == most
    assert sizes.count(120 * 40) == 0


def test_counts_stored_gene_by_gene_are_read_in_less_memory_than_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_NUMBERS_AT_ONCE", 2_000 * 5)
    matrix = scipy.sparse.random(2_000, 300, 0.5, "csc", dtype=np.float32, rng=0)
    matrix.data[:] = 1
    anndata.AnnData(matrix).write_h5ad(tmp_path / "cells.h5ad")
    tracemalloc.start()
    open_cells(tmp_path / "cells.h5ad", 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 8 * matrix.nnz


def said(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return str(caught.value)


FORMS = {"csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix, "dense": np.asarray}


def logarithms(adata):
    return np.log1p(adata.X.toarray())


def one_late_fault(adata):
    """Return counts of which two are none; column by column the wrong one would come first."""
    whole = adata.X.toarray()
    whole[60, 30], whole[110, 2] = 0.5, -1
    return whole


def cells_without_counts(adata):
    whole = adata.X.toarray()
    whole[[30, 70, 115]] = 0
    return whole


@pytest.mark.parametrize("wrong", [logarithms, one_late_fault, cells_without_counts])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("elsewhere", ["nowhere", "layer", "raw", "X"])
def test_counts_are_refused_in_the_words_in_which_they_are_when_read_at_once(adata, tmp_path, wrong, form, elsewhere):
    right, layer = FORMS[form](adata.X.toarray()), None
    del adata.layers["twice"]
    if elsewhere == "layer":
        adata.layers["scaled"], adata.layers["umi"] = FORMS[form](logarithms(adata)), right
    if elsewhere == "raw":
        adata.raw = adata.copy()
    if elsewhere == "X":
        adata.layers["changed"], layer = FORMS[form](wrong(adata)), "changed"
        adata.X = right
    else:
        adata.X = FORMS[form](wrong(adata))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    whole = said(select_genes, anndata.read_h5ad(tmp_path / "cells.h5ad"), 25, layer=layer)
    assert said(open_cells, tmp_path / "cells.h5ad", 25, layer=layer) == whole


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_cells_or_no_genes_are_refused(tmp_path, form, shape):
    anndata.AnnData(FORMS[form](np.zeros(shape, dtype=np.float32))).write_h5ad(tmp_path / "cells.h5ad")
    assert f"{shape[0]} cells × {shape[1]} genes" in said(open_cells, tmp_path / "cells.h5ad")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_a_gene_name_that_occurs_twice_is_refused(adata, tmp_path):
    adata.var_names = ["gene"] * 2 + list(adata.var_names[2:])
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert said(open_cells, tmp_path / "cells.h5ad", 25) == said(select_genes, adata, 25)


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_indices_that_point_outside_are_damage(adata, tmp_path, form):
    adata.X = adata.X.asformat(form)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as store:
        store["X/indices"][3] = 10**6
    assert "cells.h5ad is damaged (indices in /X point outside" in said(open_cells, tmp_path / "cells.h5ad")


@pytest.mark.parametrize("damage", ["cut short", "no starts", "no names", "no table"])
def test_a_broken_file_is_an_error_of_ours(adata, tmp_path, damage):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "r+") as store:
            del store[{"no starts": "X/indptr", "no names": "obs/_index", "no table": "obs"}[damage]]
            if damage == "no table":
                store["obs"] = [1, 2]
    with pytest.raises(InputError, match=r"is damaged \(" if damage == "cut short" else "cannot read"):
        open_cells(path)


@pytest.mark.parametrize("form", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, np.asarray])
def test_features_that_are_no_genes_are_left_out_and_counted(adata, tmp_path, form):
    mixed = adata.copy()
    mixed.var["feature_types"] = ["Antibody Capture", "Gene Expression"] * 20
    counts = mixed.X.toarray()
    counts[:, 2] = 0.5  # of an antibody, whose values are none of our business
    mixed.X = form(counts)
    mixed.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.warns(InputWarning, match="20 of 40 features are no genes"):
        ours = open_cells(tmp_path / "cells.h5ad", 15)
    with pytest.warns(InputWarning, match="20 of 40"):
        theirs = select_genes(mixed, 15)
    assert list(ours.var_names) == list(theirs.var_names)
    np.testing.assert_array_equal(ours.X.toarray(), scipy.sparse.csr_matrix(theirs.X).toarray())

"""The sorted blood cells hold what their source says; the facts are tested where the file is at hand."""

import shutil
import warnings

import numpy as np
import pytest

from scanvi_tutorial.config import RunConfig
from scanvi_tutorial.data.facs import MARKERS, POPULATIONS, load_facs, load_facs_t, read_facs
from scanvi_tutorial.data.pbmc import MARKERS as T_MARKERS
from scanvi_tutorial.data.seeds import purity
from scanvi_tutorial.inputs import InputError

FILE = "pbmc_facs.RData"


@pytest.fixture(scope="module")
def folder():
    place = RunConfig.from_env().data_dir
    if place is None or not (place / FILE).is_file():
        pytest.skip(f"{FILE} is not at hand: set SCANVI_DATA_DIR to a folder that holds it to test the sorted cells")
    return place


@pytest.fixture(scope="module")
def facs(folder):
    return load_facs(data_dir=folder)


@pytest.fixture(scope="module")
def facs_t(folder):
    return load_facs_t(data_dir=folder)


@pytest.fixture(scope="module")
def raw(folder):
    """Return the R object as rdata gives it without our help, slots and all."""
    import rdata

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing constructor for R class", UserWarning)
        return rdata.read_rda(folder / FILE)["pbmc_facs"]


def test_cells_and_genes_are_as_many_as_the_source_says(facs):
    assert facs.shape == (3_874, 16_791)
    assert facs.obs["split"].value_counts().to_dict() == {"train": 3_774, "test": 100}
    assert facs.obs["truth"].nunique() == 10
    assert facs.obs["truth"].notna().all()


def test_counts_are_whole_and_not_negative(facs):
    assert facs.X.dtype == np.float32
    assert (facs.X.data == np.rint(facs.X.data)).all()
    assert facs.X.data.min() == 1


def test_every_gene_of_the_source_holds_the_same_counts_here(facs, raw):
    train, test = raw["counts"], raw["counts_test"]
    ours = facs.X.tocsc()
    for gene in range(0, 16_791, 97):  # the slots of a dgCMatrix list a gene's cells from p[gene] to p[gene + 1]
        expected = np.zeros(3_874)
        for slots, first in ((train, 0), (test, 3_774)):
            span = slice(slots.p[gene], slots.p[gene + 1])
            expected[first + slots.i[span]] = slots.x[span]
        np.testing.assert_array_equal(ours[:, [gene]].toarray().ravel(), expected)
    assert facs.X.nnz == len(train.x) + len(test.x)
    assert facs.X.sum(dtype=np.float64) == train.x.sum() + test.x.sum()


def test_cells_are_named_and_typed_as_in_the_source(facs, raw):
    names = [*raw["counts"].Dimnames[0], *raw["counts_test"].Dimnames[0]]
    types = [*raw["samples"]["celltype"], *raw["samples_test"]["celltype"]]
    assert list(facs.obs_names) == names
    assert [POPULATIONS[name] for name in types] == list(facs.obs["truth"])
    suffix = facs.obs_names.str.split("-", n=2).str[2]  # the name of the run that a cell comes from
    assert facs.obs.groupby(suffix)["truth"].nunique().eq(1).all()


def test_names_are_unique_and_ensembl_ids_are_kept(facs, raw):
    assert facs.obs_names.is_unique
    assert facs.var_names.is_unique
    assert list(facs.var["ensembl"]) == list(raw["counts"].Dimnames[1])
    symbols = list(raw["genes"]["symbol"])
    assert sum(ours != theirs for ours, theirs in zip(facs.var_names, symbols, strict=True)) == 9


def test_the_t_cells_are_888_of_four_types_from_both_splits(facs, facs_t):
    sizes = {"CD4 memory": 238, "CD8 naive": 238, "CD4 regulatory": 214, "CD4 naive": 198}
    assert facs_t.obs["truth"].value_counts().to_dict() == sizes
    assert facs_t.obs["split"].value_counts().to_dict() == {"train": 862, "test": 26}
    assert list(facs_t.obs["truth"].cat.categories) == list(T_MARKERS)
    np.testing.assert_array_equal(facs_t.X.toarray(), facs[facs_t.obs_names].X.toarray())


def test_every_marker_is_measured(facs):
    for table in (MARKERS, T_MARKERS):
        assert {g for sides in table.values() for side in sides.values() for g in side} <= set(facs.var_names)


def test_marker_seeds_of_ten_types_are_right_where_a_type_has_markers(facs):
    table = purity(facs)["purity"]
    assert table.loc[["CD34+", "CD14+ monocyte", "B", "NK", "CD8 cytotoxic", "CD8 naive"]].min() >= 0.9
    assert table["all"] > 0.8
    assert table.loc[["CD4 helper", "CD4 naive"]].max() < 0.7  # weak signatures: the text says so


def test_marker_seeds_of_t_cells_are_right_three_times_in_four(facs_t):
    table = purity(facs_t)
    assert table.loc["all"].to_dict() == {"seeds": 40, "right": 31, "purity": 0.775}
    assert table.loc["CD4 naive", "purity"] == 0.5


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / FILE).write_text("not R")
    with pytest.raises(InputError, match="does not hold the sorted blood cells"):
        read_facs(tmp_path / FILE)


def test_half_a_file_is_refused(folder, tmp_path):
    shutil.copy(folder / FILE, tmp_path / FILE)
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(InputError, match="does not hold the sorted blood cells"):
        read_facs(tmp_path / FILE)

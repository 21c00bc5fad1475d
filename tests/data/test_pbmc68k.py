"""The counts behind scanpy's logarithms are recovered, every one of them, and recovered uniquely."""

import socket

import numpy as np
import pytest
from scanpy.datasets import pbmc68k_reduced
from scipy import sparse

from scanvi_tutorial.data.pbmc68k import MARKERS, MERGED, load_pbmc68k, recover_counts
from scanvi_tutorial.data.seeds import purity

HALF_A_DIGIT = 0.5e-3 + 1e-6  # the source keeps three decimals, as float32


@pytest.fixture(scope="module")
def source():
    return pbmc68k_reduced()


@pytest.fixture(scope="module")
def adata():
    return load_pbmc68k()


@pytest.fixture(scope="module")
def entries(source, adata):
    """Return value v, total n and recovered count x of all non-zero entries, each (174400,)."""
    values = source.raw.X.sorted_indices()
    totals = np.repeat(source.obs["n_counts"].to_numpy(np.float64), np.diff(values.indptr))
    return values.data.astype(np.float64), totals, adata.X.data.astype(np.float64)


def test_no_entry_is_lost_or_made(source, adata):
    values = source.raw.X.sorted_indices()
    assert adata.X.nnz == values.nnz == 174_400
    np.testing.assert_array_equal(adata.X.indices, values.indices)
    np.testing.assert_array_equal(adata.X.indptr, values.indptr)


def test_every_residual_is_small(entries):
    values, totals, counts = entries
    exact = np.expm1(values) * totals / 1e4
    residuals = np.abs(exact - counts)
    assert (residuals <= 5.1e-4 * (counts + totals / 1e4)).all()  # half a unit of the third decimal, carried over to x
    assert residuals.max() == pytest.approx(0.0815, abs=1e-4)
    assert counts[residuals.argmax()] == 213
    assert np.sort(residuals)[-2] < 0.05


def test_every_count_gives_back_its_logarithm_and_its_neighbors_do_not(entries):
    values, totals, counts = entries
    errors = [np.abs(np.log1p(1e4 * (counts + step) / totals) - values) for step in (-1, 0, 1)]
    assert (errors[1] <= HALF_A_DIGIT).all()
    assert (errors[0] > 7 * HALF_A_DIGIT).all()
    assert (errors[2] > 7 * HALF_A_DIGIT).all()


def test_counts_are_whole_and_within_the_total_of_their_cell(adata):
    assert (adata.X.data == np.rint(adata.X.data)).all()
    assert adata.X.data.min() == 1
    assert (np.asarray(adata.X.sum(axis=1)).ravel() <= adata.obs["n_counts"]).all()


def test_recovering_inverts_the_logarithm_of_known_counts():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.negative_binomial(0.3, 0.01, size=(50, 40)))
    totals = rng.integers(1_000, 9_000, size=50)
    shares = sparse.diags_array(1e4 / totals) @ counts
    values = sparse.csr_matrix(np.round(np.log1p(shares.toarray()), 3), dtype=np.float32)
    np.testing.assert_array_equal(recover_counts(values, totals).toarray(), counts.toarray())


def test_ten_populations_become_seven_types(source, adata):
    sizes = {"B": 95, "CD14+ monocyte": 129, "dendritic": 240, "NK": 31, "CD4 T": 95, "CD8 T": 97, "CD34+": 13}
    assert adata.obs["truth"].value_counts().to_dict() == sizes
    assert set(source.obs["bulk_labels"].cat.categories) == set(MERGED)
    assert [MERGED[name] for name in adata.obs["population"]] == list(adata.obs["truth"])


def test_every_marker_is_measured_and_those_we_do_without_are_not(adata):
    assert {g for sides in MARKERS.values() for side in sides.values() for g in side} <= set(adata.var_names)
    assert not {"CD14", "CD34", "FOXP3", "IL2RA"} & set(adata.var_names)


def test_nine_of_ten_marker_seeds_are_right(adata):
    table = purity(adata)
    assert (table["seeds"] == [10] * 7 + [70]).all()
    assert table["purity"].min() >= 0.9
    assert table.loc["all", "purity"] > 0.93


def test_no_network_is_needed(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("pbmc68k reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_pbmc68k(per_label=3).shape == (700, 765)

"""Which genes stay, in which order, and what goes with them."""

import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.data.simulated import load_simulated
from scanvi_tutorial.inputs import InputError


@pytest.fixture
def adata():
    """Return 120 cells × 200 genes, twenty of them markers."""
    return load_simulated(cells=120, genes=200, seed=4)


def markers_of(adata):
    return {gene for sides in adata.uns["markers"].values() for gene in sides["positive"]}


def test_the_most_detected_genes_stay(adata):
    adata.uns["markers"] = {}
    detected = (adata.X.toarray() > 0).sum(axis=0)
    kept = select_genes(adata, 50).var_names
    worst_kept = detected[adata.var_names.isin(kept)].min()
    assert len(kept) == 50
    assert worst_kept >= detected[~adata.var_names.isin(kept)].max()


def test_the_most_variable_genes_are_scanpys(adata):
    adata.uns["markers"] = {}
    logs = adata.copy()
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    sc.pp.highly_variable_genes(logs, n_top_genes=50, flavor="seurat")
    assert set(select_genes(adata, 50, "variable").var_names) == set(logs.var_names[logs.var["highly_variable"]])


@pytest.mark.parametrize("how", ["detected", "variable"])
def test_the_markers_are_always_among_them_and_count(adata, how):
    kept = select_genes(adata, 25, how)
    assert markers_of(adata) <= set(kept.var_names)
    assert kept.n_vars == 25


@pytest.mark.parametrize("how", ["detected", "variable"])
def test_all_markers_stay_where_they_are_more_than_asked_for(adata, how):
    unseen = np.flatnonzero(~adata.var_names.isin(markers_of(adata)))[:9]
    adata.X = csr_matrix(np.where(np.isin(range(200), unseen), 0, adata.X.toarray()))  # such genes have no dispersion
    assert set(select_genes(adata, 5, how).var_names) == markers_of(adata)


def test_genes_keep_their_order_and_cells_their_counts(adata):
    kept = select_genes(adata, 60)
    positions = adata.var_names.get_indexer(kept.var_names)
    assert (np.diff(positions) > 0).all()
    np.testing.assert_array_equal(kept.X.toarray(), adata.X.toarray()[:, positions])
    assert kept.obs.equals(adata.obs)
    assert list(kept.obs["label"].cat.categories) == list(adata.obs["label"].cat.categories)


def test_asking_for_more_genes_than_there_are_gives_all(adata):
    assert list(select_genes(adata, 2_000).var_names) == list(adata.var_names)


@pytest.mark.parametrize("n", [60, 2_000])
def test_what_comes_back_is_a_copy(adata, n):
    kept = select_genes(adata, n)
    before = adata.X.sum()
    kept.X.data[:] = 0
    assert not kept.is_view
    assert adata.X.sum() == before


def test_counts_may_lie_in_a_layer(adata):
    expected = list(select_genes(adata, 60).var_names)
    adata.layers["umi"] = adata.X.copy()
    adata.X = adata.X.log1p()
    assert list(select_genes(adata, 60, layer="umi").var_names) == expected
    with pytest.raises(InputError, match="layer='umi'"):
        select_genes(adata, 60)


@pytest.mark.parametrize(("options", "words"), [({"n": 0}, "at least 1"), ({"how": "best"}, "how must be")])
def test_nonsense_is_refused(adata, options, words):
    with pytest.raises(InputError, match=words):
        select_genes(adata, **options)


def test_no_marker_table_is_needed(adata):
    adata.uns["markers"] = {}
    expected = list(select_genes(adata, 60).var_names)
    for table in (None, {}):
        adata.uns["markers"] = table
        assert list(select_genes(adata, 60).var_names) == expected
    del adata.uns["markers"]
    assert list(select_genes(adata, 60).var_names) == expected

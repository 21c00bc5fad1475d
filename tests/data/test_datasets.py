"""One name, one data set, one form: what `load` promises of all of them."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scanvi_tutorial.config import DATASETS, UNLABELED
from scanvi_tutorial.data import REGISTRY, load
from scanvi_tutorial.inputs import InputError, check_counts


@pytest.fixture(scope="module", params=[name for name, source in REGISTRY.items() if source.download is None])
def loaded(request):
    """Return the name of a data set that needs no download, and the data."""
    return request.param, load(request.param)


def test_every_data_set_of_the_configuration_is_registered():
    assert tuple(REGISTRY) == DATASETS


def test_counts_are_raw_and_csr_float32(loaded):
    _, adata = loaded
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert check_counts(adata) is not None
    assert adata.obs_names.is_unique


def test_labels_have_the_categories_of_the_truth_with_unknown_last(loaded):
    _, adata = loaded
    assert isinstance(adata.obs["truth"].dtype, pd.CategoricalDtype)
    assert list(adata.obs["label"].cat.categories) == [*adata.obs["truth"].cat.categories, UNLABELED]


def test_each_type_has_ten_seeds_and_markers_in_order_of_claim(loaded):
    _, adata = loaded
    seeds = adata.obs["label"].value_counts(sort=False).drop(UNLABELED)
    assert (seeds == 10).all()
    assert list(adata.uns["markers"]) == list(seeds.index)
    for sides in adata.uns["markers"].values():
        assert set(sides) == {"positive", "negative"}


def test_a_data_set_knows_its_name(loaded):
    name, adata = loaded
    assert adata.uns["dataset"] == name


def test_loading_twice_gives_the_same_and_one_does_not_touch_the_other(loaded):
    name, adata = loaded
    again = load(name)
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    next(iter(again.uns["markers"].values()))["positive"].append("a gene")
    assert load(name).uns["markers"] == adata.uns["markers"]


def test_options_reach_the_loader():
    assert load("simulated", cells=123, seed=1).n_obs == 123


def test_an_unknown_name_is_refused_with_the_names_there_are_and_a_guess():
    with pytest.raises(InputError, match="did you mean 'pbmc68k'") as caught:
        load("pbmc-68k")
    assert all(name in str(caught.value) for name in DATASETS)
    assert "st.read_h5ad(path)" in str(caught.value)
    with pytest.raises(InputError, match=r"There is no data set None\. Choose"):
        load(None)

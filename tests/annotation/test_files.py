"""Files annotated together: their copies hold the answer and all that was there; their counts are never held."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

import scanvi_tutorial as st
from scanvi_tutorial.annotation.files import _learned_from, annotate_files
from scanvi_tutorial.annotation.new_cells import answer_for
from scanvi_tutorial.config import UNLABELED_TRAIN, ModelConfig
from scanvi_tutorial.inputs.errors import InputError

QUICK = {
    "fits": 2,
    "jobs": 1,
    "model_config": ModelConfig(gene_hidden=(16,)),
    "train_config": replace(UNLABELED_TRAIN, max_epochs=12),
}


def cells_in(path):
    return (anndata.read_zarr if path.suffix == ".zarr" else anndata.read_h5ad)(path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three files, one of them Zarr, one without a label, annotated from a third of their cells."""
    place = tmp_path_factory.mktemp("files")
    whole = st.load("simulated", cells=900, per_label=30)
    whole.obs["label"] = whole.obs["label"].astype(object)
    parts = {"a.h5ad": whole[:300].copy(), "b.zarr": whole[300:600].copy(), "c.h5ad": whole[600:].copy()}
    del parts["c.h5ad"].obs["label"]
    parts["c.h5ad"].obsm["X_pca"] = np.ones((300, 2))
    (place / "in").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of anndata and zarr, about their own future
        for name, part in parts.items():
            getattr(part, "write_zarr" if name.endswith("zarr") else "write_h5ad")(place / "in" / name)
    answers = annotate_files(place / "in", place / "out", learn_from=300, coverage=0.9, reject=0.05, seed=1, **QUICK)
    return whole, parts, place, *answers


@pytest.mark.filterwarnings("ignore")
def test_every_copy_holds_its_file_and_the_answer_for_its_cells(done):
    _, parts, place, every, _ = done
    first = 0
    for name, part in parts.items():
        copy = cells_in(place / "out" / name)
        assert (copy.X != part.X).nnz == 0
        assert list(copy.obs_names) == list(part.obs_names)
        pd.testing.assert_frame_equal(copy.obs[["truth", "batch"]], part.obs[["truth", "batch"]], check_dtype=False)
        own = slice(first, first + copy.n_obs)
        for column in ("scanvi_label", "scanvi_set"):
            assert list(copy.obs[column]) == list(every.obs[column].iloc[own])
        np.testing.assert_array_equal(copy.obsm["X_scanvi"], every.obsm["X_scanvi"][own])
        assert list(copy.obsm["scanvi_probabilities"]) == list(every.obsm["scanvi_probabilities"])
        assert set(copy.obsm) == {*part.obsm, "X_scanvi", "scanvi_probabilities"}
        assert copy.uns["scanvi"]["warnings"][0] == "Learned from 300 of the 900 cells in 3 files."
        first += copy.n_obs
    assert sorted(file.name for file in (place / "out").iterdir()) == [
        "a.h5ad",
        "annotation.safetensors",
        *list(parts)[1:],
    ]


def test_names_are_right_as_often_as_when_all_cells_are_learned_from_and_labels_stay(done):
    whole, _, _, every, learned_from = done
    st.annotate(whole, seed=1, **QUICK)
    truth = whole.obs["truth"].astype(str).to_numpy()
    told = every.obs["label"].notna().to_numpy() & (every.obs["label"] != "unlabeled").to_numpy()
    told &= every.obs["label"].astype(str).isin(every.obs["truth"].cat.categories).to_numpy()
    assert (every.obs["scanvi_label"].astype(str)[told] == every.obs["label"].astype(str)[told]).all()
    best = every.obsm["scanvi_probabilities"].idxmax(axis=1).to_numpy()
    right = [(found == truth)[~told].mean() for found in (best, whole.obs["scanvi_label"].astype(str).to_numpy())]
    assert right[0] > right[1] - 0.05 > 0.75
    assert learned_from.n_obs == 300
    assert learned_from.X.sum() > 0


def test_what_was_learned_is_kept_and_names_cells_as_the_copies_say(done):
    whole, _, place, every, _ = done
    annotator = st.Annotator.load(place / "out" / "annotation.safetensors")
    table, *_ = answer_for(annotator, whole[600:].copy(), coverage=None, reject=None)
    np.testing.assert_allclose(table.to_numpy(), every.obsm["scanvi_probabilities"].to_numpy()[600:], atol=1e-5)


def test_nothing_is_replaced_and_two_files_of_one_name_are_refused(done, tmp_path):
    _, _, place, *_ = done
    with pytest.raises(InputError, match=r"out/a\.h5ad exists already"):
        annotate_files(place / "in", place / "out")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.h5ad").write_bytes((place / "in" / "a.h5ad").read_bytes())
    with pytest.raises(InputError, match="same name"):
        annotate_files([place / "in" / "a.h5ad", tmp_path / "more" / "a.h5ad"], tmp_path / "new")


@pytest.mark.parametrize(("labeled", "most"), [(50, 1_000), (5_000, 1_000), (9_990, 1_000), (10_000, 1_000), (0, 500)])
def test_rare_types_are_learned_from_and_half_of_the_cells_have_no_label_where_so_many_have_none(labeled, most):
    rng = np.random.default_rng(0)
    codes = np.where(rng.permutation(10_000) < labeled, rng.choice(3, 10_000, p=[0.9, 0.095, 0.005]), -1)
    rows = _learned_from(codes, most, 0)
    assert len(np.unique(rows)) == most
    assert (np.diff(rows) > 0).all()
    there, taken = (np.bincount(part[part >= 0], minlength=3) for part in (codes, codes[rows]))
    assert (taken >= np.minimum(there, 100)).all()
    assert taken.sum() == min(labeled, max(most // 2, most - (10_000 - labeled)))

"""Whatever the caller has set in other libraries, the answer is the same, and the settings are left as found."""

import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch

from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.inputs.session import one_thread, scanpy_module
from scanvi_tutorial.plotting import umap

SMALL = ModelConfig(n_latent=3, gene_hidden=(8,), label_hidden=(8,), classifier_hidden=(8,))
QUICK = {"model_config": SMALL, "train_config": TrainConfig(max_epochs=2, batch_size=32), "fits": 2}


def answers(folder):
    """Return what is said of the cells by annotate, then by predict, how right simpler methods were, and a map."""
    adata = load("simulated", cells=80, genes=30, per_label=6)
    annotate(adata, model=folder / "model", **QUICK)
    new = load("simulated", cells=80, genes=30)
    predict(folder / "model", new)
    compared = pd.DataFrame(adata.uns["scanvi"]["compared"]).to_numpy()
    return [*(cells.obsm["scanvi_probabilities"].to_numpy() for cells in (adata, new)), compared, umap(adata)]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return answers(tmp_path_factory.mktemp("usual"))


SETTINGS = {  # name: (set, what is there then, put back)
    "scikit-learn returns tables": (
        lambda: sklearn.set_config(transform_output="pandas"),
        lambda: sklearn.get_config()["transform_output"],
        lambda: sklearn.set_config(transform_output="default"),
    ),
    "torch makes float64": (
        lambda: torch.set_default_dtype(torch.float64),
        torch.get_default_dtype,
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "torch makes tensors without values": (
        lambda: torch.set_default_device("meta"),
        torch.get_default_device,
        lambda: torch.set_default_device(None),
    ),
    "no gradients": (
        lambda: torch.set_grad_enabled(False),
        torch.is_grad_enabled,
        lambda: torch.set_grad_enabled(True),
    ),
}


@pytest.mark.parametrize(("change", "now", "back"), SETTINGS.values(), ids=SETTINGS)
def test_settings_of_the_session_change_no_answer_and_are_left_as_found(tmp_path, usual, change, now, back):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change()
        try:
            before = now()
            found = answers(tmp_path)
            assert now() == before
        finally:
            warnings.simplefilter("ignore")
            back()
    for ours, theirs in zip(found, usual, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_scanpy_is_imported_where_numba_finds_no_folder_for_compiled_functions(monkeypatch):
    class Scanpy:
        """Is imported as long as numba has a folder."""

        @staticmethod
        def find_spec(name, *_):
            if name == "scanpy" and not numba.config.CACHE_DIR:
                raise RuntimeError("cannot cache function 'sum': no locator available")
            return

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "scanpy", raising=False)
        patch.setattr(numba.config, "CACHE_DIR", "")
        patch.setattr(sys, "meta_path", [Scanpy, *sys.meta_path])
        assert scanpy_module().__name__ == "scanpy"
        assert Path(numba.config.CACHE_DIR).is_dir()


def test_on_one_thread_and_afterwards_on_as_many_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)

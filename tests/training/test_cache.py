"""The cache of fitted models: found again only by what they were made from, whole or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.training import cache
from scanvi_tutorial.training.cache import cache_folder, code_digest, fit_or_load

SIZES = ModelConfig(n_latent=2, gene_hidden=(8,))
SHORT = TrainConfig(max_epochs=2, batch_size=8)


@pytest.fixture
def fits(monkeypatch):
    """Count how many fits are run."""
    calls, original = [], cache.fit
    monkeypatch.setattr(cache, "fit", lambda *given, **more: calls.append(1) or original(*given, **more))
    return calls


def test_the_second_call_loads_the_same_model_to_the_bit(tiny, tmp_path, fits):
    (first, history), (again, history_again) = (fit_or_load(tiny(), SIZES, SHORT, folder=tmp_path) for _ in range(2))
    assert len(fits) == 1
    ours, theirs = first.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pd.testing.assert_frame_equal(history.frame, history_again.frame, check_exact=True)
    assert not any(model.training for model in (first, again))


def changed_count(adata):
    adata.X[0, 0] += 1


def moved_label(adata):
    adata.obs.loc[adata.obs_names[1], "label"] = "B" if adata.obs["label"].iloc[1] != "B" else "T"


def renamed_gene(adata):
    adata.var_names = ["other", *adata.var_names[1:]]


@pytest.mark.parametrize("change", [changed_count, moved_label, renamed_gene])
def test_other_data_are_fitted_anew(tiny, tmp_path, fits, change):
    adata = tiny()
    fit_or_load(adata, SIZES, SHORT, folder=tmp_path)
    change(adata)
    fit_or_load(adata, SIZES, SHORT, folder=tmp_path)
    assert len(fits) == 2


def test_a_fit_without_labels_is_the_same_whichever_cells_have_them(tiny, tmp_path, fits):
    blind = replace(SHORT, objective="unlabeled")
    adata = tiny()
    first, _ = fit_or_load(adata, SIZES, blind, folder=tmp_path)
    moved_label(adata)
    adata.obs.loc[adata.obs_names[2], "label"] = "Unknown"
    again, _ = fit_or_load(adata, SIZES, blind, folder=tmp_path)
    assert len(fits) == 1
    assert again.labeled_fraction == (adata.obs["label"] != "Unknown").mean() != first.labeled_fraction
    adata.obs["label"] = adata.obs["label"].cat.rename_categories({"B": "another"})
    fit_or_load(adata, SIZES, blind, folder=tmp_path)
    assert len(fits) == 2


def test_other_settings_are_fitted_anew(tiny, tmp_path, fits):
    for sizes, short in ((SIZES, SHORT), (replace(SIZES, n_latent=3), SHORT), (SIZES, replace(SHORT, seed=1))):
        fit_or_load(tiny(), sizes, short, folder=tmp_path)
    assert len(fits) == 3


def test_other_code_is_fitted_anew(tiny, tmp_path, fits, monkeypatch):
    fit_or_load(tiny(), SIZES, SHORT, folder=tmp_path)
    monkeypatch.setattr(cache, "_code_of_a_fit", lambda: "other code")
    fit_or_load(tiny(), SIZES, SHORT, folder=tmp_path)
    assert len(fits) == 2


@pytest.mark.parametrize(
    ("added", "counts"),
    [("# a comment\n", False), ('"""Text."""\n', False), ("CHANGED = 1\n", True), ("1 + 1\n", True)],
)
def test_code_counts_and_comments_and_docstrings_do_not(tmp_path, added, counts):
    folder = shutil.copytree(Path(cache.__file__).parent, tmp_path / "training")
    (folder / "empty.py").write_text("")
    before = code_digest(folder)
    for name in ("empty.py", "part.py"):
        (folder / name).write_text(added)
    assert code_digest(folder / "empty.py") != code_digest(folder / "loop.py")
    (folder / "part.py").unlink()
    assert (code_digest(folder) != before) is counts


@pytest.mark.parametrize("file", ["*.json", "*.safetensors"])
def test_a_damaged_entry_is_fitted_anew_and_replaced(tiny, tmp_path, fits, file):
    fit_or_load(tiny(), SIZES, SHORT, folder=tmp_path)
    (path,) = tmp_path.glob(file)
    path.write_bytes(path.read_bytes()[:40])
    for _ in range(2):
        fit_or_load(tiny(), SIZES, SHORT, folder=tmp_path)
    assert len(fits) == 2


def test_in_a_checkout_the_cache_lies_under_build():
    assert cache_folder().parts[-2:] == ("_build", "models")


def test_outside_a_checkout_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "_PACKAGE", tmp_path / "site-packages" / "scanvi_tutorial")
    assert "_build" not in cache_folder().parts
    assert "scanvi_tutorial" in cache_folder().parts

"""The speed benchmark: what it calls an epoch, what its cells are, what ours does."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import anndata
import numpy as np
import pytest
from chapters import ROOT

import scanvi_tutorial as st
from scanvi_tutorial.config import UNLABELED_TRAIN

sys.path.append(str(ROOT / "benchmarks"))
speed, speed_ours, many_cells = map(import_module, ("speed", "speed_ours", "many_cells"))


def test_an_epoch_is_what_a_further_one_adds_and_the_median_of_repeats_is_told(monkeypatch, tmp_path):
    wall = iter([12.0, 16.0, 46.0, 22.0, 11.0, 13.0])  # 10 to start, then 2, 12 and 1 an epoch; the second pair turned

    def fake(method, cells, *, threads):
        return None, {
            "seconds": next(wall),
            "added_mb": 100.0 * method.settings["epochs"],
            "versions": {"torch": "1"},
        }

    monkeypatch.setattr(speed, "once", fake)
    (row,) = speed.epochs_of(["Pyro's tutorial, dense"], tmp_path, threads=1, repeats=3)
    assert (row["epoch_seconds"], row["least"], row["most"], row["added_mb"]) == (2, 1, 12, 300)


def test_arms_have_their_turn_in_every_repeat_and_quick_epochs_are_counted_over_more(monkeypatch, tmp_path):
    calls = []

    def fake(method, cells, *, threads):
        calls.append(dict(method.settings))
        return None, {"seconds": 10 + 0.5 * method.settings["epochs"], "added_mb": 100.0, "versions": {"torch": "1"}}

    monkeypatch.setattr(speed, "once", fake)
    arms = ["ours, defaults (2,000 genes)", "ours, no labels (2,000 genes)"]
    rows = speed.epochs_of(arms, tmp_path, threads=1, repeats=2)
    assert [(row["arm"], row["epoch_seconds"], row["further_epochs"]) for row in rows] == [
        (arm, 0.5, 6) for arm in arms
    ]
    assert [call["epochs"] for call in calls] == [1, 7, 1, 7, 7, 1, 7, 1]
    assert ["train" in call for call in calls] == [False, False, True, True, True, True, False, False]


def test_whole_trainings_are_multiplied_from_epochs_that_were_measured():
    rows = [
        {"arm": arm, "epoch_seconds": value}
        for arm, value in zip(speed.ARMS, (50, 20, 5, 4, 30, 40, 3, 7), strict=True)
    ]
    found = {row["run"]: row["seconds"] for row in speed.multiplied(rows)}
    assert found == {
        "Pyro's tutorial, 80 epochs": 80 * 50,
        "scvi-tools, 100 + 25 epochs": 100 * 30 + 25 * 40,
        "scvi-tools, 2,000 genes, 100 + 25 epochs": 100 * 3 + 25 * 7,
    }
    assert [row["run"] for row in speed.multiplied(rows[:5])] == ["Pyro's tutorial, 80 epochs"]


def test_cells_are_written_once_and_are_sparse_counts_with_seeds_and_truth(tmp_path):
    path = many_cells.made(tmp_path, cells=1_200, genes=300)
    adata = anndata.read_h5ad(path)
    assert adata.shape == (1_200, 300)
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.X.data.min() == 1
    np.testing.assert_array_equal(np.diff(adata.X.indptr) > 0, True)
    seeds = adata.obs["label"] != "Unknown"
    assert adata.obs["label"][seeds].astype(str).value_counts().to_dict() == {f"type {letter}": 50 for letter in "ABCD"}
    assert (adata.obs["label"][seeds].astype(str) == adata.obs["truth"][seeds].astype(str)).all()
    written = path.stat().st_mtime_ns
    assert many_cells.made(tmp_path, cells=1_200, genes=300) == path
    assert path.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [path]


def test_types_of_those_cells_can_be_told_apart(tmp_path):
    adata = anndata.read_h5ad(many_cells.made(tmp_path, cells=1_200, genes=6_000))
    said = st.evaluation.logistic_regression(adata)
    assert st.evaluation.scores(adata, said)["accuracy"] > 0.8


def test_our_arm_is_the_fit_of_the_book_and_runs_as_long_as_it_is_told(tmp_path):
    path = many_cells.made(tmp_path, cells=700, genes=120)
    table = speed_ours.from_file(str(path), genes=60, epochs=2, train={"batch_size": 64})
    adata = st.select_genes(st.read_h5ad(path), 60)
    model = st.SCANVI.from_anndata(adata)
    st.fit(model, adata, st.TrainConfig(max_epochs=2, batch_size=64, device="cpu"))
    np.testing.assert_array_equal(table, st.label_probabilities(model, adata))
    assert table.attrs["epochs"] == 2


def test_counts_left_on_disk_give_the_same_answer_and_leave_nothing(tmp_path, monkeypatch):
    path = many_cells.made(tmp_path, cells=700, genes=120)
    settings = {"genes": 60, "epochs": 2, "train": {"batch_size": 64}}
    asked, original = [], st.open_cells
    monkeypatch.setattr(st, "open_cells", lambda *args, **kw: asked.append(kw["folder"]) or original(*args, **kw))
    found = speed_ours.from_file(str(path), on_disk=True, **settings)
    np.testing.assert_array_equal(found, speed_ours.from_file(str(path), **settings))
    assert [None if folder is None else Path(folder).parent for folder in asked] == [tmp_path, None]
    assert list(tmp_path.iterdir()) == [path]


def test_the_recommended_run_is_the_recommended_answer_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("scanvi_tutorial.training.cache.cache_folder", lambda: tmp_path / "cache")
    path = many_cells.made(tmp_path, cells=700, genes=120)
    table = speed_ours.recommended_from_file(str(path), genes=60, fits=2, train={"max_epochs": 2, "batch_size": 64})
    assert list(tmp_path.iterdir()) == [path]  # a fit that was kept would cost nothing the next time
    train = replace(UNLABELED_TRAIN, max_epochs=2, batch_size=64, device="cpu")
    np.testing.assert_array_equal(table, st.recommended(st.select_genes(st.read_h5ad(path), 60), train=train, fits=2))


@pytest.mark.parametrize("arm", speed.ARMS)
def test_the_runs_of_an_arm_differ_in_epochs_and_nothing_else(arm):
    short, long = (speed.ARMS[arm](epochs) for epochs in (1, 3))
    assert {key for key in long.settings if long.settings[key] != short.settings[key]} <= {
        "epochs",
        "scvi_epochs",
        "scanvi_epochs",
    }
    assert 3 in long.settings.values()
    assert short.call == long.call

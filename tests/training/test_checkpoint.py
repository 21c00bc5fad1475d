"""Fits that were killed: they go on where they stood, end to the bit where they would have, and mix with no other."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import read_h5ad

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.model.persistence import PersistenceError
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training import loop as training
from scanvi_tutorial.training.checkpoint import Checkpoint, digest
from scanvi_tutorial.training.history import FitState
from scanvi_tutorial.training.loop import fit

SIZES = ModelConfig(n_latent=2, gene_hidden=(8,))
SHORT = TrainConfig(max_epochs=7, batch_size=8, warmup=0.3)


class Killed(BaseException):
    """Stands for the end of a process."""


def new_model(adata, batch=None, **changes):
    return SCANVI.from_anndata(adata, replace(SIZES, **changes), batch_key=batch)


def killed_in(monkeypatch, epoch):
    """Let the fit end within the epoch of this number, counted from the start of the process."""
    original, calls = training.run_epoch, []

    def run_epoch(*arguments, **settings):
        calls.append(1)
        loss = original(*arguments, **settings)
        if len(calls) > epoch:
            raise Killed
        return loss

    monkeypatch.setattr(training, "run_epoch", run_epoch)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def interrupted(adata, folder, monkeypatch, *, epoch=4, config=SHORT, every=1, **settings):
    """Return nothing; leave the checkpoint of a fit that was killed."""
    with monkeypatch.context() as patch:
        killed_in(patch, epoch)
        with pytest.raises(Killed):
            fit(new_model(adata, **settings), adata, config, checkpoint=folder, checkpoint_every=every)


@pytest.mark.parametrize(
    ("engine", "monitor", "batch"), [("fast", "bound", None), ("fast", "labels", "run"), ("pyro", "bound", "run")]
)
def test_a_fit_that_goes_on_ends_where_an_uninterrupted_one_does(tiny, tmp_path, monkeypatch, engine, monitor, batch):
    """Killed twice, dropout and thinning at work; parameters, running statistics and history to the bit."""
    adata = tiny(cells=160, labeled=2)
    adata.obs["run"] = np.where(np.arange(160) % 5 < 2, "a", "b")
    config, folder = replace(SHORT, engine=engine, monitor=monitor, batch_size=24), tmp_path / "fit"
    whole = new_model(adata, batch)
    wanted = fit(whole, adata, config)
    for epoch in (2, 1):  # the second process ends one epoch after it took over
        interrupted(adata, folder, monkeypatch, epoch=epoch, config=config, batch=batch)
    model = new_model(adata, batch)
    history = fit(model, adata, config, checkpoint=folder, checkpoint_every=1)
    pd.testing.assert_frame_equal(history.frame, wanted.frame, check_exact=True)
    assert (history.best_epoch, history.stopped_early) == (wanted.best_epoch, wanted.stopped_early)
    assert same(model, whole)
    assert not folder.exists()


def test_epochs_that_are_done_are_not_done_again(tiny, tmp_path, monkeypatch):
    adata, epochs, original = tiny(), [], training.run_epoch
    interrupted(adata, tmp_path / "fit", monkeypatch, epoch=5, every=2)
    monkeypatch.setattr(training, "run_epoch", lambda *a, **k: epochs.append(1) or original(*a, **k))
    history = fit(new_model(adata), adata, SHORT, checkpoint=tmp_path / "fit")
    assert len(epochs) == 7 - 4  # five were whole, of which four were kept
    assert len(history) == 7


def test_the_best_state_outlives_the_process_that_reached_it(tiny, tmp_path, monkeypatch):
    adata = tiny(cells=80)
    restless = replace(SHORT, max_epochs=12, patience=12, warmup=0.0, learning_rate=0.2)
    for seed in range(20):  # which of them is best early differs from one release of torch to the next
        config = replace(restless, seed=seed)
        whole, model = new_model(adata), new_model(adata)
        wanted = fit(whole, adata, config)
        if wanted.best_epoch < 9:
            break
    assert wanted.best_epoch < 9  # the last of them would be 11
    interrupted(adata, tmp_path / "fit", monkeypatch, epoch=wanted.best_epoch + 2, config=config)
    assert fit(model, adata, config, checkpoint=tmp_path / "fit").best_epoch == wanted.best_epoch
    assert same(model, whole)


def test_checkpoints_change_nothing_in_a_fit_that_nobody_kills(tiny, tmp_path):
    adata = tiny()
    plain, kept = new_model(adata), new_model(adata)
    fit(plain, adata, SHORT)
    fit(kept, adata, SHORT, checkpoint=tmp_path / "fit", checkpoint_every=2)
    assert same(plain, kept)
    assert list(tmp_path.iterdir()) == []


def test_no_global_generator_moves_where_a_fit_goes_on(tiny, tmp_path, monkeypatch):
    adata = tiny()
    interrupted(adata, tmp_path / "fit", monkeypatch)
    before = torch.get_rng_state()
    fit(new_model(adata), adata, SHORT, checkpoint=tmp_path / "fit")
    assert torch.equal(torch.get_rng_state(), before)


def other_counts(adata):
    adata.X[0, 0] += 1


def other_labels(adata):
    row = int(np.flatnonzero(adata.obs["label"] == "Unknown")[0])
    adata.obs.iloc[row, adata.obs.columns.get_loc("label")] = "B"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": other_counts}, "the counts"),
        ({"data": other_labels}, "the labels"),
        ({"config": {"learning_rate": 0.01}}, r"TrainConfig\.learning_rate"),
        ({"config": {"seed": 3}}, r"TrainConfig\.seed"),
        ({"model": {"likelihood": "nb"}}, r"ModelConfig\.likelihood"),
        ({"weights": 1}, "the initial weights"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused_by_what_differs(tiny, tmp_path, monkeypatch, change, named):
    adata, folder = tiny(), tmp_path / "fit"
    model = new_model(adata, **change.get("model", {}))  # made before the data change, so that they alone differ
    interrupted(adata, folder, monkeypatch)
    change.get("data", lambda adata: None)(adata)
    if "weights" in change:
        with torch.no_grad():
            model.classifier.heads.layers[-1].bias[0] += 1
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(PersistenceError, match=f"another fit: it differs in .*{named}.*Delete the folder"):
        fit(model, adata, replace(SHORT, **change.get("config", {})), checkpoint=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("file", ["metadata.json", "tensors-*.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped"])
def test_a_damaged_checkpoint_says_what_to_delete(tiny, tmp_path, monkeypatch, file, damage):
    adata, folder = tiny(), tmp_path / "fit"
    interrupted(adata, folder, monkeypatch)
    (path,) = folder.glob(file)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        at = data.index(b'"best_epoch": ') + 14 if path.suffix == ".json" else len(data) - 9
        data[at] = ord("x") if path.suffix == ".json" else data[at] ^ 1
    path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"\x80\x04" if damage == "garbage" else data)
    model = new_model(adata)
    with pytest.raises(PersistenceError, match=r"damaged.*[Dd]elete"):
        fit(model, adata, SHORT, checkpoint=folder)


def test_a_folder_of_something_else_is_refused_before_anything_is_trained(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    adata = tiny()
    model = new_model(adata)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(PersistenceError, match="left as it is"):
        fit(model, adata, SHORT, checkpoint=tmp_path)
    saved = new_model(adata).save(tmp_path / "model")
    with pytest.raises(PersistenceError, match="holds no saved checkpoint"):
        fit(model, adata, SHORT, checkpoint=saved)
    SCANVI.load(saved)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_is_no_model_and_is_not_saved_over(tiny, tmp_path, monkeypatch):
    adata = tiny()
    interrupted(adata, tmp_path / "fit", monkeypatch)
    with pytest.raises(PersistenceError, match="no saved model, but a checkpoint"):
        SCANVI.load(tmp_path / "fit")
    with pytest.raises(PersistenceError, match="left as it is"):
        new_model(adata).save(tmp_path / "fit")


def test_nothing_in_a_checkpoint_is_pickled(tiny, tmp_path, monkeypatch):
    adata = tiny()
    interrupted(adata, tmp_path / "fit", monkeypatch)
    names = sorted(path.name for path in (tmp_path / "fit").iterdir())
    assert [name.partition("-")[0] for name in names] == ["metadata.json", "tensors"]
    json.loads((tmp_path / "fit" / "metadata.json").read_text())
    assert (tmp_path / "fit" / names[1]).read_bytes()[8:9] == b"{"  # safetensors: eight bytes of length, then JSON


def test_a_checkpoint_of_no_epoch_is_refused(tiny):
    with pytest.raises(ValueError, match="checkpoint_every"):
        fit(new_model(tiny()), tiny(), SHORT, checkpoint_every=0)


def test_numbers_that_json_does_not_know_come_back(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
    state = model, optimizer, schedule, np.random.default_rng(0)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    progress = FitState(rows=[{"a": float("nan"), "b": -0.0}, {"a": float("inf"), "b": 0.1}])
    Checkpoint(tmp_path / "c", {}).write(progress, *state)
    with torch.random.fork_rng():
        back = Checkpoint(tmp_path / "c", {}).restore(*state)
    np.testing.assert_array_equal(pd.DataFrame(back.rows).to_numpy(), pd.DataFrame(progress.rows).to_numpy())
    assert back.best == -float("inf")
    assert back.best_state is None


def test_a_digest_tells_type_shape_and_value_apart():
    parts = [np.zeros(2), np.zeros((2, 1)), np.zeros(4, dtype=np.float32), torch.ones(2), "a", ["a"], ("a", "b")]
    assert len({digest([part]) for part in parts}) == len(parts)
    assert digest([np.zeros(2)]) == digest([torch.zeros(2, dtype=torch.float64)])
    assert digest(["ab", "c"]) != digest(["a", "bc"])


PROGRAM = """
import sys, anndata
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit
adata = anndata.read_h5ad(sys.argv[1])
model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)))
print("fitting", flush=True)
fit(model, adata, TrainConfig(max_epochs=60, minibatch=8, patience=60), checkpoint=sys.argv[2], checkpoint_every=1)
model.save(sys.argv[3])
"""


@pytest.mark.slow
def test_a_process_that_is_killed_at_random_moments_ends_in_the_same_parameters(tiny, tmp_path):
    tiny(cells=60).write_h5ad(tmp_path / "cells.h5ad")
    folder, out = tmp_path / "fit", tmp_path / "model"
    command = [sys.executable, "-c", PROGRAM, tmp_path / "cells.h5ad", folder, out]
    draw, kills = random.Random(0), 0
    for _ in range(40):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "fitting\n"
        if kills < 6:
            time.sleep(draw.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills >= 3
    adata = read_h5ad(tmp_path / "cells.h5ad")
    whole = new_model(adata)
    fit(whole, adata, TrainConfig(max_epochs=60, batch_size=8, patience=60))
    assert same(SCANVI.load(out), whole)
    assert not folder.exists()

"""Fits that were killed: they go on where they stood, end to the bit where they would have, and mix with no other."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.model.persistence import PersistenceError
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training import loop as training
from scanvi_tutorial.training.loop import fit

SIZES = ModelConfig(n_latent=2, gene_hidden=(8,))
SHORT = TrainConfig(max_epochs=7, batch_size=8, warmup=0.3)


class Killed(BaseException):
    """Stands for the end of a process."""


def new_model(adata, batch=None, **changes):
    return SCANVI.from_anndata(adata, replace(SIZES, **changes), batch_key=batch)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def interrupted(adata, path, monkeypatch, *, epoch=4, config=SHORT, every=1, **settings):
    """Leave the checkpoint of a fit that ended within the epoch of this number, counted from where it began."""
    original, calls = training.run_epoch, []

    def run_epoch(*arguments, **settings):
        calls.append(1)
        loss = original(*arguments, **settings)
        if len(calls) > epoch:
            raise Killed
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(training, "run_epoch", run_epoch)
        with pytest.raises(Killed):
            fit(new_model(adata, **settings), adata, config, checkpoint=path, checkpoint_every=every)


@pytest.mark.parametrize(("engine", "batch"), [("fast", None), ("fast", "run"), ("pyro", "run")])
def test_a_fit_that_goes_on_ends_where_an_uninterrupted_one_does(tiny, tmp_path, monkeypatch, engine, batch):
    """Killed twice, dropout and thinning at work; parameters, running statistics and history to the bit."""
    adata = tiny(cells=160, labeled=2)
    adata.obs["run"] = np.where(np.arange(160) % 5 < 2, "a", "b")
    config, path = replace(SHORT, engine=engine, batch_size=24), tmp_path / "fit"
    whole = new_model(adata, batch)
    wanted = fit(whole, adata, config)
    for epoch in (2, 1):  # the second process ends one epoch after it took over
        interrupted(adata, path, monkeypatch, epoch=epoch, config=config, batch=batch)
    model = new_model(adata, batch)
    history = fit(model, adata, config, checkpoint=path, checkpoint_every=1)
    pd.testing.assert_frame_equal(history.frame, wanted.frame, check_exact=True)
    assert (history.best_epoch, history.stopped_early) == (wanted.best_epoch, wanted.stopped_early)
    assert same(model, whole)
    assert not path.exists()


def test_epochs_that_are_done_are_not_done_again(tiny, tmp_path, monkeypatch):
    adata = tiny()
    epochs = []
    original = training.run_epoch
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
        ({"model": {"gene_likelihood": "nb"}}, r"ModelConfig\.gene_likelihood"),
        ({"weights": 1}, "the initial weights"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused_by_what_differs(tiny, tmp_path, monkeypatch, change, named):
    adata, path = tiny(), tmp_path / "fit"
    model = new_model(adata, **change.get("model", {}))  # made before the data change, so that they alone differ
    interrupted(adata, path, monkeypatch)
    change.get("data", lambda adata: None)(adata)
    if "weights" in change:
        with torch.no_grad():
            model.classifier.heads.layers[-1].bias[0] += 1
    before = path.read_bytes()
    with pytest.raises(PersistenceError, match=f"another fit: it differs in .*{named}.*Delete it"):
        fit(model, adata, replace(SHORT, **change.get("config", {})), checkpoint=path)
    assert path.read_bytes() == before


def test_what_is_no_checkpoint_is_refused_before_anything_is_trained(tiny, tmp_path, monkeypatch):
    adata, path = tiny(), tmp_path / "fit"
    interrupted(adata, path, monkeypatch)
    damaged, text = tmp_path / "damaged", tmp_path / "thesis.tex"
    damaged.write_bytes(path.read_bytes()[:-1])
    text.write_text("years of work")
    saved = new_model(adata).save(tmp_path / "model")
    monkeypatch.setattr(training, "run_epoch", None)  # would fail if it were called
    for place in (damaged, text, saved, tmp_path, tmp_path / "no" / "fit"):
        with pytest.raises(
            PersistenceError, match=r"a single fit|no saved checkpoint|cannot be read|There is no folder"
        ):
            fit(new_model(adata), adata, SHORT, checkpoint=place)
    assert text.read_text() == "years of work"
    SCANVI.load(saved)


def test_a_checkpoint_is_no_model_and_is_not_saved_over(tiny, tmp_path, monkeypatch):
    adata, path = tiny(), tmp_path / "fit"
    interrupted(adata, path, monkeypatch)
    for use in (SCANVI.load, new_model(adata).save):
        with pytest.raises(PersistenceError, match="is the checkpoint of a fit, and not a single fit"):
            use(path)


def test_a_checkpoint_of_no_epoch_is_refused(tiny):
    with pytest.raises(ValueError, match="checkpoint_every"):
        fit(new_model(tiny()), tiny(), SHORT, checkpoint_every=0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to be killed are forked")
def test_processes_that_are_killed_at_random_moments_end_in_the_same_parameters():
    """The benchmark fails where anything is lost; here with fewer kills."""
    program = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, program, "--kills", "12"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fits killed                             6" in done.stdout

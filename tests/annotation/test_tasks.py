"""Fits side by side, in processes of this machine and on a cluster: the same numbers, and none lost with a process."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from dask.distributed import Client, LocalCluster
from joblib.externals.loky import get_reusable_executor

import scanvi_tutorial as st
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.annotation.tasks import run_tasks
from scanvi_tutorial.config import UNLABELED_TRAIN, ModelConfig
from scanvi_tutorial.training import cache

QUICK = {
    "fits": 3,
    "model_config": ModelConfig(gene_hidden=(16,)),
    "train_config": replace(UNLABELED_TRAIN, max_epochs=3),
}


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process with two threads, in which two fits might meet."""
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as made, Client(made) as client:
        yield client


@pytest.fixture(autouse=True)
def _new_processes():
    """End processes that an earlier test left waiting: they cannot import the functions of this file."""
    get_reusable_executor().shutdown(wait=True)


def noted(folder, number, times):
    """Note that a task has begun, and kill the process while fewer than `times` have."""
    with (Path(folder) / str(number)).open("ab") as file:
        file.write(b".")
    if (Path(folder) / str(number)).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def begun(folder):
    return {int(file.name): file.stat().st_size for file in folder.iterdir()}


@pytest.mark.slow
def test_an_annotation_on_a_cluster_is_that_of_one_process_to_the_bit(cluster):
    here, there = st.load("simulated", cells=300), st.load("simulated", cells=300)
    st.annotate(here, **QUICK)
    with joblib.parallel_config(backend="dask"):
        st.annotate(there, **QUICK)
    for name in ("X_scanvi", "scanvi_probabilities"):
        assert np.array_equal(here.obsm[name], there.obsm[name])


@pytest.mark.slow
def test_a_task_goes_to_another_worker_of_a_cluster_where_one_is_killed(cluster, tmp_path):
    with joblib.parallel_config(backend="dask"):
        found = dict(run_tasks(noted, [(tmp_path, number, number == 1) for number in range(4)], 1))
    assert found == {number: number**2 for number in range(4)}
    assert begun(tmp_path)[1] >= 2


def test_a_task_runs_again_where_its_process_is_killed(tmp_path):
    found = dict(run_tasks(noted, [(tmp_path, number, 2 * (number == 1)) for number in range(3)], 2))
    assert found == {number: number**2 for number in range(3)}


def test_processes_that_are_killed_over_and_over_end_in_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ChildProcessError, match=r"1 of 1 fits are not done.*jobs=1"):
        list(run_tasks(noted, [(tmp_path, 0, 99)], 2))
    assert begun(tmp_path) == {0: 3}


def test_an_ensemble_that_was_cut_off_goes_on_and_fits_nothing_twice(tmp_path, monkeypatch):
    adata, config = st.load("simulated", cells=300), replace(UNLABELED_TRAIN, max_epochs=24, patience=24)
    ensemble = Ensemble(QUICK["model_config"], config, fits=2, folder=tmp_path)
    whole = Ensemble(QUICK["model_config"], config, fits=2, keep=False).fit(adata, "label", 0)
    per_fit = sum(map(len, (history for _, history in whole))) // 2 * (300 * 9 // 10 // 128)
    taken = []

    def cut_off(*args, after_step, **named):
        def step():
            taken.append(1)
            if len(taken) == per_fit + per_fit // 2 + 2:  # in the second fit, after its first checkpoint
                raise KeyboardInterrupt
            after_step()

        return fit(*args, after_step=step, **named)

    fit = cache.fit
    monkeypatch.setattr(cache, "fit", cut_off)
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(adata, "label", 0)
    again = ensemble.fit(adata, "label", 0)
    for (one, _), (other, _) in zip(whole, again, strict=True):
        assert all(np.array_equal(one.state_dict()[name], other.state_dict()[name]) for name in one.state_dict())
    assert len(taken) < 2 * per_fit + per_fit // 2
    assert not list(tmp_path.glob("*.checkpoint"))

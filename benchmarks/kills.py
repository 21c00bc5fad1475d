"""Kill fits, saves, workers and processes of a fit at random moments, and count what was lost: nothing should be.

    python benchmarks/kills.py --kills 50
    python benchmarks/kills.py --kills 40 --what cluster

Half of the kills hit a fit that keeps checkpoints; it is started again until it ends, and must end in the parameters of
a fit that nobody killed, to the bit. The other half hit a process that saves two models to one file by turns; after
each kill the file must be one of them, whole. With `--what cluster`, half of the kills hit a worker of a Dask cluster
during an annotation, which must give the answer of one process, and half hit one of two processes of `train`, which
must end in words, leave no process behind and no half of a model. Killed is by SIGKILL, which no process can catch.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that forks must not have started threads
os.environ["TQDM_DISABLE"] = "1"

import torch
from anndata import AnnData

import scanvi_tutorial as st
from scanvi_tutorial.config import UNLABELED_TRAIN, ModelConfig, TrainConfig
from scanvi_tutorial.model.persistence import PersistenceError, is_saved, read_file

SIZES = ModelConfig(gene_hidden=(64,))
LENGTH = TrainConfig(max_epochs=20, batch_size=64)


def new_model(adata: AnnData) -> st.SCANVI:
    """Return the untrained model that every process begins with."""
    return st.SCANVI.from_anndata(adata, SIZES, batch_key="batch")


def fit_and_save(adata: AnnData, checkpoint: Path, out: Path) -> None:
    """Do what a process does that may be killed."""
    model = new_model(adata)
    st.fit(model, adata, LENGTH, checkpoint=checkpoint, checkpoint_every=1)
    model.save(out)


def save_by_turns(models: tuple[st.SCANVI, st.SCANVI], path: Path) -> None:
    """Save one model, then the other, for ever."""
    while True:
        for model in models:
            model.save(path)


def killed_after(seconds: float, work: Callable[[], None]) -> bool:
    """Run `work` in a process of its own; return whether it had to be killed, after `seconds` at the latest."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def equal(one: st.SCANVI, other: st.SCANVI) -> bool:
    """Return whether all parameters and running statistics agree to the bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def kill_fits(kills: int, draw: random.Random, place: Path) -> Counter[str]:
    """Kill fits; return what came of it."""
    adata, found = st.load("simulated", batches=2), Counter()
    started = time.perf_counter()
    whole = new_model(adata)
    st.fit(whole, adata, LENGTH)
    longest = time.perf_counter() - started
    while found["fits killed"] < kills:
        checkpoint, out = place / "checkpoint.safetensors", place / f"fit {found['fits ended']}.safetensors"
        running = True
        while running:
            left = kills - found["fits killed"]
            moment = draw.uniform(0, longest) if left else float("inf")
            running = killed_after(moment, partial(fit_and_save, adata, checkpoint, out))
            found["fits killed"] += running
            try:
                if is_saved(checkpoint, kind="checkpoint"):
                    _, about = read_file(checkpoint, kind="checkpoint")
                    found["of which went on from a checkpoint"] += running and about["seconds"] > 0
            except PersistenceError as error:
                print(error)
                found["corrupted"] += 1
        found["fits ended"] += 1
        found["ended in other parameters"] += not equal(st.SCANVI.load(out), whole)
        found["checkpoints left behind"] += checkpoint.exists()
    return found


def kill_saves(kills: int, draw: random.Random, place: Path) -> Counter[str]:
    """Kill saves; return what came of it."""
    adata, found = st.load("simulated", batches=2), Counter()
    models = tuple(st.SCANVI.from_anndata(adata, SIZES, batch_key="batch", seed=seed) for seed in (0, 1))
    folder = place / "saves"
    folder.mkdir()
    path = models[0].save(folder / "model.safetensors")
    for _ in range(kills):
        found["saves killed"] += killed_after(draw.uniform(0, 0.3), partial(save_by_turns, models, path))
        try:
            found["corrupted"] += not any(equal(st.SCANVI.load(path), model) for model in models)
        except PersistenceError as error:
            print(error)
            found["corrupted"] += 1
    found["left half written beside"] = len(list(folder.iterdir())) - 1
    for left in folder.iterdir():
        if left != path:
            os.utime(left, (0, 0))
    models[0].save(path)
    found["of which are there a day later"] = len(list(folder.iterdir())) - 1
    return found


def kill_workers(kills: int, draw: random.Random, place: Path) -> Counter[str]:
    """Kill a worker during an annotation on a cluster; return what came of it."""
    import joblib
    from dask.distributed import Client, LocalCluster

    quick = {"fits": 4, "model_config": SIZES, "train_config": replace(UNLABELED_TRAIN, max_epochs=25)}
    expected, found = st.load("simulated", cells=600), Counter()
    st.annotate(expected, **quick)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        while found["workers killed"] < kills:
            client.wait_for_workers(2)
            worker = draw.choice([*client.run(os.getpid).values()])
            timer = threading.Timer(draw.uniform(0.1, 6), os.kill, (worker, signal.SIGKILL))
            adata = st.load("simulated", cells=600)
            timer.start()
            with joblib.parallel_config(backend="dask"):
                st.annotate(adata, **quick)
            found["workers killed"] += not timer.is_alive()  # else it came too late
            timer.cancel()
            same = adata.obsm["scanvi_probabilities"].equals(expected.obsm["scanvi_probabilities"])
            found["ended in another answer"] += not same
    return found


def kill_processes(kills: int, draw: random.Random, place: Path) -> Counter[str]:
    """Kill one of two processes of a fit; return what came of it."""
    import psutil

    found, model = Counter(), place / "model.safetensors"
    st.load("simulated", cells=600).write_h5ad(place / "cells.h5ad")
    command = [sys.executable, "-m", "scanvi_tutorial", "train", str(place / "cells.h5ad"), "--labels", "label"]
    command += ["--model", str(model), "--processes", "2", "--overwrite"]
    while found["processes killed"] < kills:
        model.unlink(missing_ok=True)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(draw.uniform(4, 14))  # to start, and to fit
        ours = [one for one in psutil.Process(running.pid).children(recursive=True) if running.poll() is None]
        ranks = [one for one in ours if "spawn_main" in " ".join(one.cmdline())]
        if not ranks:
            running.communicate()
            continue
        draw.choice(ranks).kill()
        said, _ = running.communicate(timeout=120)
        found["processes killed"] += 1
        found["ended with an error of ours"] += (
            running.returncode == 1 and "process" in said and "Traceback" not in said
        )
        found["ended well all the same"] += running.returncode == 0
        found["processes left behind"] += sum(one.is_running() for one in ours)
        found["corrupted"] += model.exists() and not is_saved(model)
        found["files left behind"] += len([*place.glob("counts-*")])
    return found


def main() -> None:
    """Kill, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", choices=("fits", "cluster"), default="fits")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    draw, half = random.Random(asked.seed), asked.kills // 2
    with tempfile.TemporaryDirectory() as place:
        first, second = (kill_fits, kill_saves) if asked.what == "fits" else (kill_workers, kill_processes)
        found = first(asked.kills - half, draw, Path(place))
        found.update(second(half, draw, Path(place)))
    if asked.what == "cluster":
        print(*(f"{what:<36} {count:>4}" for what, count in found.items()), sep="\n")
        return
    for what in (
        "fits killed",
        "of which went on from a checkpoint",
        "fits ended",
        "ended in other parameters",
        "checkpoints left behind",
        "saves killed",
        "left half written beside",
        "of which are there a day later",
        "corrupted",
    ):
        print(f"{what:<36} {found[what]:>4}")
    if found["corrupted"] or found["ended in other parameters"] or found["of which are there a day later"]:
        raise SystemExit("Something was lost.")


if __name__ == "__main__":
    main()

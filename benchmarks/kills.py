"""Kill fits and saves at random moments, and count what was lost: nothing should be.

    python benchmarks/kills.py --kills 50

Half of the kills hit a fit that keeps checkpoints; it is started again until it ends, and must end in the parameters of
a fit that nobody killed, to the bit. The other half hit a process that saves two models to one file by turns; after
each kill the file must be one of them, whole. Killed is by SIGKILL, which no process can catch.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that forks must not have started threads
os.environ["TQDM_DISABLE"] = "1"

import torch
from anndata import AnnData

import scanvi_tutorial as st
from scanvi_tutorial.config import ModelConfig, TrainConfig
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


def main() -> None:
    """Kill, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    draw, half = random.Random(asked.seed), asked.kills // 2
    with tempfile.TemporaryDirectory() as place:
        found = kill_fits(asked.kills - half, draw, Path(place))
        found.update(kill_saves(half, draw, Path(place)))
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

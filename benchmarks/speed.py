"""What an epoch, a fit and its memory cost, beside Pyro's tutorial and scvi-tools: `make bench`.

Every arm runs in a process of its own (peers_worker.py), one after another, on the same file of simulated cells. The
time of an epoch is what a further one adds: the difference of a short and a longer run, the median of paired repeats.
Loading is part of our own arms; the others are given the cells in memory: their time is without loading, their memory
with it. Whole runs and growth are run once. Every row says which commit it was measured at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata
import many_cells
import pandas as pd
from peers import FOLDER, PEERS_PYTHON, Method, work
from provenance import hardware, provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.config import UNLABELED_TRAIN

__all__ = ["ARMS", "epochs_of", "main"]

OURS, RECOMMENDED = "speed_ours:from_file", "speed_ours:recommended_from_file"
TUTORIAL = "scanvi_tutorial.teaching.pyro_tutorial:pyro_tutorial"
RESULTS, CACHE = FOLDER / "results" / "speed.json", FOLDER.parent / "_build" / "bench"
SCVI = {"model": {"n_latent": 30, "n_layers": 2}, "train_size": 1.0}
PARTS = ("epochs", "bounds", "whole", "growth")
# epochs whose time is measured, two elsewhere: enough seconds to be told from noise
FURTHER = dict.fromkeys(("ours, defaults (2,000 genes)", "ours, no labels (2,000 genes)"), 6)

# name: the method when it runs `epochs` epochs
ARMS: dict[str, Callable[[int], Method]] = {
    "Pyro's tutorial, dense": lambda epochs: Method(TUTORIAL, {"epochs": epochs}),
    "ours, the same sizes, all genes": lambda epochs: Method(
        OURS, {"genes": 10**9, "tutorial": True, "epochs": epochs}
    ),
    "ours, defaults (2,000 genes)": lambda epochs: Method(OURS, {"epochs": epochs}),
    "ours, no labels (2,000 genes)": lambda epochs: Method(
        OURS, {"epochs": epochs, "train": {"objective": "unlabeled"}}
    ),
    "scvi-tools": lambda epochs: Method(
        "peers_scvi:scanvi", {**SCVI, "scvi_epochs": epochs, "scanvi_epochs": 1}, PEERS_PYTHON
    ),
    "scvi-tools, with labels": lambda epochs: Method(
        "peers_scvi:scanvi", {**SCVI, "scvi_epochs": 1, "scanvi_epochs": epochs}, PEERS_PYTHON
    ),
    "scvi-tools, 2,000 genes": lambda epochs: ARMS["scvi-tools"](epochs),
    "scvi-tools, with labels, 2,000 genes": lambda epochs: ARMS["scvi-tools, with labels"](epochs),
}
FEWER = {arm: 2_000 for arm in ARMS if arm.endswith(", 2,000 genes")}  # arms given the genes that ours would choose
PROGRAMS = {arm: ("scvi-tools", "torch") if "scvi" in arm else ("torch",) for arm in ARMS}  # whose versions are told
# our own runs from the file to labels: the defaults, what is recommended, and the mark of quality
RUNS: dict[str, Method] = {
    "ours, one fit": Method(OURS),
    "ours, recommended": Method(RECOMMENDED),
    "ours, one fit of 50 epochs": Method(OURS, {"epochs": 50}),
}
# fits that see no label and take library sizes as observed, whose bound is watched on cells that each holds out
WITHOUT_LABELS = {name: value for name, value in asdict(UNLABELED_TRAIN).items() if name not in ("seed", "device")}
BOUNDS: dict[str, Method] = {
    "ours": Method(OURS, {"model": {"library": "observed"}, "train": WITHOUT_LABELS}),
    "scvi-tools": Method(
        "peers_scvi:scanvi",
        {**SCVI, "train_size": 0.9, "scvi_epochs": 60, "scanvi_epochs": 1, "watch": True},
        PEERS_PYTHON,
    ),
}
# whole trainings of the others, in epochs of the arms above: what their documentation asks for
MULTIPLIED: dict[str, dict[str, int]] = {
    "Pyro's tutorial, 80 epochs": {"Pyro's tutorial, dense": 80},
    "scvi-tools, 100 + 25 epochs": {"scvi-tools": 100, "scvi-tools, with labels": 25},
    "scvi-tools, 2,000 genes, 100 + 25 epochs": {
        "scvi-tools, 2,000 genes": 100,
        "scvi-tools, with labels, 2,000 genes": 25,
    },
}


def once(method: Method, cells: Path, *, threads: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run a method once; ours is given the path, the others the cells."""
    with tempfile.TemporaryDirectory() as folder:
        read = method.call not in (OURS, RECOMMENDED)
        return work("speed", method, cells, Path(folder), seed=0, threads=threads, read=read)


def epochs_of(arms: Sequence[str], cells: Path, *, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Return for each arm the seconds of an epoch (median, least, most) and the memory added by the run.

    In every repeat each arm has its turn, and every other repeat is turned around, so that a machine that slows down
    favors none.
    """
    seconds, added, versions = defaultdict(list), defaultdict(list), {}
    for repeat in range(repeats):
        for arm in arms[:: 1 if repeat % 2 == 0 else -1]:
            further = FURTHER.get(arm, 2)
            given = _selected(cells, FEWER[arm]) if arm in FEWER else cells
            order = (1, 1 + further) if repeat % 2 == 0 else (1 + further, 1)
            answers = {epochs: once(ARMS[arm](epochs), given, threads=threads)[1] for epochs in order}
            seconds[arm].append((answers[1 + further]["seconds"] - answers[1]["seconds"]) / further)
            added[arm].append(answers[1 + further]["added_mb"])
            versions[arm] = answers[1]["versions"]
    return [
        {
            "arm": arm,
            "epoch_seconds": round(statistics.median(seconds[arm]), 2),
            "least": round(min(seconds[arm]), 2),
            "most": round(max(seconds[arm]), 2),
            "added_mb": round(max(added[arm])),
            "program": " with ".join(f"{name} {versions[arm][name]}" for name in PROGRAMS[arm]) + ".",
            "repeats": repeats,
            "further_epochs": FURTHER.get(arm, 2),
        }
        for arm in arms
    ]


def whole(cells: Path, name: str, *, threads: int) -> dict[str, Any]:
    """Return what a whole run of ours costs, from the file to labels, and how right it is."""
    table, answer = once(RUNS[name], cells, threads=threads)
    with_truth = anndata.read_h5ad(cells, backed="r")
    found = st.evaluation.scores(anndata.AnnData(obs=with_truth.obs), table)
    with_truth.file.close()
    kept = ("seconds", "cpu_seconds", "added_mb")
    return {"run": name, **{key: answer[key] for key in kept}, **found.round(4)[["accuracy", "log_loss"]].to_dict()}


def bounds(cells: Path, *, threads: int) -> list[dict[str, Any]]:
    """Return the bound on held-out cells after each epoch, in nats per cell, of a fit of each program."""
    rows = []
    for name, method in BOUNDS.items():
        found = once(method, _selected(cells, 2_000), threads=threads)[1]["resolved"]
        each = found["seconds_of_bounds"] / len(found["bounds"])
        rows += [
            {"fit": name, "epoch": n, "seconds": round(n * each, 2), "bound": bound}
            for n, bound in enumerate(found["bounds"], start=1)
        ]
    return rows


def multiplied(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the seconds that whole trainings of the others take, by the seconds of their epochs."""
    seconds = {row["arm"]: row["epoch_seconds"] for row in epochs}
    return [
        {"run": name, "seconds": round(sum(seconds[arm] * number for arm, number in parts.items()), 1)}
        for name, parts in MULTIPLIED.items()
        if parts.keys() <= seconds.keys()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for; every part replaces its own rows in the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    parser.add_argument("--cells", type=int, default=many_cells.CELLS)
    parser.add_argument("--most-cells", type=int, default=200_000, help="where the growth curve ends")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    results = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    about = provenance() | {"threads": asked.threads, "cells": asked.cells, "genes": many_cells.GENES}
    stamp = {"commit": about["git"]["commit"][:7] if about["git"] else None, "date": about["date"][:10]}
    cells = many_cells.made(CACHE, asked.cells)

    def keep(part: str, rows: list[dict[str, Any]]) -> None:
        results[part] = {"about": about, "rows": rows}
        write_json(asked.out, results)
        print(f"\n{part}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)

    if "epochs" in asked.parts:
        rows = {row["arm"]: row for row in results.get("epochs", {}).get("rows", [])}
        measured = epochs_of(asked.arms, cells, threads=asked.threads, repeats=asked.repeats)
        rows |= {row["arm"]: row | stamp for row in measured}
        keep("epochs", list(rows.values()))
        keep("multiplied", multiplied(list(rows.values())))
    if "bounds" in asked.parts:
        keep("bounds", [row | stamp for row in bounds(cells, threads=asked.threads)])
    if "whole" in asked.parts:
        runs = {row["run"]: row for row in results.get("whole", {}).get("rows", [])}
        for name in asked.runs:
            runs[name] = whole(cells, name, threads=asked.threads) | stamp
            keep("whole", list(runs.values()))
    if "growth" in asked.parts:
        rows = []
        for number in (2_000, 6_000, 20_000, 60_000, 200_000):
            if number <= asked.most_cells:
                rows.append(_growth("cells", number, many_cells.GENES, 2_000, asked.threads) | stamp)
                keep("growth", rows)
        for genes in (2_000, 6_000, 20_000, 30_000):
            rows.append(_growth("genes", many_cells.CELLS // 4, genes, genes, asked.threads) | stamp)
            keep("growth", rows)
    print(f"\n{hardware()['processor']}, {asked.threads} thread(s). Results are in {asked.out}.")


def _selected(cells: Path, genes: int) -> Path:
    path = cells.with_name(f"{cells.stem}-best-{genes}.h5ad")
    if not path.is_file():
        st.open_cells(cells, genes).write_h5ad(beside := path.with_suffix(".part"))
        beside.replace(path)
    return path


def _growth(curve: str, cells: int, genes: int, kept: int, threads: int) -> dict[str, Any]:
    path = many_cells.made(CACHE, cells, genes)
    _, answer = once(Method(OURS, {"genes": kept, "epochs": 1, "on_disk": True}), path, threads=threads)
    backed = anndata.read_h5ad(path, backed="r")
    stored = int(backed.X.group["indptr"][-1]) if hasattr(backed.X, "group") else int(backed.X.nnz)
    backed.file.close()
    measured = {key: answer[key] for key in ("seconds", "added_mb", "held_mb")}
    return {"curve": curve, "cells": cells, "genes": genes, "genes_kept": kept, "stored": stored, **measured}


if __name__ == "__main__":
    main()

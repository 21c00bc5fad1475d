"""What an epoch, a fit and its memory cost, beside Pyro's tutorial and scvi-tools, in one run: `make bench`.

Every arm runs in a process of its own (peers_worker.py), one after another, on the same file of simulated cells. The
time of an epoch is what a further one adds: runs of one and of three epochs, half of the difference, the median of
paired repeats. Loading is part of our own arms; the others are given the cells in memory and are not charged for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import many_cells
import pandas as pd
from peers import FOLDER, PEERS_PYTHON, Method, work
from provenance import hardware, provenance, write_json

from scanvi_tutorial.evaluation import evaluate

__all__ = ["ARMS", "epoch_of", "main"]

OURS, TUTORIAL = "speed_ours:from_file", "scanvi_tutorial.reference:pyro_tutorial"
RESULTS, CACHE = FOLDER / "results" / "speed.json", FOLDER.parent / "_build" / "bench"
SCVI = {"model": {"n_latent": 30, "n_layers": 2}, "train_size": 1.0}

# name: the method when it runs `epochs` epochs
ARMS: dict[str, Callable[[int], Method]] = {
    "Pyro's tutorial, dense": lambda epochs: Method(TUTORIAL, {"epochs": epochs}),
    "ours, the same sizes, all genes": lambda epochs: Method(
        OURS, {"genes": 10**9, "tutorial": True, "epochs": epochs}
    ),
    "ours, defaults": lambda epochs: Method(OURS, {"epochs": epochs}),
    "scvi-tools": lambda epochs: Method(
        "peers_scvi:scanvi", {**SCVI, "scvi_epochs": epochs, "scanvi_epochs": 1}, PEERS_PYTHON
    ),
    "scvi-tools, with labels": lambda epochs: Method(
        "peers_scvi:scanvi", {**SCVI, "scvi_epochs": 1, "scanvi_epochs": epochs}, PEERS_PYTHON
    ),
}
PARTS = ("epochs", "whole", "growth")
# a whole training, in epochs of the arms above: what each documentation asks for
WHOLE = {
    "Pyro's tutorial": {"Pyro's tutorial, dense": 80},
    "scvi-tools": {"scvi-tools": 100, "scvi-tools, with labels": 25},
}


def once(method: Method, cells: Path, *, threads: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run a method once; ours is given the path, the others the cells."""
    with tempfile.TemporaryDirectory() as folder:
        return work("speed", method, cells, Path(folder), seed=0, threads=threads, read=method.call != OURS)


def epoch_of(arm: str, cells: Path, *, threads: int, repeats: int) -> dict[str, Any]:
    """Return seconds that an epoch takes (median, least, most of paired repeats) and the memory added by the run."""
    seconds, added = [], []
    for _ in range(repeats):
        short, long = (once(ARMS[arm](epochs), cells, threads=threads)[1] for epochs in (1, 3))
        seconds.append((long["seconds"] - short["seconds"]) / 2)
        added.append(long["added_mb"])
    return {
        "arm": arm,
        "epoch_seconds": round(statistics.median(seconds), 2),
        "least": round(min(seconds), 2),
        "most": round(max(seconds), 2),
        "added_mb": round(max(added)),
        "repeats": repeats,
    }


def whole(cells: Path, name: str, settings: dict[str, Any], *, threads: int) -> dict[str, Any]:
    """Return what a whole run of ours costs, from the file to labels, and how right it is."""
    table, answer = once(Method(OURS, settings), cells, threads=threads)
    with_truth = anndata.read_h5ad(cells, backed="r")
    scores = evaluate(anndata.AnnData(obs=with_truth.obs), table)
    with_truth.file.close()
    kept = ("seconds", "cpu_seconds", "added_mb")
    return {"run": name, **{key: answer[key] for key in kept}, **scores.round(4)[["accuracy", "log_loss"]].to_dict()}


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for; every part replaces its own rows in the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", default=["epochs", "whole", "growth"], choices=["epochs", "whole", "growth"]
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    parser.add_argument("--cells", type=int, default=many_cells.CELLS)
    parser.add_argument("--most-cells", type=int, default=200_000, help="where the growth curve ends")
    parser.add_argument("--reference", action="store_true", help="also fit ours for 100 epochs, as the mark of quality")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    results = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    about = provenance() | {"threads": asked.threads}
    cells = many_cells.made(CACHE, asked.cells)

    def keep(part: str, rows: list[dict[str, Any]]) -> None:
        results[part] = {"about": about, "rows": rows}
        write_json(asked.out, results)
        print(f"\n{part}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)

    if "epochs" in asked.parts:
        rows = {row["arm"]: row for row in results.get("epochs", {}).get("rows", [])}
        for arm in asked.arms:
            rows[arm] = epoch_of(arm, cells, threads=asked.threads, repeats=asked.repeats)
            keep("epochs", list(rows.values()))
    if "whole" in asked.parts:
        runs = {row["run"]: row for row in results.get("whole", {}).get("rows", [])}
        runs["defaults"] = whole(cells, "defaults", {}, threads=asked.threads)
        keep("whole", list(runs.values()))
        if asked.reference:
            runs["100 epochs"] = whole(cells, "100 epochs", {"epochs": 100}, threads=asked.threads)
            keep("whole", list(runs.values()))
    if "growth" in asked.parts:
        rows = []
        for number in (2_000, 6_000, 20_000, 60_000, 200_000):
            if number <= asked.most_cells:
                rows.append(_growth(number, many_cells.GENES, 2_000, asked.threads))
                keep("growth", rows)
        for genes in (2_000, 6_000, 20_000, 30_000):
            rows.append(_growth(many_cells.CELLS // 4, genes, genes, asked.threads))
            keep("growth", rows)
    print(
        f"\n{hardware()['processor']}, {asked.threads} thread(s); this driver held {resident('VmHWM'):.0f} MB at most."
    )
    print(f"Results are in {asked.out}.")


def _growth(cells: int, genes: int, kept: int, threads: int) -> dict[str, Any]:
    path = many_cells.made(CACHE, cells, genes)
    _, answer = once(Method(OURS, {"genes": kept, "epochs": 1}), path, threads=threads)
    backed = anndata.read_h5ad(path, backed="r")
    stored = int(backed.X.group["indptr"][-1]) if hasattr(backed.X, "group") else int(backed.X.nnz)
    backed.file.close()
    measured = {key: answer[key] for key in ("seconds", "added_mb")}
    return {"cells": cells, "genes": genes, "genes_kept": kept, "stored": stored, **measured}


if __name__ == "__main__":
    main()

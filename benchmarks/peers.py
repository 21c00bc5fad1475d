"""Our scANVI beside its peers on the same cells, genes, seeds and threads: `make peers`.

Each method runs in a process of its own under the Python that has it (peers_worker.py), one after another. It is given
counts and seed labels; the truth stays here, where all are scored by the same code over the cells without a seed label.
One RNG seed a draw chooses the seed cells and draws each method's weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData
from peers_worker import read_answer
from provenance import hardware, provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.config import DATASETS
from scanvi_tutorial.evaluation import largest_class_rate, scored_cells, scores

__all__ = ["METHODS", "Method", "WorkerError", "bare", "compare", "draw", "show", "work"]

FOLDER = Path(__file__).resolve().parent
PEERS_PYTHON = FOLDER.parent / "_build" / "peers" / "bin" / "python"
WORKER = FOLDER / "peers_worker.py"
MEASURED = ("seconds", "cpu_seconds", "peak_mb", "added_mb")
TAIL = 15  # lines of a dead worker's output that its error shows


@dataclass(frozen=True)
class Method:
    """What to call, `module:name` with (adata, *, labels, seed, **settings), and under which Python."""

    call: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    python: str | Path = sys.executable


_TUTORIAL = {"model": {"n_latent": 30, "n_layers": 2}, "scvi_epochs": 100, "scanvi_epochs": 25}
_scvi_tools = partial(Method, "peers_scvi:scanvi", python=PEERS_PYTHON)

# A line a method. Whatever can be called as a `Baseline` can stand here, from any module of ours or of the peers.
METHODS: dict[str, Method] = {
    "ours": Method("peers_ours:scanvi"),
    # sizes and epochs of docs.scvi-tools.org, "Seed labeling with scANVI"
    "scvi-tools, tutorial": _scvi_tools(_TUTORIAL),
    "scvi-tools, tutorial, all cells": _scvi_tools({**_TUTORIAL, "train_size": 1.0}),  # by itself it keeps 10 % aside
    "scvi-tools, defaults": _scvi_tools(),
    "Pyro's tutorial": Method("scanvi_tutorial.teaching.pyro_tutorial:pyro_tutorial"),
    "logistic regression": Method("scanvi_tutorial.evaluation:logistic_regression"),
}


class WorkerError(RuntimeError):
    """A method did not deliver."""


def draw(seed: int, *, dataset: str, per_label: int, how: str, genes: int) -> AnnData:
    """Return the cells of a data set with the seed labels of one draw and the genes that all methods see."""
    return st.select_genes(st.seed_labels(st.load(dataset), per_label, how, seed), genes)


def bare(adata: AnnData, labels_key: str = "label") -> AnnData:
    """Return what a method may see: counts, seed labels, names of cells and genes."""
    return AnnData(adata.X, obs=adata.obs[[labels_key]].copy(), var=adata.var[[]].copy())


def work(
    name: str, method: Method, cells: Path, folder: Path, *, seed: int, threads: int = 1, read: bool = True
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Let a process of its own run `method` on the file `cells`; return probabilities (cells, labels) and measurements.

    Raises:
        WorkerError: Where there is no such Python, or the process ends without an answer.
    """
    if not Path(method.python).is_file():
        raise WorkerError(f"{name} has no Python to run under: {method.python} is missing. `make peers` makes it.")
    request = {"cells": str(cells), "call": method.call, "settings": dict(method.settings)}
    write_json(folder / "request.json", request | {"labels": "label", "seed": seed, "threads": threads, "read": read})
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    count = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    process = subprocess.run(
        [str(method.python), str(WORKER), str(folder / "request.json")],
        cwd=folder,
        env=environ | count | {"TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        if process.returncode:
            raise FileNotFoundError
        return read_answer(folder)
    except FileNotFoundError:
        raise WorkerError(_obituary(name, seed, process)) from None


def compare(
    methods: Mapping[str, Method],
    draws: Callable[[int], AnnData],
    seeds: Iterable[int],
    *,
    threads: int = 1,
    finished: Callable[[dict[str, Any]], None] = lambda results: None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run every method on every draw; return `rows`, one a method and draw, and `methods`, what each was.

    `draws(seed)` gives cells with `obs["label"]` and `obs["truth"]`. `finished` is called with the results so far after
    each draw, `report` with a line after each method.
    """
    results: dict[str, Any] = {"data": {}, "methods": {}, "rows": []}
    for seed in seeds:
        adata = draws(seed)
        results["data"] = _data(adata)
        with tempfile.TemporaryDirectory() as folder:
            bare(adata).write_h5ad(cells := Path(folder) / "cells.h5ad")
            for number, (name, method) in enumerate(methods.items()):
                (own := Path(folder) / str(number)).mkdir()
                table, answer = work(name, method, cells, own, seed=seed, threads=threads)
                found = scores(adata, table).round(5).to_dict()
                results["rows"].append(
                    {"method": name, "seed": seed, **{key: answer[key] for key in MEASURED}, **found}
                )
                about = {key: answer[key] for key in ("versions", "threads", "resolved")}
                results["methods"][name] = {"call": method.call, "settings": dict(method.settings), **about}
                report(f"draw {seed}: {name}: accuracy {found['accuracy']:.3f}, {answer['seconds']:.0f} s")
        finished(results)
    return results


def show(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the table to print: a row a method in the order run, each number the mean (min–max) over draws."""
    columns = {
        "accuracy": ("accuracy", ".3f"),
        "balanced_accuracy": ("balanced", ".3f"),
        "log_loss": ("log-loss", ".3f"),
        "calibration_error": ("calibration error", ".3f"),
        "seconds": ("seconds", ".0f"),
        "peak_mb": ("peak MB", ".0f"),
        "added_mb": ("MB over imports", ".0f"),
    }
    frame = pd.DataFrame(rows)
    there = [name for name in columns if name in frame]
    spread = frame.groupby("method", sort=False)[there].agg(["mean", "min", "max"])
    table = pd.DataFrame(index=spread.index)
    for name in there:
        title, form = columns[name]
        table[title] = [f"{mean:{form}} ({low:{form}}–{high:{form}})" for mean, low, high in spread[name].to_numpy()]
    return table.rename_axis(None).to_string()


def _data(adata: AnnData) -> dict[str, Any]:
    """Return what is worth knowing of the last draw of cells."""
    scored = adata[scored_cells(adata)]
    return {
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "seed_cells": adata.n_obs - scored.n_obs,
        "largest_class": round(largest_class_rate(scored.obs["truth"].dropna()), 5),
    }


def _obituary(name: str, seed: int, process: subprocess.CompletedProcess[str]) -> str:
    ended = f"ended with exit code {process.returncode}"
    if process.returncode < 0:
        ended = f"was killed by signal {-process.returncode}" + " (out of memory?)" * (process.returncode == -9)
    said = process.stdout.strip().splitlines()
    tail = "\n".join(f"  {line}" for line in said[-TAIL:]) or "  (nothing)"
    return f"{name} failed on draw {seed}: its process {ended} and left no answer. The end of what it said:\n{tail}"


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="pbmc68k", choices=DATASETS)
    parser.add_argument("--per-label", type=int, default=10, help="seed cells a type")
    parser.add_argument("--how", default="random", choices=("random", "markers"), help="how seed cells are chosen")
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME", help="; ".join(METHODS)
    )
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or 1))
    parser.add_argument("--out", type=Path, help="results file, by itself benchmarks/results/peers-DATASET.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison, print the table, leave a results file, which is written anew after each draw."""
    asked = _arguments(arguments)
    settings = {"dataset": asked.dataset, "per_label": asked.per_label, "how": asked.how, "genes": asked.genes}
    name = f"peers-{asked.dataset}" + ("-markers" if asked.how == "markers" else "")
    out = asked.out or FOLDER / "results" / f"{name}.json"
    about = provenance() | {"settings": settings | {"draws": asked.draws, "threads": asked.threads}}

    def finished(results: dict[str, Any]) -> None:
        write_json(out, about | results)

    try:
        results = compare(
            {name: METHODS[name] for name in asked.methods},
            partial(draw, **settings),
            range(asked.draws),
            threads=asked.threads,
            finished=finished,
            report=partial(print, flush=True),
        )
    except WorkerError as error:
        sys.exit(str(error))
    data = results["data"]
    print(
        f"\n{asked.dataset}: {data['cells']} cells, {data['genes']} genes, {data['seed_cells']} seed cells "
        f"({asked.how}); largest class {data['largest_class']:.3f}\n"
        f"Mean (min–max) over {asked.draws} draws; {hardware()['processor']}, {asked.threads} thread(s)\n\n"
        f"{show(results['rows'])}\n"
    )
    if any(row["seconds"] > 1.25 * row["cpu_seconds"] + 1 for row in results["rows"]):
        print("Other programs shared the processor, so `seconds` is too long; the results file also has `cpu_seconds`.")
    print(f"Results are in {out}.")


if __name__ == "__main__":
    main()

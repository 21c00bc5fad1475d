"""Where a step of training spends its time; `python benchmarks/step.py` on an idle machine, on one thread (chapter 11).

Functions are timed from outside while a fit runs, each without the timed functions that it calls. So that code of an
earlier commit can be measured too, `--package FOLDER` takes the package from there and `--name` says what it is called.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "step.json"
SIZES = ((700, 765, 200), (20_000, 2_000, 157))  # cells, genes, steps
REPEATS = 5
WHOLE = "the rest"


class Clock:
    """Seconds by name, of functions that call each other."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.within = [0.0]  # seconds of timed functions called by each that is running

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with its own seconds added up under `name`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self.within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - begun
                self.spent[name] += taken - self.within.pop()
                self.within[-1] += taken

        return call


def measure(cells: int, genes: int, steps: int) -> dict[str, float]:
    """Return milliseconds a step by what they are spent on, the median of some fits."""
    import torch

    import scanvi_tutorial as st
    from scanvi_tutorial.model.scanvi import SCANVI
    from scanvi_tutorial.training import fast, loop, minibatches

    torch.set_num_threads(1)
    adata = st.load("simulated", cells=cells, genes=genes, per_label=10)
    settings = {"objective": "unlabeled", "device": "cpu"}
    loop.fit(SCANVI.from_anndata(adata), adata, st.TrainConfig(max_steps=5, **settings))  # imports, memory
    learned = -(-round(0.9 * (adata.obs["label"] == "Unknown").sum()) // 128)
    places = {
        "thinning": (minibatches, "downsample_counts"),
        "reading a minibatch": (minibatches, "read_half"),
        "dropout": (torch.nn.Dropout, "forward"),
        "likelihood and last layer": (fast, "count_log_likelihood"),
        "networks and other terms": (fast.FastEngine, "bound"),
        "the way back": (torch.Tensor, "backward"),
        "Adam": (torch.optim.Adam, "step"),
        "watching held-out cells": (loop._Fit, "watch"),
    }
    rows = []
    for _ in range(REPEATS):
        clock, before = Clock(), {name: getattr(*place) for name, place in places.items()}
        for name, (owner, attribute) in places.items():
            setattr(owner, attribute, clock.timed(name, before[name]))
        try:
            run, config = clock.timed(WHOLE, loop.fit), st.TrainConfig(max_steps=steps, **settings)
            history = run(SCANVI.from_anndata(adata), adata, config)
        finally:
            for name, (owner, attribute) in places.items():
                setattr(owner, attribute, before[name])
        rows.append({name: 1e3 * spent / (len(history) * learned) for name, spent in clock.spent.items()})
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    """Read the command line, measure, print and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--name", default="now")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.package))
    import pandas as pd
    from provenance import provenance, write_json

    rows = json.loads(asked.out.read_text())["rows"] if asked.out.is_file() else []
    rows = [row for row in rows if row["name"] != asked.name]
    for cells, genes, steps in SIZES:
        parts = measure(cells, genes, steps)
        rows += [
            {"name": asked.name, "cells": cells, "genes": genes, "part": part, "ms": ms} for part, ms in parts.items()
        ]
    write_json(asked.out, provenance() | {"rows": rows})
    table = pd.DataFrame(rows).pivot_table("ms", "part", ["cells", "genes", "name"])
    print(table.round(1).to_string(), table.sum().round(1).to_string(), sep="\n")


if __name__ == "__main__":
    main()

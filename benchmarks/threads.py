"""What a step costs on one thread and on all, alone and beside a busy process: `python benchmarks/threads.py`.

A busy process multiplies matrices on one thread. "default" is what `fit` chooses. Every number is the median of some
fits of few steps; what is compared was measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from anndata import AnnData
from provenance import provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.training import loop

RESULTS = Path(__file__).resolve().parent / "results" / "threads.json"
SIZES = ((700, 765), (3_000, 2_000), (1_500, 20_000))  # cells and genes
STEPS, REPEATS = 24, 6
BUSY = "import torch; torch.set_num_threads(1); a = torch.rand(500, 500)\nwhile True: a @ a"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep other processes busy meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        time.sleep(5 if others else 0)  # they import first
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def milliseconds(adata: AnnData, threads: int | None) -> float:
    """Return what a step takes on so many threads; None leaves them to `fit`."""
    limit = loop._MANY_ENTRIES
    torch.set_num_threads(threads or torch.get_num_threads())
    loop._MANY_ENTRIES = 0 if threads else limit
    taken: list[float] = []
    config = st.TrainConfig(objective="unlabeled", device="cpu", max_epochs=10**6, max_steps=STEPS)
    try:
        st.fit(st.SCANVI.from_anndata(adata), adata, config, after_step=lambda: taken.append(time.perf_counter()))
    finally:
        loop._MANY_ENTRIES = limit
    return 1e3 * statistics.median(b - a for a, b in pairwise(taken[3:]))  # without what the first steps set up


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    about, everything = provenance(), torch.get_num_threads()
    found: dict[tuple[int, int, int, str], list[float]] = defaultdict(list)
    for cells, genes in SIZES:
        adata = st.load("simulated", cells=cells, genes=genes, per_label=10)
        milliseconds(adata, None)  # warms up
        arms = [("one", 1), ("all", everything), ("default", None)]
        for _ in range(REPEATS):
            arms = arms[1:] + arms[:1]  # each is first in turn
            for others in (0, 1):
                with busy(others):
                    for name, threads in arms:
                        torch.set_num_threads(everything)
                        found[cells, genes, others, name].append(milliseconds(adata, threads))
                        print(cells, genes, others, name, round(found[cells, genes, others, name][-1], 1), flush=True)
    names = ("cells", "genes", "busy", "threads")
    rows = [
        dict(zip(names, key, strict=True)) | {"ms": statistics.median(ms), "least": min(ms), "most": max(ms)}
        for key, ms in found.items()
    ]
    write_json(asked.out, about | {"all": everything, "rows": rows})
    print(pd.DataFrame(rows).pivot_table("ms", ["cells", "genes", "threads"], "busy").round(1))


if __name__ == "__main__":
    main()

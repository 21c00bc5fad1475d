"""How long the command line takes to refuse a large file, for each thing that it refuses: a table of seconds.

    python benchmarks/refusals.py --cells 50000 --genes 20000

Each file is one of simulated counts with one fault. A refusal that comes after a fit would take minutes, and counts as
late; the exit code is the number of those that took longer than `--most` seconds, or were no refusal.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

_TYPES = 8
_PER_CELL = 1_000  # genes detected in a cell


def table(cells: int, genes: int) -> AnnData:
    """Return counts (cells, genes), which tell nothing, and labels of a tenth of the cells."""
    rng = np.random.default_rng(0)
    columns = rng.integers(genes, size=(cells, _PER_CELL), dtype=np.int32)
    starts = np.arange(cells + 1, dtype=np.int64) * _PER_CELL
    counts = sparse.csr_matrix((np.ones(columns.size, dtype=np.float32), columns.ravel(), starts), (cells, genes))
    counts.sum_duplicates()
    label = np.where(rng.random(cells) < 0.1, rng.integers(_TYPES, size=cells).astype(str), "Unknown")
    obs = pd.DataFrame({"celltype": label}, index=[f"cell{c}" for c in range(cells)])
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene{g}" for g in range(genes)]))


def _last_count(value: float) -> Callable[[AnnData], None]:
    def spoil(adata: AnnData) -> None:
        adata.X.data[-1] = value

    return spoil


def _one_name(adata: AnnData) -> None:
    adata.var_names = ["a", "a", *adata.var_names[2:]]


def _totals(adata: AnnData) -> None:
    adata.obs["total"] = np.arange(adata.n_obs) // 2


def _silent_cell(adata: AnnData) -> None:
    adata.X.data[adata.X.indptr[-2] :] = 0


FAULTS: dict[str, tuple[Callable[[AnnData], None], list[str]]] = {
    "no such column": (lambda adata: None, ["--labels", "cell_type"]),
    "a column of numbers": (_totals, ["--labels", "total"]),
    "one label": (lambda adata: adata.obs.insert(0, "one", "T"), ["--labels", "one"]),
    "no such layer": (lambda adata: None, ["--labels", "celltype", "--layer", "counts"]),
    "a fraction": (_last_count(0.5), ["--labels", "celltype"]),
    "a missing value": (_last_count(np.nan), ["--labels", "celltype"]),
    "an empty cell": (_silent_cell, ["--labels", "celltype"]),
    "genes of one name": (_one_name, ["--labels", "celltype"]),
    "no gene": (lambda adata: adata.var.insert(0, "feature_types", "Peaks"), ["--labels", "celltype"]),
    "no such batch": (lambda adata: None, ["--labels", "celltype", "--batch", "donor"]),
}


def main() -> int:
    """Print a row a fault, and return how many came late or were accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--most", type=float, default=10.0, help="seconds")
    given = parser.parse_args()
    whole, rows = table(given.cells, given.genes), []
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "in.h5ad", Path(folder) / "out.h5ad"
        for name, (spoil, options) in FAULTS.items():
            adata = AnnData(whole.X.copy(), obs=whole.obs.copy(), var=whole.var.copy())
            spoil(adata)
            adata.write_h5ad(path)
            command = [sys.executable, "-m", "scanvi_tutorial", "annotate", str(path), "--out", str(out), *options]
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            rows.append((name, done.returncode, time.perf_counter() - started, done.stderr.strip()[-110:]))
    found = pd.DataFrame(rows, columns=["fault", "exit code", "seconds", "said"])
    print(found.round(1).to_string(index=False))
    return int(((found["exit code"] != 1) | (found["seconds"] > given.most)).sum())


if __name__ == "__main__":
    raise SystemExit(main())

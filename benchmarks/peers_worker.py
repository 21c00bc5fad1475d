"""Run one method on one draw in a process of its own: `python peers_worker.py request.json`.

The driver (peers.py) starts it under the Python that has the method, ours or scvi-tools', so this file may import what
both have and nothing of either. The request names a file of cells, which holds counts and seed labels and no truth, and
a function `module:name`, called as (adata, *, labels_key, seed, **settings) -> DataFrame (cells, labels). The answer is
written beside the request: `probabilities.npz`, then `answer.json`, each whole or not there.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from provenance import versions, write_json

__all__ = ["read_answer", "resident", "run"]

PACKAGES = ("scanvi-tutorial", "scvi-tools", "torch", "lightning", "pyro-ppl", "numpy", "scikit-learn", "anndata")


def run(request: dict[str, Any], folder: Path) -> None:
    """Do what `request` says and leave the answer in `folder`.

    `seconds` (of the wall clock) and `cpu_seconds` span the call of the function, from cells in memory to
    probabilities: neither imports nor, unless the method reads it itself, reading the file. `peak_mb` is the most
    memory, in 10⁶ bytes, that the process ever held, and `added_mb` how far that is above what it held when all imports
    were done. Pages of files that are mapped, which the system may drop and read again, count there; `held_mb` is the
    same without them, looked at fifty times a second.
    """
    method = _function(request["call"])
    torch.set_num_threads(request["threads"])  # after the imports, which may set it themselves
    base, held = resident("VmRSS"), Held()
    # a method that reads the file itself is timed and measured with it
    adata = anndata.read_h5ad(request["cells"]) if request.get("read", True) else request["cells"]
    wall, cpu = time.perf_counter(), time.process_time()
    with held:
        table = method(adata, labels_key=request["labels"], seed=request["seed"], **request["settings"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resident("VmHWM")
    _write_table(folder / "probabilities.npz", table)
    answer = {
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(peak, 1),
        "added_mb": round(peak - base, 1),
        "held_mb": round(held.added, 1),
        "threads": torch.get_num_threads(),
        "versions": versions(PACKAGES),
        "resolved": table.attrs,  # the settings in full, where the method tells them
    }
    write_json(folder / "answer.json", answer)


def read_answer(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the probabilities (cells, labels) and what was measured; `FileNotFoundError` where there is no answer."""
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    with np.load(folder / "probabilities.npz", allow_pickle=False) as file:
        table = pd.DataFrame(file["probabilities"], index=file["cells"].tolist(), columns=file["labels"].tolist())
    return table, answer


def resident(field: str) -> float:
    """Return memory of this process in 10⁶ bytes.

    "VmRSS" is what it holds now, "RssAnon" the same without mapped files, "VmHWM" the most it ever held.
    Elsewhere than on Linux all are the most it ever held. `getrusage` won't do on Linux: its maximum survives `exec`,
    so a child starts with that of whoever started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


class Held:
    """Watch, while it is entered, the anonymous memory of this process: `added` is its growth in MB, a lower bound.

    Looked at fifty times a second, so a peak within one call of C may be missed; mapped files and shared memory don't
    count. Enter it once. Elsewhere than on Linux it is the growth of the most that was ever held.
    """

    def __init__(self) -> None:
        self.base = self.most = resident("RssAnon")
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def added(self) -> float:
        """The most that was held beyond what was held at first, in 10⁶ bytes."""
        return self.most - self.base

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, resident("RssAnon"))

    def __enter__(self) -> Held:
        """Begin."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.done.set()
        self.thread.join()
        self.most = max(self.most, resident("RssAnon"))


def _function(call: str) -> Callable[..., pd.DataFrame]:
    module, _, name = call.partition(":")
    return getattr(import_module(module), name)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        np.savez(
            file,
            probabilities=table.to_numpy(np.float64),
            cells=np.asarray(table.index, dtype=str),
            labels=np.asarray(table.columns, dtype=str),
        )
    beside.replace(path)


def main(request: str) -> None:
    """Read the request and answer it."""
    path = Path(request).resolve()
    run(json.loads(path.read_text(encoding="utf-8")), path.parent)


if __name__ == "__main__":
    main(sys.argv[1])

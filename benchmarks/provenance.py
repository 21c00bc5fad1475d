"""Say where a number comes from: date, versions, hardware, commit.

Every results file in `benchmarks/results` carries `provenance()`. Seconds mean nothing without the processor, accuracy
little without the versions; names of machines, people and folders help nobody and stay out. Needs Python alone.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["PACKAGES", "hardware", "provenance", "versions", "write_json"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scanvi-tutorial", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn", "pandas", "anndata", "scanpy")
_GIB = 2**30


def provenance(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Return date (UTC), Python, versions of `packages`, hardware and git commit, of JSON types and naming no machine.

    `git` is None outside a checkout; `uncommitted` says whether code under the commit had been changed.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions(packages),
        "hardware": hardware(),
        "git": _git(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each of `packages`; those that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return processor, cores and memory; `threads` is what OMP_NUM_THREADS grants to each process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory(),
        "threads": int(asked) if asked.isdigit() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Write `content` beside `path` and rename it, so that whoever reads `path` finds a whole file, old or new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(beside).chmod(0o644)  # mkstemp's files are for their owner alone
        Path(beside).replace(path)
    finally:
        Path(beside).unlink(missing_ok=True)
    return path


def _processor() -> str:
    """Return the model of the processor: Linux has it in a file, elsewhere `platform` knows as much as there is."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models and models[0]) or platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1)
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def _git() -> dict[str, Any] | None:
    commit = _ask_git("rev-parse", "HEAD")
    if commit is None:
        return None
    code = ("scanvi_tutorial", "benchmarks/*.py")
    return {"commit": commit, "uncommitted": bool(_ask_git("status", "--porcelain", "--", *code))}


def _ask_git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None
    return answer.stdout.strip()

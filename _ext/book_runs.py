"""The table of run times: when each chapter was run, how long it took, on which profile, versions and hardware.

A note is written beside the outputs of a chapter when it has been run, so outputs that are taken from the cache keep
the note of the run that made them. `book/runs.md` says where the table goes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanvi_tutorial.config import RunConfig

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # `provenance`
PAGE = "book/runs"
MARK = "% run times"  # the line of the page that the table replaces
NOTE = "run.json"
SHOWN = ("torch", "pyro-ppl", "scanpy", "anndata", "scikit-learn")  # of the versions


def folder_of(app: Sphinx, name: str) -> Path:
    """Return where the outputs of a page are kept."""
    return Path(app.outdir).parent / ".jupyter_cache" / Path(name).name / app.env.book_keys[name]  # type: ignore[attr-defined]


def note_run(folder: Path, seconds: float) -> None:
    """Write when and how a chapter was run, and how long it took, beside its outputs."""
    from provenance import provenance, write_json

    about = provenance()
    run = RunConfig.from_env()
    profile = {"profile": "smoke" if run.smoke else "full", "dataset": run.dataset, "seconds": round(seconds, 1)}
    write_json(folder / NOTE, profile | {key: about[key] for key in ("date", "python", "versions", "hardware")})


def table_of(runs: Iterable[tuple[str, dict[str, Any] | None]]) -> str:
    """Return the table as Markdown: a row for each page and its note, and a list of versions and hardware."""
    rows = ["| chapter | run on | seconds | profile | data set | made with |", "|---|---|--:|---|---|--:|"]
    settings: list[str] = []
    for page, note in runs:
        if note is None:
            rows.append(f"| [](/{page}) | not recorded | | | | |")
            continue
        if (setting := setting_of(note)) not in settings:
            settings.append(setting)
        date = note["date"][:10].replace("-", "\u2011")  # which does not break
        number = settings.index(setting) + 1
        rows.append(
            f"| [](/{page}) | {date} | {note['seconds']:,.0f} | {note['profile']} | `{note['dataset']}` | {number} |"
        )
    return "\n".join([*rows, "", *(f"{number}. {text}" for number, text in enumerate(settings, 1))])


def setting_of(note: dict[str, Any]) -> str:
    """Return versions and hardware of a run in words."""
    hardware = note["hardware"]
    versions = ", ".join(f"{name} {note['versions'][name]}" for name in SHOWN if name in note["versions"])
    threads = f", {hardware['threads']} thread(s) a process" if hardware["threads"] else ""
    memory = f", {hardware['memory_gib']:.0f} GiB" if hardware["memory_gib"] else ""
    machine = f"{hardware['processor']}, {hardware['cores']} cores{memory}{threads}"
    return f"Python {note['python']}, {versions}; {machine}; {hardware['system']}."


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the table into its page, which is read after the chapters."""
    if name != PAGE:
        return
    runs = []
    for page in sorted(getattr(app.env, "book_keys", {})):
        if page in app.env.found_docs and "kernelspec:" in Path(app.env.doc2path(page)).read_text(encoding="utf-8"):
            note = folder_of(app, page) / NOTE
            runs.append((page, json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None))
    source[0] = source[0].replace(MARK, table_of(runs))


def outdated(app: Sphinx, env: BuildEnvironment, *found: set[str]) -> list[str]:
    """Have the page read anew in every build."""
    return [PAGE] if PAGE in env.found_docs else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}

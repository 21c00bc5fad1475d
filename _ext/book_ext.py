"""Local Sphinx extension of the book.

* Salts the cache of executed chapters with everything outputs depend on besides the code cells themselves, so that a
  change of the package, the pins, the profile or the data set executes the chapters anew.
* Prints each code cell with its time while a chapter runs: to the terminal, never into a page.
* Serves MathJax from the built site, so that pages typeset mathematics without a network, and leaves out of the pages
  what the theme loads and nobody sees.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.errors import ExtensionError
from sphinx.util.docstrings import prepare_docstring

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx
    from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[1]
SALTED_FILES = (
    *("scanvi_tutorial/**/*", "benchmarks/results/*.json", "_ext/book_ext.py"),
    *("requirements.txt", "pyproject.toml"),
)
SALTED_ENVIRONMENT = ("SCANVI_SMOKE", "CI", "SCANVI_DATASET")


def salt(environ: dict[str, str] | os._Environ[str] = os.environ, root: Path = ROOT) -> str:
    """Return a short digest of what the outputs of a chapter depend on besides its code cells."""
    digest = hashlib.sha256()
    for pattern in SALTED_FILES:
        for path in sorted(path for path in root.glob(pattern) if path.is_file() and "__pycache__" not in path.parts):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for name in SALTED_ENVIRONMENT:
        digest.update(f"{name}={environ.get(name, '')}\0".encode())
    return digest.hexdigest()[:12]


def configure(app: Sphinx, config: Config) -> None:
    """Point the build at the salted cache and at the local MathJax, and quiet what only people in Jupyter need."""
    os.environ["TQDM_DISABLE"] = "1"  # a page would keep every refresh of a progress bar
    os.environ.pop("MPLBACKEND", None)  # a backend set for a terminal would draw nothing into a page
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache" / salt())
    config.mathjax_path = "mathjax/tex-chtml.js"


def show_progress(app: Sphinx, config: Config) -> None:
    """Let every chapter that is executed report its code cells to the terminal as they run."""
    from jupyter_cache.executors import utils  # the one place from which myst-nb starts a notebook
    from traitlets.config import Config as Settings

    encrypted = Settings({"KernelManager": {"transport_encryption": "auto"}})  # else each kernel warns of eavesdroppers
    execute = getattr(utils.executenb, "silent", utils.executenb)

    def executenb(nb: Any, **options: Any) -> Any:
        return execute(nb, config=encrypted, **options, **reporting(nb, Path(app.env.docname).name))

    executenb.silent = execute  # type: ignore[attr-defined]
    utils.executenb = executenb


def reporting(nb: Any, chapter: str, write: Callable[[str], object] = sys.stderr.write) -> dict[str, Any]:
    """Return the hooks of a notebook client that write a line such as `01_data [3/17] 2.1s  adata = st.load(…`."""
    total = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in nb.cells)
    seen, begun = 0, 0.0

    def line_of(cell: Any) -> str:
        lines = [line for line in cell.source.strip().splitlines() if not line.startswith(("#", "%"))]
        return lines[0][:70] if lines else "…"

    def begin(cell: Any, cell_index: int) -> None:
        nonlocal seen, begun
        seen, begun = seen + 1, time.monotonic()
        if sys.stderr.isatty():
            write(f"{chapter} [{seen}/{total}] …  {line_of(cell)}\r")

    def end(cell: Any, cell_index: int, execute_reply: Any) -> None:
        clear = "\033[K" if sys.stderr.isatty() else ""
        write(f"{clear}{chapter} [{seen}/{total}] {time.monotonic() - begun:.1f}s  {line_of(cell)}\n")

    return {"on_cell_execute": begin, "on_cell_executed": end}


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy the part of MathJax that pages load: not through `_static/`, whose scripts end up on every page."""
    if exception is not None or app.builder.format != "html":
        return
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None or not found.submodule_search_locations:
        raise ExtensionError("sphinx-mathjax-offline, from which pages get MathJax, is not installed: make book")
    source = Path(found.submodule_search_locations[0]) / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    (target / "output").mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / "tex-chtml.js", target)
    shutil.copytree(source / "output" / "chtml", target / "output" / "chtml", dirs_exist_ok=True)


def tables_of_symbols(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Set indented blocks of a module's docstring as they stand: they are tables of symbols."""
    if what != "module":
        return
    blocks = re.sub(r"(?<=\n\n)(?= {4}\S)", ".. code-block:: text\n\n", "\n".join(lines))
    lines[:] = re.sub(r"(?m)(^ {4}.*\n\n)\.\. code-block:: text\n\n", r"\1", blocks).splitlines()  # one block, not two


def chapters_by_title(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn the path of a chapter, which readers of the source open, into a link for readers of the page."""
    lines[:] = [re.sub(r"`?\b(book/\w+)\.md`?", r":doc:`/\1`", line) for line in lines]


def whole_sentences(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon makes of a property: it takes what stands before a colon for a type."""
    if what == "property" and isinstance(thing, property):
        lines[:] = prepare_docstring(thing.__doc__ or "")


def drop_thebe(app: Sphinx) -> None:
    """Keep sphinx-thebe from declaring a constant twice, which is a script error on every page (Sphinx 7.4)."""
    for listener in list(app.events.listeners.get("env-before-read-docs", [])):
        if getattr(listener.handler, "__qualname__", "") == "init_thebe_core":
            app.disconnect(listener.id)


def without_icon_script(html: str) -> str:
    """Return the head of a page without the script that draws icons, which the font of the same icons replaces."""
    return re.sub(r'\s*<script src="[^"]*/fontawesome/[^"]*"></script>', "", html)


def add_filter(app: Sphinx) -> None:
    """Let `_templates/layout.html` leave out the script of icons."""
    if app.builder.format == "html":
        app.builder.templates.environment.filters["without_icon_script"] = without_icon_script  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("config-inited", configure, priority=900)
    app.connect("config-inited", show_progress, priority=900)
    app.connect("autodoc-process-docstring", tables_of_symbols)
    app.connect("autodoc-process-docstring", whole_sentences, priority=600)  # after napoleon
    app.connect("autodoc-process-docstring", chapters_by_title, priority=700)
    app.connect("builder-inited", drop_thebe)
    app.connect("builder-inited", add_filter)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}

"""Local Sphinx extension of the book.

* Keeps the outputs of each chapter under a key of all that they depend on besides its code cells, so that a change of
  a module that it uses, of the pins, the profile or the data set executes it anew, and no other change does.
* Builds one chapter into a site that is there, where BOOK_CHAPTER names one: `make chapter NAME=05_training`.
* Prints each code cell with its time while a chapter runs: to the terminal, never into a page.
* Serves MathJax from the built site, so that pages typeset mathematics without a network, and leaves out of the pages
  what the theme loads and nobody sees.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grimp
import jupytext
from book_runs import folder_of, note_run
from IPython.core.inputtransformer2 import TransformerManager
from sphinx.errors import ExtensionError
from sphinx.util.docstrings import prepare_docstring

from scanvi_tutorial.training.cache import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("SCANVI_SMOKE", "CI", "SCANVI_DATASET")  # of the environment: other values, other outputs
RESULTS = "benchmarks/results"
PACKAGE = "scanvi_tutorial"
LOOKS = {".mplstyle", ".html"}  # what modules read that stands beside them


def key_of(chapter: str, environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> str:
    """Return a short digest of what the outputs of a chapter, given as MyST, depend on besides its code cells.

    A module whose code the chapter lists counts with its comments and line numbers; a chapter that names the folder of
    results depends on all files in it.
    """
    cells = [cell.source for cell in jupytext.reads(chapter, fmt="md:myst").cells if cell.cell_type == "code"]
    code = ast.parse("".join(TransformerManager().transform_cell(cell) for cell in cells))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    used = modules_of(code)
    used |= {name for module in used for name in graph.find_upstream_modules(module)}
    modules = {module_file(name, root) for name in used}
    calls = [node for node in ast.walk(code) if isinstance(node, ast.Call) and ast.unparse(node.func) == "show_source"]
    texts = {module_file(name, root) for name in modules_of(code, *calls)} if calls else set()
    texts |= {file for folder in {file.parent for file in modules} for file in folder.iterdir() if file.suffix in LOOKS}
    texts |= set((root / RESULTS).glob("*.*")) if any(RESULTS in cell for cell in cells) else set()
    digest = hashlib.sha256(code_digest(*modules).encode())
    for file in sorted(texts | {root / "requirements.txt"}):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    for name in SETTINGS:
        digest.update(f"{name}={environ.get(name, '')}\0".encode())
    return digest.hexdigest()[:12]


def modules_of(code: ast.AST, *parts: ast.AST) -> set[str]:
    """Return the modules of the package that define what code uses: in `parts`, or in all of it."""
    names = {}  # what a name of the code stands for
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = set()
    left = list(parts or [code])
    while left:
        node = left.pop()
        first, _, rest = (ast.unparse(node) if _is_dotted_name(node) else "").partition(".")
        if first in names:
            used.add(f"{names[first]}.{rest}".rstrip("."))
        else:
            left += ast.iter_child_nodes(node)
    return {defining_module(name) for name in used if name.split(".")[0] == PACKAGE}


def _is_dotted_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted_name(node.value))


def defining_module(name: str) -> str:
    """Return the module that defines what a dotted name stands for; the module it is taken from, if nobody knows."""
    while True:
        try:
            found = pkgutil.resolve_name(name)
            break
        except AttributeError:  # of an object that is made when the code runs
            name = name.rpartition(".")[0]
    if inspect.ismodule(found):
        return found.__name__
    module = getattr(found, "__module__", None) or ""
    return module if module.startswith(PACKAGE) else defining_module(name.rpartition(".")[0])


def module_file(name: str, root: Path = ROOT) -> Path:
    """Return the file of a module."""
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def find_changed(app: Sphinx, env: BuildEnvironment, *found: set[str]) -> list[str]:
    """Return the pages whose outputs are now kept under another key than when they were read."""
    before = {} if os.environ.get("BOOK_CHAPTER") else getattr(env, "book_keys", {})
    return [name for name, key in before.items() if name in env.found_docs and key != key_of_page(env, name)]


def key_of_page(env: BuildEnvironment, name: str) -> str:
    """Return `key_of` a page of the book."""
    return key_of(Path(env.doc2path(name)).read_text(encoding="utf-8"))


def read_one_chapter(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Read the chapter of BOOK_CHAPTER alone where a book has been built before; else all, but run no other."""
    chapter = os.environ.get("BOOK_CHAPTER")
    if chapter and env.all_docs:
        names[:] = [chapter]


def choose_outputs(app: Sphinx, name: str, source: list[str]) -> None:
    """Point the page that is about to be read at its outputs."""
    keys = getattr(app.env, "book_keys", {}) | {name: key_of_page(app.env, name)}
    app.env.book_keys = keys  # type: ignore[attr-defined]
    folder = folder_of(app, name)
    run = os.environ.get("BOOK_CHAPTER") in (None, "", name) or folder.exists()
    settings = app.env.mystnb_config
    app.env.mystnb_config = settings.copy(
        execution_cache_path=str(folder), execution_mode=app.config.nb_execution_mode if run else "off"
    )


def configure(app: Sphinx, config: Config) -> None:
    """Point the build at the local MathJax, and quiet what only people in Jupyter need."""
    os.environ["TQDM_DISABLE"] = "1"  # a page would keep every refresh of a progress bar
    os.environ.pop("MPLBACKEND", None)  # a backend set for a terminal would draw nothing into a page
    config.nb_execution_cache_path = str(Path(app.outdir).parent / ".jupyter_cache")  # `choose_outputs` adds to it
    config.mathjax_path = "mathjax/tex-chtml.js"


def show_progress(app: Sphinx, config: Config) -> None:
    """Let every chapter that is executed report its code cells to the terminal as they run."""
    from jupyter_cache.executors import utils  # the one place from which myst-nb starts a notebook
    from traitlets.config import Config as Settings

    encrypted = Settings({"KernelManager": {"transport_encryption": "auto"}})  # else each kernel warns of eavesdroppers
    execute = getattr(utils.executenb, "silent", utils.executenb)

    def executenb(nb: Any, **options: Any) -> Any:
        begun = time.monotonic()
        done = execute(nb, config=encrypted, **options, **reporting(nb, Path(app.env.docname).name))
        note_run(folder_of(app, app.env.docname), time.monotonic() - begun)
        return done

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
    app.connect("env-get-outdated", find_changed)
    app.connect("env-before-read-docs", read_one_chapter)
    app.connect("source-read", choose_outputs)
    app.connect("autodoc-process-docstring", tables_of_symbols)
    app.connect("autodoc-process-docstring", whole_sentences, priority=600)  # after napoleon
    app.connect("autodoc-process-docstring", chapters_by_title, priority=700)
    app.connect("builder-inited", drop_thebe)
    app.connect("builder-inited", add_filter)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}

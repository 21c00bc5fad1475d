"""How the tests read the book: its pages, their prose line by line, their code cells."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
LISTED = [ROOT / TOC["root"], *(ROOT / entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
PAGES = [page for page in LISTED if page.is_file()]
CHAPTERS = [page for page in PAGES if re.match(r"\d", page.name)]
EXECUTED = [page for page in PAGES if "kernelspec:" in page.read_text(encoding="utf-8")]

COLUMNS = 96  # of code fit on a page between two side bars, on a screen 1,280 pixels wide

FENCE = re.compile(r"^\s*(?P<mark>`{3,}|~{3,}|:{3,})\s*(?:\{(?P<name>[\w-]+)\})?(?P<rest>.*)$")
CODE = {None, "code-cell", "code-block", "code", "math", "bibliography", "eval-rst", "mermaid", "literalinclude"}


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) of what a reader reads as text: no header, code, display maths or directive option."""
    lines = text.splitlines()
    start = lines.index("---", 1) + 1 if lines[:1] == ["---"] else 0
    fences: list[tuple[str, bool]] = []
    maths = False
    for number, line in enumerate(lines[start:], start + 1):
        fence = FENCE.match(line)
        reading = all(inside for _, inside in fences)
        if line.lstrip().startswith("$$") or (maths and "$$" in line):
            maths = maths != (line.count("$$") % 2 == 1)
        elif fence and fences and fence["mark"].startswith(fences[-1][0]) and not fence["name"] and not fence["rest"]:
            fences.pop()
        elif fence and reading and not maths:
            fences.append((fence["mark"], fence["name"] not in CODE))
            if fence["name"] not in CODE and fence["name"] != "exercise-start" and fence["rest"].strip():
                yield number, fence["rest"].strip()
        elif reading and not maths and line.strip() and not (fences and re.match(r"^\s*:[\w-]+:", line)):
            yield number, line


def plain(line: str) -> str:
    """Return a line of prose without code, formulas, roles, addresses and the marks of lists and quotations."""
    for pattern, stand_in in (
        (r"\{[\w:~-]+\}`[^`]*`", "role"),
        (r"`[^`]*`", "code"),
        (r"\$[^$]*\$", "formula"),
        (r"\]\([^)]*\)", "]"),
        (r"<[^>]*>", ""),
        (r"^\s*(?:[-*+>]|\d+\.)\s+", ""),
    ):
        line = re.sub(pattern, stand_in, line)
    return line.strip()


def code_cells(page: Path) -> list[Any]:
    """Return the code cells of a chapter."""
    return [cell for cell in jupytext.read(page).cells if cell.cell_type == "code"]


def figure_of(cell: Any) -> dict[str, str]:
    """Return name, caption and alt text of the figure that a cell draws; empty if it is said to draw none."""
    about = cell.metadata.get("mystnb", {})
    return {**about.get("figure", {}), **about.get("image", {})}


def load_script(path: str) -> ModuleType:
    """Import a Python file that belongs to no package, by its path from the top of the repository."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module

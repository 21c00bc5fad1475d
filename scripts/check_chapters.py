"""Say what in the chapters would break a build or mislead a reader: `make lint`. Exit code 1 on any problem.

Every page has its label above its title; pictures and figures say what they show; exercises have solutions; no number
that a cell should compute is typed in prose; every chapter is executed, in the same way in every profile; a chapter
and its paired notebook hold the same cells; and the notebook for readers is plain Markdown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from jupytext.compare import NotebookDifference, compare_notebooks

sys.path.append(str(Path(__file__).resolve().parents[1] / "_ext"))

from book_notebooks import BOOK, chapters, notebook_of

COLUMNS = 96  # of code fit on a page between two side bars, on a screen 1,280 pixels wide
NUMBER = re.compile(r"\d+\.\d+|\d+\s?(?:%|percent)|\b\d{1,3}(?:,\d{3})+\b")
NO_PROSE = re.compile(  # blocks of code, comments, formulas, names of code
    r"^```.*?^```|^%.*?$|\$\$.*?\$\$|`[^`]*`|\$[^$\n]*\$|\bPython (?:≥ )?\d\.\d+", re.MULTILINE | re.DOTALL
)
RAW = re.compile(r"\{[a-z:-]+\}`|^:::|^`{3,}\{|^\([\w-]+\)=|\(eq-[\w-]+\)|<!--", re.MULTILINE)


def problems_of(name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with the text of a page, in words."""
    short = re.sub(r"^\d+_", "", name)
    if not re.search(rf"^\({short}\)=\n# ", text, re.MULTILINE):
        yield f"the label ({short})= does not stand above the title"
    for alt in re.findall(r"!\[([^\]]*)\]\(", text):
        if len(alt) < 20:
            yield f"a picture says too little of what it shows: {alt!r}"
    asked = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} (\S+)\n:class: dropdown\n", text)
    if asked != solved:
        yield f"exercises and folded solutions differ: {sorted({*asked} ^ {*solved}) or 'their order'}"
    if re.match(r"\d", name) and "kernelspec:" not in text:
        yield "without a kernelspec in its header the chapter is never executed"
    for cell in jupytext.reads(text, fmt="md:myst").cells:
        if cell.cell_type == "code":
            yield from problems_of_cell(cell)
        else:
            yield from (
                f"typed in prose, where a cell should say it: {number}" for number in typed_numbers(cell.source)
            )


def problems_of_cell(cell: Any) -> Iterator[str]:
    """Yield what is wrong with a code cell."""
    start = next(iter(cell.source.splitlines()), "")
    about = cell.metadata.get("mystnb", {})
    if figure := {**about.get("figure", {}), **about.get("image", {})}:
        caption, alt = (" ".join(str(figure.get(key, "")).split()) for key in ("caption", "alt"))
        if not caption or len(alt) < 40 or alt == caption or not str(figure.get("name")).startswith("fig-"):
            yield f"a figure needs a name fig-…, a caption, and an alternative text of its own ({start})"
    if re.search(r"smoke|environ|getenv", cell.source, re.IGNORECASE):
        yield f"a cell asks in which profile it runs ({start})"
    if {"raises-exception", "skip-execution"} & set(cell.metadata.get("tags", [])):
        yield f"a cell may fail unseen ({start})"
    for line in cell.source.splitlines():
        if len(line) > COLUMNS:
            yield f"code is wider than {COLUMNS} characters ({line.strip()})"


def typed_numbers(text: str) -> list[str]:
    """Return decimals, percentages and large numbers in prose; a sentence with a source reports that source's."""
    text = NO_PROSE.sub("", text)
    lines = [line for line in text.splitlines() if not re.search(r"\{cite|\]\(|://", line)]
    return NUMBER.findall("\n".join(lines))


def problems_of_pair(page: Path) -> Iterator[str]:
    """Yield what is wrong with the notebook that is paired with a chapter; the times of the files do not matter."""
    if not page.with_suffix(".ipynb").is_file():
        yield "its notebook is missing; run `make pairs`"
        return
    notebook, chapter = nbformat.read(page.with_suffix(".ipynb"), as_version=4), jupytext.read(page)
    if body_of(page.read_text(encoding="utf-8")) != body_of(jupytext.writes(chapter, fmt="md:myst")):
        yield "JupyterLab would change more of the chapter than what is edited; run `make pairs`"
    try:
        compare_notebooks(notebook, chapter, fmt="md:myst")
    except NotebookDifference as difference:
        where = " ".join(str(difference).split())[:200]
        yield f"the chapter and its notebook differ; run `make pairs` if the chapter is right ({where})"
    if notebook.metadata.get("kernelspec") != chapter.metadata.get("kernelspec"):
        yield "the chapter and its notebook name different kernels; run `make pairs`"
    if any(cell.cell_type == "code" and (cell.outputs or cell.execution_count) for cell in notebook.cells):
        yield "its notebook holds outputs: `make lab` saves it without; or run `make pairs` after deleting it"


def body_of(chapter: str) -> str:
    """Return a chapter without its header."""
    return re.sub(r"\A---\n.*?^---\n", "", chapter, count=1, flags=re.DOTALL | re.MULTILINE)


def problems_for_readers(page: Path) -> Iterator[str]:
    """Yield what plain Jupyter would not render in the notebook that readers open."""
    for cell in notebook_of(page).cells:
        if cell.cell_type == "markdown" and (found := RAW.search(cell.source)):
            yield f"plain Jupyter would show {found[0]!r} raw"


def main() -> int:
    """Check all pages and print what is wrong."""
    found = []
    for page in sorted(BOOK.glob("*.md")):
        found += [f"{page.name}: {problem}" for problem in problems_of(page.stem, page.read_text(encoding="utf-8"))]
    for name in chapters():
        page = BOOK / f"{name}.md"
        found += [f"{page.name}: {problem}" for problem in (*problems_of_pair(page), *problems_for_readers(page))]
    settings = yaml.safe_load((BOOK.parent / "_config.yml").read_text(encoding="utf-8"))
    told = f'repository = "{settings["sphinx"]["config"]["book_repository"]}"  # written by `make address`'
    for name in chapters():
        if told not in (BOOK / f"{name}.md").read_text(encoding="utf-8"):
            found.append(f"{name}.md: Colab is told another repository than _config.yml names; run `make address`")
    for entry in re.split(r"^@", (BOOK / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        if not re.search(r"^  (doi|url) +=", entry, re.MULTILINE):
            found.append(f"references.bib: neither doi nor url in {entry.splitlines()[0]}")
    for problem in found:
        print("PROBLEM", problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write the notebook beside each chapter, for Jupyter, Colab and Binder: `make pairs`.

The chapters are MyST, which plain Jupyter shows raw. So a notebook holds the same code cells, and prose in which
admonitions, exercises, captions, citations and equations are plain Markdown, with the numbers that the book gives
them. It goes one way: the chapter is the source, and a notebook that somebody plays with cannot change it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pybtex.database import parse_file

__all__ = ["chapters", "notebook_of", "written"]

BOOK = Path(__file__).resolve().parents[1] / "book"
HIDDEN = {"remove-cell", "remove-input", "hide-input"}
EQUATION = re.compile(r"(?P<body>\$\$(?:(?!\$\$).)*?)\s*\$\$ \((?P<label>eq-[\w-]+)\)", re.DOTALL)
ADMONITION = re.compile(r"^:::\{admonition\} (?P<title>.*)\n(?::class:.*\n)?(?P<body>(?:.*\n)*?):::$", re.MULTILINE)
EXERCISE = re.compile(r"^```\{exercise(?:-start)?\}\n:label: (?P<label>\S+)\n+(?P<body>(?:.*\n)*?)```$", re.MULTILINE)
SOLUTION = re.compile(
    r"^(?P<fence>`{3,})\{solution\} (?P<label>\S+)\n(?::class:.*\n)?(?P<body>(?:.*\n)*?)(?P=fence)$", re.MULTILINE
)
SOLUTION_START = re.compile(r"^```\{solution-start\} (?P<label>\S+)\n(?::class:.*\n)?```$", re.MULTILINE)
END = re.compile(r"^```\{(?:exercise|solution)-end\}\n```$", re.MULTILINE)
COLLAPSED = "<!-- collapsed -->\n"  # begins a cell of its own, which is folded


@cache
def chapters() -> dict[str, int]:
    """Return the executed pages in the order of the contents: their name, and their number, 0 for the first page."""
    contents = yaml.safe_load((BOOK.parent / "_toc.yml").read_text(encoding="utf-8"))
    files = [entry["file"] for part in contents["parts"] if part.get("numbered") for entry in part["chapters"]]
    return {Path(file).stem: number for number, file in enumerate([contents["root"], *files])}


@cache
def numbers() -> dict[str, str]:
    """Return the number that the book gives to each labeled equation and exercise."""
    found = {}
    for name, chapter in chapters().items():
        text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
        for pattern in (EQUATION, EXERCISE):
            labels = [match["label"] for match in pattern.finditer(text)]
            found |= {label: f"{chapter}.{place}" for place, label in enumerate(labels, 1)}
    return found


@cache
def sources() -> dict[str, tuple[str, str, str]]:
    """Return authors, year and address of everything that the book cites."""
    found = {}
    for key, entry in parse_file(str(BOOK / "references.bib")).entries.items():
        names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
        authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        doi, address = entry.fields.get("doi"), entry.fields.get("url", "")
        found[key] = authors, entry.fields["year"], f"https://doi.org/{doi}" if doi else address
    return found


def plain(text: str) -> str:
    """Return MyST as the Markdown that Jupyter knows."""
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)  # targets of links
    text = ADMONITION.sub(_quotation, text)
    text = EQUATION.sub(lambda match: rf"{match['body']} \tag{{{numbers()[match['label']]}}} $$", text)
    text = re.sub(r"\{eq\}`(eq-[\w-]+)`", lambda match: f"({numbers()[match[1]]})", text)
    text = re.sub(r"\{cite:([pt])\}`([^`]+)`", _citation, text)
    text = SOLUTION.sub(_folded, text)
    text = SOLUTION_START.sub(lambda match: f"{COLLAPSED}#### Solution {numbers()[match['label']]}", text)
    text = EXERCISE.sub(lambda match: f"### Exercise {numbers()[match['label']]}\n\n{match['body']}", text)
    text = re.sub(r"\]\((\w+)\.md(#[^)]*)?\)", _link, END.sub("", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def notebook_of(page: Path) -> NotebookNode:
    """Return a chapter as a notebook without outputs."""
    source, cells, figures = jupytext.read(page), [], 0
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cells += map(_markdown, _parts(plain(cell.source)))
            continue
        about, metadata = cell.metadata.get("mystnb", {}), {}
        if tags := cell.metadata.get("tags"):
            metadata["tags"] = tags
            if HIDDEN & set(tags):
                metadata["jupyter"] = {"source_hidden": True}
        cells.append(new_code_cell(cell.source, metadata=metadata))
        if "figure" in about:
            figures += 1
            number = f"{chapters()[page.stem]}.{figures}" if chapters()[page.stem] else str(figures)
            cells.append(new_markdown_cell(f"**Fig. {number}** {plain(about['figure']['caption'])}"))
    for place, cell in enumerate(cells):
        cell["id"] = f"{page.stem.replace('_', '-')}-{place}"
    notebook = new_notebook(cells=cells, metadata={"kernelspec": source.metadata["kernelspec"]})
    nbformat.validate(notebook)
    return notebook


def written(page: Path) -> str:
    """Return the file that belongs beside a chapter."""
    return nbformat.writes(notebook_of(page)) + "\n"


def _parts(text: str) -> Iterator[str]:
    """Cut where a heading begins, so that it can be folded with what follows."""
    for part in re.split(rf"(?=^{COLLAPSED})|(?=^##? )|(?=^### )", text, flags=re.MULTILINE):
        heading, _, rest = part.strip().partition("\n\n") if part.startswith(COLLAPSED) else (part.strip(), "", "")
        yield from (piece for piece in (heading, rest.strip()) if piece)


def _markdown(part: str) -> NotebookNode:
    if part.startswith(COLLAPSED):
        return new_markdown_cell(part.removeprefix(COLLAPSED), metadata={"jp-MarkdownHeadingCollapsed": True})
    return new_markdown_cell(part)


def _quotation(match: re.Match[str]) -> str:
    lines = [f"**{match['title']}**", "", *match["body"].strip().splitlines()]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _citation(match: re.Match[str]) -> str:
    found = [sources()[key.strip()] for key in match[2].split(",")]
    if match[1] == "t":
        return "; ".join(f"[{authors} ({year})]({address})" for authors, year, address in found)
    return "(" + "; ".join(f"[{authors}, {year}]({address})" for authors, year, address in found) + ")"


def _folded(match: re.Match[str]) -> str:
    title = f"Solution {numbers()[match['label']]}"
    return f"<details><summary>{title}</summary>\n\n{match['body'].strip()}\n\n</details>"


def _link(match: re.Match[str]) -> str:
    return f"]({match[1]}.ipynb{match[2] or ''})" if match[1] in chapters() else match[0]


def main() -> None:
    """Write all notebooks."""
    for name in chapters():
        page = BOOK / f"{name}.md"
        page.with_suffix(".ipynb").write_text(written(page), encoding="utf-8")
    print(f"{len(chapters())} notebooks in {BOOK.name}/.", file=sys.stderr)


if __name__ == "__main__":
    main()

"""The notebooks that readers open, download, or run in Colab and Binder.

The chapters are MyST, which plain Jupyter shows raw. A notebook for readers holds the same code cells with their
outputs, and prose in which admonitions, exercises, captions, citations and equations are plain Markdown, with the
numbers that the book gives them. The build writes them to `_build/notebooks`; `python _ext/book_notebooks.py` writes
them without outputs, for Binder.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jupytext
import nbformat
import yaml
from jupyter_cache import get_cache
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pybtex.database import parse_file

if TYPE_CHECKING:
    from sphinx.application import Sphinx

BOOK = Path(__file__).resolve().parents[1] / "book"
FOLDER = BOOK.parent / "_build" / "notebooks"
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
    """Return names and numbers of the executed pages, in the order of the contents; 0 where a page has no number."""
    contents = yaml.safe_load((BOOK.parent / "_toc.yml").read_text(encoding="utf-8"))
    parts = contents.get("parts", [{"chapters": contents.get("chapters", [])}])
    numbered = [entry["file"] for part in parts if part.get("numbered") for entry in part["chapters"]]
    files = [contents["root"], *(entry["file"] for part in parts for entry in part["chapters"])]
    return {
        Path(file).stem: numbered.index(file) + 1 if file in numbered else 0
        for file in files
        if "kernelspec:" in (BOOK.parent / file).read_text(encoding="utf-8")
    }


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


@cache
def figures_before(name: str) -> int:
    """Return how many figures the book has numbered before those of a page: pages without a number count together."""
    count = 0
    for page, number in chapters().items():
        if page == name or chapters()[name]:
            break
        cells = [] if number else jupytext.read(BOOK / f"{page}.md").cells
        count += sum("figure" in cell.metadata.get("mystnb", {}) for cell in cells)
    return count


def plain(text: str, site: str = "") -> str:
    """Return MyST as the Markdown that Jupyter knows; pages that are no notebooks are linked on the `site`, if any."""
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)  # targets of links
    text = ADMONITION.sub(_quotation, text)
    text = EQUATION.sub(lambda match: rf"{match['body']} \tag{{{numbers()[match['label']]}}} $$", text)
    text = re.sub(r"\{eq\}`(eq-[\w-]+)`", lambda match: f"({numbers()[match[1]]})", text)
    text = re.sub(r"\{cite:([pt])\}`([^`]+)`", _citation, text)
    text = SOLUTION.sub(_folded, text)
    text = SOLUTION_START.sub(lambda match: f"{COLLAPSED}#### Solution {numbers()[match['label']]}", text)
    text = EXERCISE.sub(lambda match: f"### Exercise {numbers()[match['label']]}\n\n{match['body']}", text)
    text = re.sub(r'<a href="\.\./([^"]*)">([^<]*)</a>', lambda m: f"[{m[2]}]({site}{m[1]})" if site else m[2], text)
    text = re.sub(r"\[([^\]]*)\]\((\w+)\.md(#[^)]*)?\)", lambda match: _link(match, site), END.sub("", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def notebook_of(page: Path, site: str = "", outputs: NotebookNode | None = None) -> NotebookNode:
    """Return a chapter as a notebook for readers.

    Args:
        page: The chapter.
        site: Address of the built book, ending with a slash; empty where unknown.
        outputs: The chapter as it was run, with the same code cells; None leaves the outputs out.
    """
    source, cells, figures = jupytext.read(page), [], figures_before(page.stem)
    executed = iter([cell for cell in outputs.cells if cell.cell_type == "code"] if outputs else [])
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cells += map(_markdown, _parts(plain(cell.source, site)))
            continue
        about, metadata = cell.metadata.get("mystnb", {}), {}
        if tags := cell.metadata.get("tags"):
            metadata["tags"] = tags
            if HIDDEN & set(tags):
                metadata["jupyter"] = {"source_hidden": True}
        cells.append(new_code_cell(cell.source, metadata=metadata))
        if outputs:
            run = next(executed)
            cells[-1] |= {"outputs": run.outputs, "execution_count": run.execution_count}
        if "figure" in about:
            figures += 1
            number = f"{chapters()[page.stem]}.{figures}" if chapters()[page.stem] else str(figures)
            cells.append(new_markdown_cell(f"**Fig. {number}** {plain(about['figure']['caption'], site)}"))
    for place, cell in enumerate(cells):
        cell["id"] = f"{page.stem.replace('_', '-')}-{place}"
    notebook = new_notebook(cells=cells, metadata={"kernelspec": source.metadata["kernelspec"]})
    nbformat.validate(notebook)
    return notebook


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


def _link(match: re.Match[str], site: str) -> str:
    text, name, place = match.groups(default="")
    if name in chapters():
        return f"[{text}]({name}.ipynb{place})"
    return f"[{text}]({site}book/{name}.html{place})" if site else text


def executed(app: Sphinx, pagename: str) -> NotebookNode | None:
    """Return a page as it was run, with its outputs; None if it has not been run.

    MyST-NB leaves the outputs out of the file that it writes where it takes them from the cache.
    """
    file = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    if "kernelspec" not in app.env.metadata[pagename] or not file.is_file():
        return None
    notebook = nbformat.read(file, as_version=4)
    if app.config.nb_execution_mode == "cache":
        with suppress(KeyError):
            folder = Path(app.config.nb_execution_cache_path) / Path(pagename).name / app.env.book_keys[pagename]
            _, notebook = get_cache(folder).merge_match_into_notebook(notebook)
    return notebook


def offer_notebook(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Write the notebook of a page to `_build/notebooks`, and let the download button of the page offer it."""
    outputs = executed(app, pagename) if doctree is not None else None
    if outputs is None:
        return
    page = Path(app.env.doc2path(pagename))
    written = Path(app.outdir).parent / "notebooks" / f"{page.stem}.ipynb"
    written.parent.mkdir(parents=True, exist_ok=True)
    address = app.book_address  # type: ignore[attr-defined]
    notebook = notebook_of(page, address.site, outputs)
    for cell in notebook.cells:  # Colab fetches the rest of the book from there
        cell.source = cell.source.replace('repository = ""  #', f'repository = "{address.name}"  #')
    nbformat.write(notebook, written)
    offered = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    offered.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(written, offered)
    context["ipynb_source"] = f"{pagename}.ipynb"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.setup_extension("book_address")
    app.connect("html-page-context", offer_notebook)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Write all notebooks, without outputs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in chapters():
        nbformat.write(notebook_of(BOOK / f"{name}.md"), FOLDER / f"{name}.ipynb")
    sys.stderr.write(f"{len(chapters())} notebooks in {FOLDER.relative_to(BOOK.parent)}.\n")


if __name__ == "__main__":
    main()

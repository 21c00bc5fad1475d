"""A chapter becomes a notebook for readers, in Markdown that plain Jupyter knows, with the outputs of a run."""

import re
import sys
from itertools import pairwise
from types import ModuleType

import book_notebooks
import jupytext
import nbformat
import pytest
from chapters import EXECUTED, ROOT
from IPython.core.interactiveshell import InteractiveShell

MYST = """(place)=
## A heading

:::{admonition} Question
:class: question
Why?

**You need** time.
:::

By {eq}`eq-library` and {cite:t}`neufeld2024`, or as others say {cite:p}`lopez2018,wolf2018`.
See [there](02_sketch.md#say-it-in-words) and the [glossary](glossary.md#bound).

$$ a = b. $$ (eq-library)
"""


def test_prose_becomes_plain_markdown():
    text = book_notebooks.plain(MYST, "https://lab.github.io/book/")
    assert text.startswith(
        "## A heading\n\n> **Question**\n>\n> Why?\n>\n> **You need** time.\n\nBy (1.1) and [Neufeld"
    )
    assert "et al. (2024)](https://" in text
    assert re.search(r"say \(\[Lopez et al\., 2018\]\(https://\S+\); \[Wolf et al\., 2018\]\(https://\S+\)\)\.", text)
    assert (
        "[there](02_sketch.ipynb#say-it-in-words) and the [glossary](https://lab.github.io/book/book/glossary.html#bound)"
        in text
    )
    assert text.endswith(r"$$ a = b. \tag{1.1} $$")
    assert "and the glossary." in book_notebooks.plain(MYST), "no link where nobody knows the address"


def test_exercises_have_their_number_and_solutions_are_folded():
    cells = book_notebooks.notebook_of(ROOT / "book" / "01_data.md").cells
    told = [cell.source for cell in cells if cell.source.startswith("### Exercise 1.")]
    assert [text.splitlines()[0] for text in told] == [f"### Exercise 1.{n}" for n in (1, 2, 3)]
    assert "<details><summary>Solution 1.1</summary>" in told[0]
    folded = [cell.source for cell in cells if cell.metadata.get("jp-MarkdownHeadingCollapsed")]
    assert folded == ["#### Solution 1.2", "#### Solution 1.3"]


def test_captions_stand_under_their_figures():
    cells = book_notebooks.notebook_of(ROOT / "book" / "01_data.md").cells
    below = [after.source for cell, after in pairwise(cells) if cell.source.startswith("fig = ")]
    assert [text[:12] for text in below] == [f"**Fig. 1.{n}**" for n in range(1, len(below) + 1)]


def test_outputs_of_a_run_stand_under_their_cells():
    page = ROOT / "book" / "06_figure.md"
    run = jupytext.read(page)
    for number, cell in enumerate(cell for cell in run.cells if cell.cell_type == "code"):
        cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text=cell.source)], number
    found = book_notebooks.notebook_of(page, outputs=run)
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(len(code)))
    assert all(cell.outputs[0].text == cell.source for cell in code)


def test_figures_of_pages_without_a_number_are_counted_together_as_in_the_book():
    cells = book_notebooks.notebook_of(ROOT / "book" / "grid.md").cells
    told = [cell.source[:10] for cell in cells if cell.source.startswith("**Fig.")]
    assert told[0] == "**Fig. 2**", "the first page has figure 1"
    assert (
        book_notebooks.plain('<a href="../book.pdf">book.pdf</a>', "https://a.b/") == "[book.pdf](https://a.b/book.pdf)"
    )
    assert book_notebooks.plain('<a href="../book.pdf">book.pdf</a>') == "book.pdf"


@pytest.mark.parametrize("place", ["here", "Colab"])
def test_the_rest_of_the_book_is_fetched_in_colab_alone(place, monkeypatch):
    shell, asked = InteractiveShell(), []
    monkeypatch.setattr(shell, "system", asked.append)
    monkeypatch.setattr(shell, "run_line_magic", lambda name, line, *_, **__: asked.append(f"{name} {line}"))
    if place == "Colab":
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    cells = nbformat.read(EXECUTED[0].with_suffix(".ipynb"), as_version=4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.metadata.tags == ["remove-cell"], "readers of the book do not see it"
    source = first.source.replace('repository = ""', 'repository = "owner/name"')
    assert shell.run_cell(source).success
    told = ["git clone --quiet --depth 1 https://github.com/owner/name /content/book"]
    told += ["pip install --quiet /content/book", "cd /content/book/book"]
    assert asked == (told if place == "Colab" else [])

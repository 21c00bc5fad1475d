"""Beside every chapter stands a notebook without outputs that says the same, in Markdown that plain Jupyter knows."""

import re
import sys
from itertools import pairwise
from types import ModuleType

import jupytext
import nbformat
import pytest
import yaml
from chapters import CHAPTERS, EXECUTED, ROOT, load_script
from IPython.core.interactiveshell import InteractiveShell

notebooks = load_script("scripts/notebooks.py")
REMEDY = "make pairs"


def test_each_notebook_belongs_to_a_chapter_that_is_executed():
    assert {path.stem for path in (ROOT / "book").glob("*.ipynb")} == {path.stem for path in EXECUTED}, f"run {REMEDY}"
    assert set(CHAPTERS) <= set(EXECUTED), "a chapter without a kernelspec in its header is never run"


@pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)
def test_the_notebook_says_what_the_chapter_says(page):
    found = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert found == notebooks.written(page), f"{page.name} and its notebook differ; run {REMEDY}"
    notebook = nbformat.reads(found, as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert cells == [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    assert notebook.metadata["kernelspec"]["name"] == "python3", "no other kernel exists in a new environment"
    assert "jupytext" not in notebook.metadata, "saving the notebook would write over the chapter"


@pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)
def test_plain_jupyter_shows_no_raw_markup(page):
    raw = r"\{[a-z:-]+\}`|^:::|^`{3,}\{|^\([\w-]+\)=|\(eq-[\w-]+\)|^:[a-z]+: |<!--|\\(?:E|KL|softmax|texttt)\b"
    for cell in nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.findall(raw, cell.source, re.MULTILINE)


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
    text = notebooks.plain(MYST)
    assert text.startswith(
        "## A heading\n\n> **Question**\n>\n> Why?\n>\n> **You need** time.\n\nBy (1.1) and [Neufeld"
    )
    assert "et al. (2024)](https://" in text
    assert re.search(r"say \(\[Lopez et al\., 2018\]\(https://\S+\); \[Wolf et al\., 2018\]\(https://\S+\)\)\.", text)
    assert "[there](02_sketch.ipynb#say-it-in-words) and the [glossary](glossary.md#bound)" in text
    assert text.endswith(r"$$ a = b. \tag{1.1} $$")


def test_exercises_have_their_number_and_solutions_are_folded():
    cells = nbformat.read(ROOT / "book" / "01_data.ipynb", as_version=4).cells
    told = [cell.source for cell in cells if cell.source.startswith("### Exercise 1.")]
    assert [text.splitlines()[0] for text in told] == [f"### Exercise 1.{n}" for n in (1, 2, 3)]
    assert "<details><summary>Solution 1.1</summary>" in told[0]
    folded = [cell.source for cell in cells if cell.metadata.get("jp-MarkdownHeadingCollapsed")]
    assert folded == ["#### Solution 1.2", "#### Solution 1.3"]


def test_captions_stand_under_their_figures():
    cells = nbformat.read(ROOT / "book" / "01_data.ipynb", as_version=4).cells
    below = [after.source for cell, after in pairwise(cells) if cell.source.startswith("fig = ")]
    assert [text[:12] for text in below] == [f"**Fig. 1.{n}**" for n in range(1, len(below) + 1)]


@pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)
def test_the_notebook_holds_no_outputs(page):
    for cell in nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


def in_colab_of(page):
    """Return the first cell of a notebook that runs anything, which is for Colab."""
    cells = nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells
    return next(cell for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)
def test_colab_is_told_the_repository_of_the_settings_and_readers_are_not(page):
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    repository = settings["sphinx"]["config"]["book_repository"]
    cell = in_colab_of(page)
    assert f'repository = "{repository}"  # written by `make address`' in cell.source
    assert cell.metadata.tags == ["remove-cell"]


@pytest.mark.parametrize("place", ["here", "Colab"])
def test_the_rest_of_the_book_is_fetched_in_colab_alone(place, monkeypatch):
    shell, asked = InteractiveShell(), []
    monkeypatch.setattr(shell, "system", asked.append)
    monkeypatch.setattr(shell, "run_line_magic", lambda name, line, *_, **__: asked.append(f"{name} {line}"))
    if place == "Colab":
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    source = in_colab_of(EXECUTED[0]).source.replace('repository = ""', 'repository = "owner/name"')
    assert shell.run_cell(source).success
    told = ["git clone --quiet --depth 1 https://github.com/owner/name /content/book"]
    told += ["pip install --quiet /content/book", "cd /content/book/book"]
    assert asked == (told if place == "Colab" else [])

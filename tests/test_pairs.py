"""Every chapter is a MyST .md beside an .ipynb without outputs that says the same."""

import sys
from types import ModuleType

import jupytext
import nbformat
import pytest
import yaml
from chapters import CHAPTERS, EXECUTED, ROOT
from IPython.core.interactiveshell import InteractiveShell
from jupytext.compare import NotebookDifference, compare_notebooks

REMEDY = "make pairs"


def test_each_notebook_belongs_to_a_chapter_that_is_executed():
    assert {path.stem for path in (ROOT / "book").glob("*.ipynb")} == {path.stem for path in EXECUTED}, f"run {REMEDY}"
    assert set(CHAPTERS) <= set(EXECUTED), "a chapter without a kernelspec in its header is never run"


@pytest.mark.parametrize("page", EXECUTED, ids=lambda path: path.stem)
def test_the_notebook_says_what_the_chapter_says(page):
    text, notebook = jupytext.read(page), nbformat.read(page.with_suffix(".ipynb"), as_version=4)
    try:
        compare_notebooks(notebook, text, fmt="md:myst")
    except NotebookDifference as difference:
        pytest.fail(f"{page.name} and its notebook differ; run {REMEDY}\n{difference}")
    assert text.metadata["kernelspec"] == notebook.metadata["kernelspec"]
    assert notebook.metadata["kernelspec"]["name"] == "python3", "no other kernel exists in a new environment"


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

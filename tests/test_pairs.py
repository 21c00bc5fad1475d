"""Every chapter is a MyST .md beside an .ipynb without outputs that says the same."""

import jupytext
import nbformat
import pytest
from chapters import CHAPTERS, EXECUTED, ROOT
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

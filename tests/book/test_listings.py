"""Listings of package code on a page: they can be found, and fit the column without scrolling sideways."""

import inspect
import re
import textwrap

import pytest
from chapters import COLUMNS, EXECUTED, code_cells


def shown():
    """Yield each chapter's `show_source(expression)`, with the chapter's imports."""
    for chapter in EXECUTED:
        source = "\n".join(cell.source for cell in code_cells(chapter))
        imports = "\n".join(re.findall(r"^(?:import|from) (?:[^\n(]+\([^)]*\)|.+)$", source, re.MULTILINE))
        for expression in re.findall(r"^show_source\((.+)\)$", source, re.MULTILINE):
            yield pytest.param(expression, imports, id=f"{chapter.stem}-{expression}")


def test_the_chapters_show_the_package():
    assert len(list(shown())) > 10


@pytest.mark.parametrize(("expression", "imports"), list(shown()))
def test_a_listing_fits_the_column(expression, imports):
    names = {}
    exec(imports, names)
    thing = eval(expression, names)
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    assert [line for line in source.splitlines() if len(line) > COLUMNS] == []

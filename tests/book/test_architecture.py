"""Imports point one way, README draws that way, and modules stay small enough to be read at a sitting."""

import ast
import re
import tomllib

import grimp
import pytest
from chapters import ROOT
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

PACKAGE = ROOT / "scanvi_tutorial"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
modules = pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def layers() -> list[set[str]]:
    """Return the layers of the first contract, highest first."""
    return [set(layer.replace("|", " ").split()) for layer in SETTINGS["contracts"][0]["layers"]]


def test_imports_keep_every_contract(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_readme_draws_the_contract():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = re.search(r"```\n([a-z_ \n]+\nconfig\n)```", readme)
    assert drawn
    assert [set(line.split()) for line in drawn[1].splitlines()] == layers()


def test_the_book_alone_imports_teaching():
    graph = grimp.build_graph("scanvi_tutorial", cache_dir=None)
    outside = graph.find_modules_that_directly_import("scanvi_tutorial.teaching")
    assert {name for name in outside if not name.startswith("scanvi_tutorial.teaching")} == set()


def test_config_alone_reads_the_environment():
    readers = [path for path in MODULES if re.search(r"\benviron\b|\bgetenv\b", path.read_text(encoding="utf-8"))]
    assert [path.name for path in readers] == ["config.py"]


@modules
def test_a_module_is_short_and_says_what_it_is_for(module):
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST
    assert ast.get_docstring(ast.parse(text)), "a module begins with one sentence of purpose"


@modules
def test_a_module_lists_its_public_names_first(module):
    body = ast.parse(module.read_text(encoding="utf-8")).body
    plain = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.If)]
    if module.name == "__main__.py" or not plain:
        return
    first = plain[0]
    assert isinstance(first, ast.Assign)
    assert ast.unparse(first.targets[0]) == "__all__"


@modules
def test_a_chapter_that_a_module_names_is_there(module):
    named = re.findall(r"book/\w+\.md", module.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []

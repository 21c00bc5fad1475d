"""What was fitted or executed is kept as long as the code behind it stays: as code, not as text."""

import ast
import shutil
from pathlib import Path

import pytest

from scanvi_tutorial.training.source import PACKAGE, code_digest, module_file, names_in

LOOP = "scanvi_tutorial.training.loop"


@pytest.fixture
def package(tmp_path):
    """Return a copy of the package, for changing."""
    return shutil.copytree(PACKAGE, tmp_path / "scanvi_tutorial", ignore=shutil.ignore_patterns("__pycache__"))


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


def test_a_copy_elsewhere_has_the_same_digest(package):
    assert code_digest(LOOP, package=package) == code_digest(LOOP)


@pytest.mark.parametrize("text", ["\n\n# a comment\n", '\n"""A comma, more."""\n'])
def test_comments_and_docstrings_do_not_count(package, text):
    before = code_digest(LOOP, package=package)
    for file in ("training/loop.py", "model/scanvi.py"):
        append(package / file, text)
        change(package / file, '"""', '"""Now, ')
    assert code_digest(LOOP, package=package) == before


@pytest.mark.parametrize("file", ["training/loop.py", "training/fast.py", "model/scanvi.py", "config.py"])
def test_a_fit_depends_on_what_the_loop_imports(package, file):
    before = code_digest(LOOP, package=package)
    append(package / file, "\nCHANGED = 1\n")
    assert code_digest(LOOP, package=package) != before


@pytest.mark.parametrize("folder", ["plotting", "report", "cli", "teaching", "annotation", "evaluation", "data"])
def test_no_fit_depends_on_what_is_done_with_it(package, folder):
    before = code_digest(LOOP, package=package)
    for file in (package / folder).glob("*.py"):
        append(file, "\nCHANGED = 1\n")
    append(package / "__init__.py", "\nCHANGED = 1\n")
    assert code_digest(LOOP, package=package) == before


@pytest.fixture
def small(tmp_path):
    """Return a package of three modules behind faces."""
    folder = tmp_path / "small"
    (folder / "part").mkdir(parents=True)
    (folder / "__init__.py").write_text('"""A face."""\nfrom small.part import one, other\n\n__all__ = []\n')
    (folder / "part/__init__.py").write_text("from small.part.first import one\nfrom .second import two as other\n")
    (folder / "part/first.py").write_text("def one():\n    from small.part import third\n\n    return third.THREE\n")
    (folder / "part/second.py").write_text('import small as s\nSTYLE = "look.css"\ntwo = s.one\n')
    (folder / "part/third.py").write_text("THREE = 3\n")
    (folder / "part/look.css").write_text("a {}\n")
    return folder


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("small.one", {"first.py", "third.py"}),
        ("small.part.one", {"first.py", "third.py"}),
        ("small.part.third", {"third.py"}),
        ("small.part.third.THREE", {"third.py"}),
        ("small.other", {"second.py", "first.py", "third.py", "look.css"}),
        ("small.part", {"__init__.py", "first.py", "second.py", "third.py", "look.css"}),
        ("small.unknown", {"first.py", "second.py", "third.py", "look.css"}),
    ],
)
def test_a_name_depends_on_its_module_and_what_that_imports(small, name, files):
    before, found = code_digest(name, package=small), set()
    for file in (small / "part").iterdir():
        text = file.read_text(encoding="utf-8")
        append(file, "b {}\n" if file.suffix == ".css" else "import os\n")
        if code_digest(name, package=small) != before:
            found.add(file.name)
        file.write_text(text, encoding="utf-8")
    assert found == files


def test_a_name_of_a_face_leads_to_the_module_that_defines_it(small):
    assert module_file("small.other", small) == small / "part/second.py"


def test_another_package_is_refused(small):
    with pytest.raises(ValueError, match=r"numpy\.linalg is not in the package small"):
        code_digest("numpy.linalg", package=small)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import small as s\ns.one(s.part.first.one)", {"small.one", "small.part.first.one"}),
        ("import small as s\nprint(s)", {"small"}),
        ("import small.part.first\nsmall.one", {"small.part.first", "small.one"}),
        ("from small import part\npart.third.THREE", {"small.part.third.THREE"}),
        ("from small.part import one as first\nfirst()", {"small.part.one"}),
        ("from small.part import *", {"small.part"}),
        ("from small import unused", {"small.unused"}),
        ("def f():\n    from small import part\n    return part.one()", {"small.part.one"}),
        ("from . import third", {"small.part.third"}),
        ("import numpy as small_numbers\nfrom smaller import one\nsmall_numbers.one", set()),
    ],
)
def test_names_that_code_takes_from_a_package(code, names):
    assert names_in(ast.parse(code), package="small", inside="small.part") == names

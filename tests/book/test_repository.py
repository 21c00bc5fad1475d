"""What stands around the package agrees with itself, and speaks of the project alone."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chapters import ROOT

from scanvi_tutorial.config import DATASETS

MADE = {".git", ".venv", "_build", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"}
TEXT = {
    ".bib",
    ".cff",
    ".css",
    ".ipynb",
    ".js",
    ".md",
    ".mplstyle",
    ".py",
    ".svg",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    "",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def texts(folder: Path = ROOT) -> Iterator[Path]:
    """Yield the text files of a checkout."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in MADE and not path.name.endswith(".egg-info"):
            yield from texts(path)
        elif path.is_file() and path.suffix in TEXT and path.name not in MADE:
            yield path


def name_of(requirement: str) -> str:
    """Return the normalized name at the start of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_no_file_names_this_machine():
    here = re.compile("|".join(re.escape(f"{path}/") for path in (ROOT, ROOT.parent, Path.home()) if path != Path("/")))
    assert [str(path.relative_to(ROOT)) for path in texts() if here.search(path.read_text(encoding="utf-8"))] == []


def test_no_file_names_a_package_registry():
    hosts = [f"{name}.org" for name in ("pypi", "files.pythonhosted", "download.pytorch", "anaconda", "registry.npmjs")]
    assert [str(path) for path in texts() if any(host in path.read_text(encoding="utf-8") for host in hosts)] == []


def test_no_file_holds_unfinished_work():
    marks = re.compile(r"#.*\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    modules = (path for path in texts() if path.suffix == ".py")
    assert [str(path) for path in modules if marks.search(path.read_text(encoding="utf-8"))] == []


def test_every_file_ends_with_one_newline_and_has_no_trailing_blanks():
    for path in texts():
        text = path.read_text(encoding="utf-8")
        assert not text or path.suffix == ".ipynb" or (text.endswith("\n") and not text.endswith("\n\n")), path
        assert "\r" not in text, path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE) or path.suffix in {".ipynb", ".svg"}, path


def test_every_requirement_is_pinned_and_the_first_line_says_how():
    assert "make pins" in PINS[0]
    assert PINS[-1] == "-e ."
    assert [pin for pin in PINS[1:-1] if not re.fullmatch(r"[\w.-]+==[\w.]+(  # .+)?", pin)] == []
    assert len({name_of(pin) for pin in PINS[1:-1]}) == len(PINS) - 2


def test_the_pins_hold_all_that_the_package_and_its_extras_ask_for():
    asked = [*PROJECT["dependencies"], *(item for extra in PROJECT["optional-dependencies"].values() for item in extra)]
    missing = {name_of(item) for item in asked} - {name_of(pin) for pin in PINS[1:-1]}
    assert missing == {"scanvi-tutorial"}, "run make pins"


def test_three_pins_are_held_for_a_reason():
    reasons = {pin.split("  # ")[0]: pin.split("  # ")[1] for pin in PINS[1:-1] if "  # " in pin}
    assert set(reasons) == {"jupyter-book==1.0.4.post1", "sphinx-book-theme==1.1.4", "torch==2.13.0"}


def test_each_dependency_has_a_lower_bound():
    assert [item for item in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+>=[\d.]+", item)] == []


def test_the_package_imports_only_what_it_declares():
    """What teaching needs comes with the extra `book`."""
    called = {"pyro": "pyro-ppl", "sklearn": "scikit-learn", "daft": "daft-pgm", "umap": "umap-learn"}
    declared = {name_of(item) for item in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["book"])}
    imported = set()
    for path in (ROOT / "scanvi_tutorial").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"scanvi_tutorial"}
    assert {name_of(called.get(name, name)) for name in foreign} <= declared


def test_readme_shows_the_two_commands_first():
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert [line.split("#")[0].strip() for line in block[1].splitlines()] == ["make book", "make test"]


def test_readme_links_to_files_that_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_readme_names_every_data_set():
    assert set(re.findall(r"^\| `([a-z][\w-]+)`", README, re.MULTILINE)) == set(DATASETS)


def test_the_version_is_the_same_wherever_it_stands():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "target", ["book", "test", "slow", "browser", "links", "lint", "pairs", "pins", "peers", "grid", "clean"]
)
def test_make_help_lists_what_there_is(target):
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.search(rf"^  make {target} +\w", listed, re.MULTILINE)


def dry(*arguments: str, **environ: str) -> str:
    """Return what make would run, in a clean environment."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env={**path, **environ}).stdout


def shown(variable: str, *arguments: str, **environ: str) -> str:
    """Return the value that recipes of the Makefile see for a variable."""
    show = f'show:\n\t@echo "$${variable}"\n'
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["make", "-s", "-f", "Makefile", "-f", "-", *arguments, "show"]
    result = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, input=show, env={**path, **environ}
    )
    return result.stdout.strip()


def test_a_relative_data_folder_is_found_from_the_chapters():
    assert shown("SCANVI_DATA_DIR", SCANVI_DATA_DIR="book/../data") == str(ROOT / "data")
    assert shown("SCANVI_DATA_DIR", "SCANVI_DATA_DIR=data") == str(ROOT / "data")
    assert shown("SCANVI_DATA_DIR", SCANVI_DATA_DIR="/some/where") == "/some/where"


def test_one_thread_a_process_unless_told_otherwise():
    assert shown("OMP_NUM_THREADS") == "1"
    assert shown("OMP_NUM_THREADS", OMP_NUM_THREADS="2") == "2"


def test_make_without_a_fitting_python_says_what_to_do():
    command = ["make", "--always-make", ".venv/.made-from-requirements", "PYTHON="]
    failed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert failed.returncode
    assert "No Python >= 3.11 was found" in failed.stdout
    assert "PYTHON=/path/to/python" in failed.stdout


def test_the_book_runs_in_full_unless_told_otherwise():
    assert 'SCANVI_SMOKE="${SCANVI_SMOKE:-0}"' in dry("book")

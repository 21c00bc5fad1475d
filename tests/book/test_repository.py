"""What stands around the package fits the package: dependencies, pins, and the settings that make hands on."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

from chapters import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    """Return the normalized name at the start of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_the_pins_hold_all_that_the_package_and_its_extras_ask_for():
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()[1:-1]
    asked = [*PROJECT["dependencies"], *(item for extra in PROJECT["optional-dependencies"].values() for item in extra)]
    assert {name_of(item) for item in asked} - {name_of(pin) for pin in pins} == {"scanvi-tutorial"}, "run make pins"


def test_the_version_is_the_same_wherever_it_stands():
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert cited.strip("\"'") == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_imports_only_what_it_declares():
    """What teaching needs comes with the extra `book`, and what several processes need with `cluster`."""
    called = {"pyro": "pyro-ppl", "sklearn": "scikit-learn", "daft": "daft-pgm", "umap": "umap-learn"}
    extras = (PROJECT["optional-dependencies"][name] for name in ("book", "cluster"))
    declared = {name_of(item) for item in (*PROJECT["dependencies"], *chain(*extras))}
    imported = set()
    for path in (ROOT / "scanvi_tutorial").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"scanvi_tutorial"}
    assert {name_of(called.get(name, name)) for name in foreign} <= declared


def test_readme_links_to_files_that_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link]
    assert [link for link in links if not (ROOT / link).is_file()] == []


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


def test_make_without_a_fitting_python_says_what_to_do():
    command = ["make", "--always-make", ".venv/.made-from-requirements", "PYTHON="]
    failed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert failed.returncode
    assert "No Python >= 3.11 was found" in failed.stdout
    assert "PYTHON=/path/to/python" in failed.stdout

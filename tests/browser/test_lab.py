"""A pair opened in a real JupyterLab: rendered, run, edited and saved, without losing anything."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import jupytext
import nbformat
import pytest
from chapters import ROOT

pytestmark = pytest.mark.xdist_group("lab")
PAGE = """---
jupytext:
  formats: ipynb,md:myst
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

(page)=
# A page

:::{admonition} Question
:class: question
Is anything *lost*?
:::

$$ a = b. $$ (eq-first)

By {eq}`eq-first`, nothing is.

```{code-cell} ipython3
:tags: [hide-input]

6 * 7
```

```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: 'A caption with a colon: it rises.'
  image:
    alt: A line.
tags: [remove-input]
---
print("drawn")
```

```{exercise}
:label: ex-page

What is six times seven?
```

```{solution} ex-page
:class: dropdown

The code cell computes it.
```
"""
# Whether the notebook shows these words, and no markup of MyST.
RENDERED = """(words) => {
  const text = document.querySelector(".jp-Notebook").innerText;
  return words.every((word) => text.includes(word)) && !/:::|\\{exercise\\}|\\{eq\\}/.test(text);
}"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=reader", "-c", "user.email=reader@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Return a small repository with one pair, and with the settings of this one."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".gitignore").write_text(".ipynb_checkpoints/\n", encoding="utf-8")
    (folder / "book").mkdir()
    (folder / "book" / "01_page.md").write_text(PAGE, encoding="utf-8")
    command = [Path(sys.executable).with_name("jupytext"), "--quiet", "--to", "ipynb", "book/01_page.md"]
    subprocess.run(command, cwd=folder, check=True)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "A pair")
    return folder


@pytest.fixture(scope="module")
def notebook(checkout, browser, tmp_path_factory):
    """Open the notebook of the pair in JupyterLab."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("log") / "lab.log"
    command = [Path(sys.executable).with_name("jupyter"), "lab", f"--config={ROOT / 'scripts' / 'lab_config.py'}"]
    command += ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", "--port-retries=0"]
    with log.open("w") as output, subprocess.Popen(command, cwd=checkout, stdout=output, stderr=output) as server:
        try:
            for _ in range(120):
                try:
                    urlopen(f"{address}/api", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")
            page = browser.new_page(viewport={"width": 1366, "height": 1200})
            page.set_default_timeout(90_000)
            page.goto(f"{address}/lab/tree/book/01_page.ipynb")
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            yield page
            page.close()
        finally:
            server.terminate()


def saved(page, checkout: Path) -> str:
    """Save the notebook, and return what git finds changed."""
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_function("!document.querySelector('.lm-TabBar-tab.jp-mod-dirty')")
    page.wait_for_timeout(1_000)
    return git(checkout, "status", "--porcelain").strip()


def test_admonitions_equations_and_exercises_are_rendered(notebook):
    notebook.wait_for_function(RENDERED, arg=["Question", "(1)", "Exercise 1", "Solution"])  # else a timeout


def test_a_notebook_that_was_run_and_saved_changes_no_file(notebook, checkout):
    notebook.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")  # the kernel has started
    notebook.click("text=Run >> nth=0")
    notebook.click("text=Run All Cells >> nth=0")
    notebook.wait_for_selector(".jp-OutputArea-output >> text=42")
    notebook.wait_for_selector(".jp-OutputArea-output >> text=drawn")
    assert saved(notebook, checkout) == ""


def test_an_edited_cell_and_an_edited_sentence_arrive_in_the_chapter(notebook, checkout):
    notebook.click(".jp-CodeCell .cm-content >> nth=0")
    notebook.keyboard.press("Control+End")
    notebook.keyboard.type(" + 1")
    notebook.dblclick(".jp-MarkdownCell p:has-text('nothing is.')")
    notebook.click(".jp-MarkdownCell .cm-content >> nth=0")
    notebook.keyboard.press("Control+End")
    notebook.keyboard.type("\nOne sentence more.")
    assert set(saved(notebook, checkout).split()) == {"M", "book/01_page.ipynb", "book/01_page.md"}
    text = (checkout / "book" / "01_page.md").read_text(encoding="utf-8")
    edited = PAGE.replace("6 * 7\n", "6 * 7 + 1\n").replace("nothing is.", "nothing is.\nOne sentence more.")
    assert text == edited
    pair = nbformat.read(checkout / "book" / "01_page.ipynb", as_version=4)
    assert [cell.source for cell in pair.cells] == [cell.source for cell in jupytext.reads(text, "md:myst").cells]
    assert not any(cell.get("outputs") for cell in pair.cells)

"""Two small books, one with an address and one without: buttons, sitemap, social cards, the page for lost readers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup
from chapters import ROOT

pytestmark = pytest.mark.xdist_group("address")  # one worker builds both
EMPTY = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
PAGE = """---
jupytext:
  formats: ipynb,md:myst
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# A page

Its text.

```{code-cell} ipython3
6 * 7
```
"""


def built(folder: Path, **settings: str) -> Path:
    """Build a book of two pages with the settings of this one and return its site."""
    for name in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)  # outputs are kept by it
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "book").mkdir()
    for name in ("index", "01_first"):
        (folder / "book" / f"{name}.md").write_text(PAGE, encoding="utf-8")
        (folder / "book" / f"{name}.ipynb").write_text(EMPTY, encoding="utf-8")
    (folder / "book" / "references.bib").touch()
    toc = {"format": "jb-book", "root": "book/index.md", "chapters": [{"file": "book/01_first.md"}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "READTHEDOCS"))}
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder, "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(command, env=clean | settings, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("known"), GITHUB_REPOSITORY="lab/book")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("unknown"))


def links(page: Path) -> set[str]:
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    return {tag["href"] for tag in soup.select(".article-header-buttons a[href]")}


def test_buttons_lead_to_the_repository_the_notebook_and_the_source(known):
    assert links(known / "book" / "01_first.html") >= {
        "https://github.com/lab/book",
        "https://github.com/lab/book/edit/main/book/01_first.md",
        "https://github.com/lab/book/issues/new?title=Issue%20on%20page%20%2Fbook/01_first.html&body=Your%20issue%20content%20here.",
        "https://mybinder.org/v2/gh/lab/book/main?urlpath=lab/tree/_build/notebooks/01_first.ipynb",
        "https://colab.research.google.com/github/lab/book/blob/notebooks/01_first.ipynb",
        "../_sources/book/01_first.md",
        "../_sources/book/01_first.ipynb",
    }


def test_without_an_address_no_button_leaves_the_site_and_downloads_stay(unknown):
    found = links(unknown / "book" / "01_first.html")
    assert found == {"../_sources/book/01_first.md", "../_sources/book/01_first.ipynb"}
    for link in found:
        assert (unknown / "book" / link).is_file()


def test_the_notebook_that_is_downloaded_is_the_one_for_readers(unknown):
    offered = unknown / "_sources" / "book" / "01_first.ipynb"
    assert offered.read_bytes() == (unknown.parent / "notebooks" / "01_first.ipynb").read_bytes()


def test_without_an_address_nothing_claims_one(unknown):
    assert not (unknown / "sitemap.xml").exists()
    html = (unknown / "book" / "01_first.html").read_text(encoding="utf-8")
    assert "canonical" not in html
    assert "og:url" not in html


def test_the_sitemap_lists_the_pages_of_the_book_alone(known):
    places = [place.text for place in ElementTree.parse(known / "sitemap.xml").iter() if place.tag.endswith("loc")]
    assert set(places) == {f"https://lab.github.io/book/book/{name}.html" for name in ("index", "01_first")}


def test_a_page_tells_social_networks_what_it_is(known):
    soup = BeautifulSoup((known / "book" / "01_first.html").read_text(encoding="utf-8"), "html.parser")
    said = {tag["property"]: tag["content"] for tag in soup.select("meta[property^='og:']")}
    assert said["og:title"].endswith("A page")
    assert said["og:url"] == "https://lab.github.io/book/book/01_first.html"
    card = said["og:image"].removeprefix("https://lab.github.io/book/")
    assert (known / card).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("site", "root"), [("known", "/book/"), ("unknown", "/")])
def test_the_page_for_lost_readers_works_from_any_path(site, root, request):
    folder = request.getfixturevalue(site)
    soup = BeautifulSoup((folder / "404.html").read_text(encoding="utf-8"), "html.parser")
    local = [
        tag.get("href") or tag["src"]
        for tag in soup.select("a[href], link[href], script[src], img[src]")
        if not re.match(r"https?:|#", tag.get("href") or tag.get("src"))
    ]
    assert [place for place in local if not place.startswith(root)] == []
    missing = [place for place in local if not (folder / re.sub(r"[?#].*", "", place).removeprefix(root)).exists()]
    assert missing == []


def test_pages_load_neither_the_script_of_icons_nor_another_host(known):
    html = (known / "book" / "01_first.html").read_text(encoding="utf-8")
    assert "fontawesome/6.5.2/css" in html
    assert not re.search(r"<script[^>]*(fontawesome|https?:)", html)

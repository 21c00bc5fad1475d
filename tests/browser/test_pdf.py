"""A book of two pages as PDF: outline, links, unfolded code and solutions; what is missing in it is told."""

import shutil
import subprocess
import sys

import pytest
from serving import chromium

pytest.importorskip("playwright.sync_api")
PdfReader = pytest.importorskip("pypdf").PdfReader

import pdf  # noqa: E402  # needs both

pytestmark = pytest.mark.xdist_group("address")
HEAD = "<!doctype html><html><head><title>T</title></head><body><article class='bd-article'>"
FIRST = """<section id="first"><h1><span class="section-number">1. </span>First</h1>
<p>See <a href="02_second.html#place">there</a>, <a href="#first">here</a> and <a href="https://example.org">else</a>.</p>
<details><summary>Show</summary><pre>hidden code</pre></details>
<figure><figcaption><span class="caption-number">Fig. 1.1 </span>A caption.</figcaption></figure></section>"""
SECOND = f"""<section id="second"><h1>Second</h1><h2 id="place">A place</h2><span class="eqno">(2.1)</span>
<div class="admonition solution dropdown"><p class="admonition-title">Solution</p><p>The answer.</p></div>
<pre>{"long_name_" * 40}</pre></section>"""
TOC = "format: jb-book\nroot: book/index.md\nparts:\n- caption: A part\n  chapters:\n  - file: book/02_second.md\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "book").mkdir()
    for name, text in (("index", FIRST), ("02_second", SECOND)):
        (folder / "book" / f"{name}.html").write_text(f"{HEAD}{text}</article></body></html>", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def written(site, tmp_path_factory):
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    root = tmp_path_factory.mktemp("root")
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    for name in ("_config.yml", "pyproject.toml"):
        (root / name).write_text((pdf.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (root / "scripts").mkdir()
    for name in ("serving.py", "pdf.py"):
        script = shutil.copy(pdf.ROOT / "scripts" / name, root / "scripts")
    done = subprocess.run([sys.executable, script, site], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "ROOT", root)
        html = pdf.whole(site, {})
    return PdfReader(site / pdf.FILE), html


def test_pages_headings_and_parts_are_the_outline(written):
    assert list(pdf.numbers_of(written[0].stream)) == ["Contents", "1.First", "Apart", "Second", "Aplace"]


def test_folded_code_solutions_and_long_lines_are_printed(written):
    text = pdf.squeezed("".join(page.extract_text() for page in written[0].pages))
    for words in ("hiddencode", "Theanswer.", "long_name_" * 40, "Fig.1.1", "(2.1)"):
        assert words in text


def test_links_between_pages_lead_to_places_in_the_file(written):
    _, html = written
    assert 'href="#book-02_second--place"' in html
    assert 'href="#book-index--first"' in html
    assert 'href="https://example.org"' in html
    assert {"book-02_second--place", "book-index--first"} <= {
        name.lstrip("/") for name in written[0].named_destinations
    }


def test_what_the_file_lacks_is_told(written, site):
    more = written[1].replace("<h3", "<h3>Another heading</h3><h3").replace("Fig. 1.1", "Fig. 1.2")
    found = " ".join(pdf.problems_of(site / pdf.FILE, more))
    assert "Anotherheading" in found
    assert "Fig. 1.2" in found


def test_without_a_built_book_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="make book"):
        pdf.main(tmp_path)

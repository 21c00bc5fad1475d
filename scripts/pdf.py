"""Write the built book as one PDF, `book.pdf` in the folder of the site: `make pdf`, after `make book`.

All pages are put into one HTML document, which Chromium prints: headings become the outline, links between pages become
links in the file, and the file is tagged for screen readers. It is printed twice, because the table of contents needs
the page numbers. At the end the file is compared with the pages: headings, captions, numbers of equations, pictures,
links, fonts and tags. Exit code 1 if anything is missing.
"""

from __future__ import annotations

import re
import sys
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader
from serving import FLAGS, chromium, served

ROOT = Path(__file__).resolve().parents[1]
WHOLE = "whole.html"  # the document that is printed; it stands in the site while this runs
FILE = "book.pdf"
WIDTH = 658  # CSS pixels between the margins of an A4 page
STYLE = """
@page { size: A4; margin: 20mm 18mm; @bottom-center { content: counter(page); font: 9pt sans-serif; color: #555; } }
@page :first { @bottom-center { content: none; } }
html { font-size: 13.5px; scroll-padding: 0 !important; }
body { margin: 0; background: #fff; color: #000; }
article { line-height: 1.5; padding: 0 !important; }
.first { height: 240mm; display: flex; flex-direction: column; justify-content: center; }
.first p { margin: 0.4rem 0; }
.first .name { font-size: 2.6rem; font-weight: 600; line-height: 1.2; }
h1, .toc, .chapter { break-before: page; }
h1 { font-size: 2.2rem; margin-top: 80mm; }
h2 { font-size: 1.9rem; margin: 0 0 1.2rem; }
h3 { font-size: 1.35rem; margin: 1.8rem 0 0.6rem; }
h4 { font-size: 1.1rem; margin: 1.2rem 0 0.4rem; }
h1, h2, h3, h4, h5 { font-weight: 600; line-height: 1.25; break-after: avoid; }
.toc li { display: flex; list-style: none; }
.toc li > a { flex: 1; color: inherit; text-decoration: none; }
.toc .part { font-weight: 600; margin-top: 0.8rem; }
pre, code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
.highlight pre { font-size: 0.82em; line-height: 1.4; }
div.math, .output, .pst-scrollable-table-container { overflow: visible !important; }
figure, img, .admonition-title, tr, mjx-container { break-inside: avoid; }
.admonition-title { break-after: avoid; }
p { orphans: 3; widows: 3; }
div.cell, .admonition { break-inside: auto !important; }
img { max-width: 100% !important; max-height: 225mm; }
.copybtn, .toggle-button { display: none !important; }
"""


def pages(toc: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the parts of the book: a title, empty for the first, and the pages in it without their suffixes."""
    parts = [("", [toc["root"]])]
    parts += [(part["caption"], [entry["file"] for entry in part["chapters"]]) for part in toc["parts"]]
    return [(title, [re.sub(r"\.(md|ipynb|rst)$", "", file) for file in files]) for title, files in parts]


def place_of(page: str, fragment: str = "") -> str:
    """Return the name that a place of a page has in the whole document."""
    return page.replace("/", "-") + (f"--{fragment}" if fragment else "")


def article_of(page: str, html: str, book: set[str]) -> Tag:
    """Return the text of a page with names, links and pictures as they are in the whole document."""
    article = BeautifulSoup(html, "html.parser").select_one("article.bd-article")
    assert article is not None, page
    for tag in article.select("script, style, a.headerlink, .cell-probe input, .prev-next-area"):
        tag.decompose()
    for tag in article.select("details"):  # unfolded
        tag.summary.decompose()
        tag.name = "div"
    for tag in article.select(".dropdown, .toggle"):
        tag["class"] = [name for name in tag["class"] if name not in {"dropdown", "toggle"}]
    for level in (5, 4, 3, 2, 1):  # the title of a part is above them
        for tag in article.select(f"h{level}"):
            tag.name = f"h{level + 1}"
    for tag in article.select("[id]"):
        tag["id"] = place_of(page, tag["id"])
    for tag in article.select("a[href]"):
        if href := link_of(page, tag["href"], book):
            tag["href"] = href
        else:
            tag.unwrap()
    for tag in article.select("img[src]"):
        tag["src"] = normpath(join(dirname(page), tag["src"]))
        tag["loading"] = "eager"
    article["id"], article["class"] = place_of(page), [*article["class"], "chapter"]
    return article


def link_of(page: str, href: str, book: set[str]) -> str:
    """Return where a link of a page leads in the whole document; empty where it leads to another file of the site."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return href
    target = normpath(join(dirname(page), parts.path)).removesuffix(".html") if parts.path else page
    return f"#{place_of(target, parts.fragment)}" if target in book else ""


def whole(site: Path, numbers: dict[str, int]) -> str:
    """Return the document, with a table of contents that has the page number of each title where it is known."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    parts = pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    book = {page for _, names in parts for page in names}
    html = {page: (site / f"{page}.html").read_text(encoding="utf-8") for page in sorted(book)}
    heads = [BeautifulSoup(text, "html.parser").head for text in html.values()]
    needed = {}  # style sheets, and what typesets formulas: in the order of the pages
    for page, head in zip(html, heads, strict=True):
        for tag in head.select("link[rel=stylesheet], script[src*=mathjax], script:-soup-contains('window.MathJax')"):
            for name in ("href", "src"):
                if tag.get(name):
                    tag[name] = normpath(join(dirname(page), tag[name]))
            needed[str(tag)] = None
    body, contents = [], []
    for title, names in parts:
        if title:
            body.append(f'<h1 id="{place_of(title)}">{title}</h1>')
            contents.append(entry(title, place_of(title), numbers, "part"))
        for page in names:
            article = article_of(page, html[page], book)
            heading = article.select_one("h2")
            contents.append(entry(heading.get_text(), place_of(page), numbers))
            body.append(str(article))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    date = datetime.now(UTC)
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{config['title']}</title>{''.join(needed)}<style>{STYLE}</style></head><body>"
        f'<section class="first"><p class="name">{config["title"]}</p><p>{config["author"]}</p>'
        f"<p>Version {version}, {date.day} {date:%B %Y}</p>"
        "<p>Text under CC BY 4.0, code under BSD-3-Clause.</p></section>"
        f'<nav class="toc"><h2>Contents</h2><ul>{"".join(contents)}</ul></nav>{"".join(body)}</body></html>'
    )


def entry(title: str, place: str, numbers: dict[str, int], kind: str = "page") -> str:
    """Return a line of the table of contents."""
    number = numbers.get(squeezed(title), "")
    return f'<li class="{kind}"><a href="#{place}">{escape(title)}</a> <span>{number}</span></li>'


def squeezed(text: str) -> str:
    """Return a text without spaces and ligatures, as it can be found in a PDF."""
    return re.sub(r"[\s\u00ad\u200b]+", "", unicodedata.normalize("NFKC", text))


FIT = """() => {
  const wide = [];
  for (const tag of document.querySelectorAll("table, mjx-container[display=true], .cell_output svg")) {
    const room = tag.parentElement.getBoundingClientRect().width, width = tag.scrollWidth || tag.clientWidth;
    if (width > room + 1) tag.style.zoom = Math.max(0.45, room / width * 0.98);
  }
  for (const tag of document.querySelectorAll("article pre, article table, article img, article mjx-container"))
    if (tag.getBoundingClientRect().right > document.body.clientWidth + 2)
      wide.push(tag.closest("article").id + ": " + tag.tagName + " " + tag.textContent.trim().slice(0, 60));
  return wide;
}"""


def printed(page: Page, address: str, file: Path) -> list[str]:
    """Print the document and return what does not fit on a page."""
    page.goto(f"{address}/{WHOLE}", wait_until="networkidle", timeout=300_000)
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise : null")
    page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
    wide = page.evaluate(FIT)
    page.pdf(path=file, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
    return [f"wider than the page: {text}" for text in wide]


def numbers_of(file: Path) -> dict[str, int]:
    """Return the page on which each title of the outline stands."""
    found: dict[str, int] = {}
    for title, number in titles_of(PdfReader(file)):
        found.setdefault(title, number)
    return found


def titles_of(reader: PdfReader) -> Iterator[tuple[str, int]]:
    """Yield the titles of the outline and their pages."""
    left = list(reader.outline)
    while left:
        item = left.pop(0)
        if isinstance(item, list):
            left = item + left
        else:
            yield squeezed(item.title), reader.get_destination_page_number(item) + 1


def problems_of(file: Path, html: str) -> Iterator[str]:
    """Yield what the document has and the file has not: headings, captions, numbers, links, fonts, tags."""
    reader, soup = PdfReader(file), BeautifulSoup(html, "html.parser")
    text = squeezed("".join(page.extract_text() for page in reader.pages))
    outline = Counter(title for title, _ in titles_of(reader))
    headings = Counter(
        squeezed(tag.get_text()) for tag in soup.select("article :is(h2, h3, h4)") if not tag.select(".math")
    )
    for heading in headings - outline:
        yield f"the outline lacks {heading!r}"
    for tag in soup.select("figcaption p:not(:has(.math)), .caption-number, .eqno, .admonition-title"):
        if not tag.select(".math") and squeezed(tag.get_text()) not in text:
            yield f"the text lacks {tag.get_text()!r}"
    images = len({tag["src"] for tag in soup.select("article img[src]:not([src$='.svg'])")})
    stored = {name for page in reader.pages for name in pictures(page)}
    if len(stored) < images:
        yield f"{images} pictures are in the pages, and {len(stored)} in the file"
    named = {name.lstrip("/") for name in reader.named_destinations}
    wanted = {tag["href"][1:] for tag in soup.select("article a[href^='#']")}
    if lost := sorted(wanted - named):
        yield f"links lead nowhere: {', '.join(lost[:5])}"
    for page in reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            if not embedded(font.get_object()):
                yield f"a font is not embedded: {font.get_object()['/BaseFont']}"
    catalog = reader.trailer["/Root"]
    if not catalog.get("/MarkInfo", {}).get("/Marked") or "/StructTreeRoot" not in catalog:
        yield "the file is not tagged"


def pictures(page: Any) -> Iterator[int]:
    """Yield the numbers of the pictures of a page, also of those inside drawings."""
    for item in page.get("/Resources", {}).get("/XObject", {}).values():
        stored = item.get_object()
        if stored["/Subtype"] == "/Image":
            yield stored.indirect_reference.idnum
        else:
            yield from pictures(stored)


def embedded(font: Any) -> bool:
    """Return whether the file carries the outlines of a font."""
    if "/DescendantFonts" in font:
        font = font["/DescendantFonts"][0].get_object()
    descriptor = font.get("/FontDescriptor", {})
    return font["/Subtype"] == "/Type3" or any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3"))


def main(site: Path) -> int:
    """Write the file beside the pages and print what is wrong with it, or how many pages it has."""
    if not (site / "book" / "index.html").is_file():
        sys.exit(f"{site} holds no book; run `make book` first")
    if chromium() is None:
        sys.exit(
            "Chromium was not found: install it (on Debian and Ubuntu `sudo apt install chromium`), or set CHROMIUM"
        )
    document, file = site / WHOLE, site / FILE
    beside = file.with_suffix(".part")
    try:
        with served(site) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
            page.emulate_media(media="print", color_scheme="light")
            document.write_text(whole(site, {}), encoding="utf-8")
            printed(page, address, beside)
            html = whole(site, numbers_of(beside))
            document.write_text(html, encoding="utf-8")
            problems = printed(page, address, beside)
            browser.close()
        problems += problems_of(beside, html)
        beside.replace(file)
    finally:
        document.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    for problem in dict.fromkeys(problems):
        print("PROBLEM", problem)
    size = file.stat().st_size / 2**20
    print(f"{file} has {len(PdfReader(file).pages)} pages ({size:.0f} MiB).")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "html")))

"""Read the built book as a strict reader would: `python scripts/check_book.py _build/html`. Exit code 1 on any problem.

Every page of _toc.yml is there and has text; every picture says what it shows; no output is longer than LINES lines,
warns or shows a path of this machine; no page asks another host for anything.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]
LINES = 20  # of output that a reader takes in at a glance
LEAST_TEXT = 200  # characters of an article that says something


def pages(toc: dict) -> list[str]:
    """Return the pages of a table of contents, without their suffixes, in reading order."""
    files = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return [re.sub(r"\.(md|ipynb|rst)$", "", file) for file in files]


def problems_of(page: str, html: str) -> list[str]:
    """Return what is wrong with the HTML of a page, in words."""
    soup = BeautifulSoup(html, "html.parser")
    article = soup.find("article")
    if not isinstance(article, Tag) or len(article.get_text(strip=True)) < LEAST_TEXT:
        return [f"{page}: the page is empty"]
    found = []
    for image in article.find_all("img"):
        alt = str(image.get("alt") or "").strip()
        if not alt or "_images/" in alt or re.search(r"[0-9a-f]{32}", alt):
            found.append(f"{page}: a picture without alternative text ({image.get('src')})")
    for output in article.select(".cell_output .output"):
        text, kind = output.get_text(), set(output.get("class") or [])
        start = " ".join(text.split())[:60]
        if kind & {"stream", "text_plain"} and text.strip("\n").count("\n") >= LINES:
            found.append(f"{page}: an output of more than {LINES} lines ({start} …)")
        if kind & {"traceback", "stderr"}:
            found.append(f"{page}: a traceback or text on stderr; expect_error shows an error in one line ({start} …)")
        if re.search(r"\b\w*Warning\b", text) and not output.select("[class*=highlight-python]"):
            found.append(f"{page}: a warning in an output ({start} …)")
        if re.search(rf"{re.escape(str(ROOT))}|/(home|Users|root|tmp)/", text):
            found.append(f"{page}: an output shows a path of this machine ({start} …)")
    for tag, attribute in (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")):
        for asset in soup.find_all(tag, attrs={attribute: re.compile(r"^(https?:)?//")}):
            if asset.get("rel") != ["canonical"]:
                found.append(f"{page}: asks another host for {asset[attribute]}")
    return found


def main(site: Path) -> int:
    """Check the site and print what is wrong, or how much is there."""
    listed = pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    found = []
    for page in listed:
        file = site / f"{page}.html"
        there = file.is_file()
        found += problems_of(page, file.read_text(encoding="utf-8")) if there else [f"{page}: the page is missing"]
    for problem in found:
        print("PROBLEM", problem)
    if not found:
        print(f"All {len(listed)} pages of _toc.yml are there, complete and free of noise.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "html")))

"""How the tests read the book: its pages and their code cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
LISTED = [ROOT / TOC["root"], *(ROOT / entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
EXECUTED = [page for page in LISTED if "kernelspec:" in page.read_text(encoding="utf-8")]

COLUMNS = 96  # of code fit on a page between two side bars, on a screen 1,280 pixels wide


def code_cells(page: Path) -> list[Any]:
    """Return the code cells of a chapter."""
    return [cell for cell in jupytext.read(page).cells if cell.cell_type == "code"]

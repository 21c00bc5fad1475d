"""One look for all figures: the style file, one color a type, and the frame that figures are built in.

Pyplot makes figures, so that a notebook shows and closes those of a cell; a bare figure as last line is shown twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import BboxBase
from numpy.typing import NDArray

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.labels import label_name

STYLE = Path(__file__).with_name("book.mplstyle")
INK = "#24292f"  # text
MUTED = "#57606a"  # lines that stand back
FAINT = "#8c959f"  # zeros in a table
BLUE = "#0072b2"  # Okabe and Ito, for what is not a type
ORANGE = "#d55e00"
GREEN = "#009e73"
BAND = "#d8dee4"  # where chance alone would put a point
UNLABELED_COLOR = "#d3d3d3"

# Ten of the twelve colors of Paul Tol's qualitative scheme (Colour Schemes, SRON/EPS/TN/09-002), in an order that keeps
# the first four to seven furthest apart, seen with or without a color vision deficiency.
_TYPES = (
    *("#332288", "#cc6677", "#88ccee", "#661100", "#ddcc77"),
    *("#117733", "#999933", "#44aa99", "#aa4499", "#882255"),
)


def palette(names: Iterable[str]) -> dict[str, str]:
    """Return the color of each type, name -> hex, by its place in `names`; "Unknown" is light gray.

    Give all types of the data set in their own order, so that a type has one color in every figure. Ten types stay
    apart under protanopia, deuteranopia and tritanopia; the next ten are the same colors lightened, ten more darkened.

    Raises:
        InputError: If there are more than thirty types, or one is named twice.

    >>> palette(["B", "T", "Unknown"])
    {'B': '#332288', 'T': '#cc6677', 'Unknown': '#d3d3d3'}
    """
    names = [label_name(name) for name in names]
    types = [name for name in names if name != UNLABELED]
    if len(set(names)) < len(names):
        raise InputError(f"A type is named twice among {', '.join(names)}. Give each type once.")
    if len(types) > 3 * len(_TYPES):
        raise InputError(
            f"There are colors for {3 * len(_TYPES)} types, not for {len(types)}. "
            "Merge related types, or drop categories that no cell has."
        )
    plain = np.array([to_rgb(color) for color in _TYPES])
    shades = map(to_hex, [*plain, *((1 - 0.55) * plain + 0.55), *((1 - 0.45) * plain)])
    colors = dict(zip(types, shades, strict=False))
    return {name: colors.get(name, UNLABELED_COLOR) for name in names}


def palette_of(adata: AnnData, *columns: str, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the palette of all types that the categories of some columns of obs name, in their order, then `also`.

    Columns that are missing are passed over. Categories without a cell keep their place, so that a type has the same
    color among all cells and among a few of them.
    """
    categories = (adata.obs[name].astype("category").cat.categories for name in columns if name in adata.obs)
    return palette(dict.fromkeys(map(label_name, chain(*categories, also))))


def probability_cmap() -> Colormap:
    """Return the color map of probabilities: perceptually uniform, from a pale color that recedes to a dark one."""
    return LinearSegmentedColormap.from_list(
        "probability", matplotlib.colormaps["magma_r"](np.linspace(0.05, 0.9, 128))
    )


def shown(name: object, width: int = 36, lines: int = 2) -> str:
    r"""Return a name for a figure: plain blanks, broken into lines of `width` letters, with "…" for what is left over.

    >>> shown("natural killer cell", width=8)
    'natural\nkiller…'
    """
    found = wrap(" ".join(str(name).split()), width)
    if len(found) > lines:
        found[lines - 1 :] = [f"{found[lines - 1][: width - 1]}…"]
    return "\n".join(found).replace("$", r"\$")  # which would begin mathematics


def book_style() -> AbstractContextManager[None]:
    """Return a context under the book's style alone, without settings that the reader has made elsewhere."""
    return plt.style.context(["default", STYLE])


class Sheet(Figure):
    """A figure that has the book's style whenever it is drawn: ticks are made, and fonts chosen, that late."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw everything."""
        with book_style(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **kwargs: Any) -> BboxBase:
        """Return the box around all that `draw` draws, to which notebooks cut a figure."""
        with book_style():
            return super().get_tightbbox(*args, **kwargs)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure, on its own white also where a dark style is in use."""
        with matplotlib.rc_context({"savefig.facecolor": "auto"}):
            super().savefig(*args, **kwargs)


@contextmanager
def sheet(width: float = 7.2, height: float = 3.2) -> Iterator[Figure]:
    """Yield a new figure, in inches, under the book's style; 7.2 fills the text column.

    On leaving, it is laid out once, so that what Matplotlib makes late (ticks) has the book's style too; where the body
    raises, it is closed.
    """
    # Outside the style: pyplot starts a notebook's backend with its first figure, and leaving the style would undo it.
    look = {"facecolor": "white", "edgecolor": "white", "frameon": True}
    figure = plt.figure(figsize=(width, height), dpi=100, FigureClass=Sheet, **look)
    try:
        with book_style():
            figure.set_layout_engine("constrained")
            yield figure
            figure.draw_without_rendering()
    except BaseException:
        plt.close(figure)  # or a notebook would show it, half drawn, beside the error
        raise


@contextmanager
def panel(width: float = 7.2, height: float = 3.2) -> Iterator[Axes]:
    """Yield the axes of a new `sheet`."""
    with sheet(width, height) as figure:
        yield figure.subplots()


def panels_in_a_row(panels: int) -> int:
    """Return how many of `panels` stand in a row: three or four, whichever leaves fewer places empty."""
    return panels if panels <= 4 else min((4, 3), key=lambda columns: -panels % columns)


def require_columns(table: pd.DataFrame, columns: Iterable[str], source: str) -> None:
    """Refuse a table that lacks some of `columns`, and say where one that has them comes from."""
    if missing := [name for name in columns if name not in table]:
        raise InputError(
            f"The table has no column {listed(missing)}; its columns are {listed(table.columns)}. Pass {source}."
        )


def number_table(axes: Axes, table: pd.DataFrame, shade: NDArray[np.floating]) -> QuadMesh:
    """Write a table of counts with its names; `shade`, between 0 and 1 and of the same shape, is the blue behind."""
    mesh = axes.pcolormesh(shade, cmap="Blues", vmin=0, vmax=1, edgecolors="#f0f2f4", linewidth=1)
    for (row, column), count in np.ndenumerate(table):
        color = FAINT if not count else "white" if shade[row, column] > 0.71 else "black"
        axes.text(column + 0.5, row + 0.5, f"{count:,.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(table)) + 0.5, table.index)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return mesh

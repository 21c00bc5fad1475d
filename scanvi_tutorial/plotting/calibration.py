"""Reliability diagrams: is a method right as often as it says?

Used in book/08_evaluation.md. Tables are those of `evaluation.reliability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binom

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.plotting.style import BAND, BLUE, FAINT, MUTED, ORANGE, panels_in_a_row, require_columns, sheet

__all__ = ["reliability_diagram"]

_FEW, _STRIP = 5, 0.3  # cells that say little; how far the bars of cells reach below an accuracy of zero


def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw, for each method, how often it is right among the cells that it is about equally sure of.

    A point is a bin of `evaluation.reliability`: accuracy over mean confidence, hollow for fewer than five cells. The
    gray bar behind it is where 95 % of such points of a perfectly calibrated method lie, by the binomial distribution;
    points outside are orange. Below stand the numbers of cells as bars, the number itself above the highest.

    Args:
        tables: Method -> table with `confidence`, `accuracy` and `cells`, indexed by intervals of confidence.
    """
    if not tables:
        raise InputError("There is no method to draw. Pass {name: reliability(truth, probabilities)}.")
    for table in tables.values():
        require_columns(table, ("confidence", "accuracy", "cells"), "what `reliability(truth, probabilities)` returned")
    columns = panels_in_a_row(len(tables))
    rows = -(-len(tables) // columns)
    side = min(2.6, 6.7 / columns)
    with sheet(max(5.4, 0.5 + side * columns), 0.6 + rows * (side * (1 + _STRIP) * 0.86 + 0.2)) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.ravel()[len(tables) :]:
            axes.set_axis_off()
        for axes, (name, table) in zip(grid.ravel(), tables.items(), strict=False):
            _reliability(axes, table)
            axes.set_title(fill(str(name), int(13 * side)))
            axes.set_box_aspect((1.06 + _STRIP) / 1.04)
        for place, axes in enumerate(grid.ravel()[: len(tables)]):
            axes.tick_params(labelbottom=place + columns >= len(tables))  # also above an empty place
        x, y = "confidence: probability of the most probable type", "share of cells that are right"
        if len(tables) == 1:
            grid[0, 0].set(xlabel=x, ylabel=y)  # beside the panel, which is narrower than the sheet
        else:
            figure.supxlabel(x, fontsize=9)
            figure.supylabel(y, fontsize=9)
        figure.legend(handles=_reliability_marks(), loc="outside upper left", ncols=3, columnspacing=1.4)
    return figure


def _reliability(axes: Axes, table: pd.DataFrame) -> None:
    seen = table[table["cells"] > 0]
    confidence, accuracy, cells = (seen[name].to_numpy() for name in ("confidence", "accuracy", "cells"))
    low, high = (bound / cells for bound in binom.interval(0.95, cells, np.clip(confidence, 0, 1)))
    outside = (accuracy < low) | (accuracy > high)
    left, right = table.index.left.to_numpy(), table.index.right.to_numpy()
    axes.vlines(confidence, low, high, color=BAND, linewidth=6, zorder=1)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle="--", zorder=2)
    colors = np.where(outside, ORANGE, BLUE)
    faces = np.where(cells < _FEW, "none", colors)
    axes.scatter(confidence, accuracy, s=16, facecolors=faces, edgecolors=colors, linewidths=1, zorder=3)
    most = int(table["cells"].to_numpy().argmax())
    height = (_STRIP - 0.16) * table["cells"] / table["cells"].iloc[most]
    axes.bar(left, height, right - left, -_STRIP, align="edge", color=FAINT, edgecolor="white", linewidth=0.5)
    above = {"x": right[most], "ha": "right"} if left[most] >= 0.5 else {"x": left[most], "ha": "left"}
    axes.text(y=-0.15, s=f"{table['cells'].iloc[most]:,}", fontsize=8, color=MUTED, va="bottom", **above)
    axes.set(xlim=(-0.02, 1.02), ylim=(-_STRIP, 1.06))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([-_STRIP + 0.07, 0, 0.5, 1], ["cells", "0", "0.5", "1"])


def _reliability_marks() -> list[Line2D | Patch]:
    dot = {"marker": "o", "linestyle": "none", "markersize": 5, "markeredgewidth": 0}
    return [
        Patch(color=BAND, label="95 % of calibrated bins"),
        Line2D([], [], color=BLUE, label="a bin of cells", **dot),
        Line2D([], [], color=ORANGE, label="outside the gray", **dot),
    ]

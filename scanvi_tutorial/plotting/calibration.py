"""Pictures of a comparison: is a method as often right as it says, what more seeds bring, and who wins draw by draw.

Used in book/08_evaluation.md. Tables are those of `evaluation.reliability` and `evaluation.score_table`.
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
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.stats import binom

from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.plotting.style import (
    BAND,
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    columns_of,
    figure_of,
    panel,
    sheet,
)

__all__ = ["metric_by_seeds", "paired_differences", "reliability_diagram"]

_LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")
_METHODS = (  # Okabe and Ito; a shape too, for who cannot tell the colors
    *((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), ("#cc79a7", "D")),
    *(("#e69f00", "v"), ("#56b4e9", "P"), (INK, "X"), (FAINT, "*")),
)
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
        columns_of(table, ("confidence", "accuracy", "cells"), "what `reliability(truth, probabilities)` returned")
    columns = len(tables) if len(tables) <= 4 else min((4, 3), key=lambda columns: -len(tables) % columns)
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


def metric_by_seeds(
    table: pd.DataFrame, metric: str = "accuracy", *, per_label: str = "per_label", axes: Axes | None = None
) -> Figure:
    """Draw a metric over the number of seeds per type, a line a method: the mean of the draws, and their range.

    Args:
        table: Rows of `evaluation.score_table` for several numbers of seeds, which a further column holds.
        metric: The column to draw.
        per_label: The column with the number of seeds per type.
        axes: Where to draw; None makes a figure.
    """
    columns_of(table, ("method", "seed", metric, per_label), "tables of `score_table` with the number of seeds added")
    methods = list(dict.fromkeys(table["method"]))
    numbers = np.sort(table[per_label].unique())
    summary = table.groupby(["method", per_label])[metric].agg(["mean", "min", "max"])
    ends = []
    with panel(axes, height=3.6) as axes:
        for place, name in enumerate(methods):
            own, (color, marker) = summary.loc[name], _METHODS[place % len(_METHODS)]
            # side by side, or the ranges of all methods would stand on one line
            x = own.index.to_numpy() * 1.012 ** (place - (len(methods) - 1) / 2)
            style = {"color": color, "zorder": 10 - place}
            axes.vlines(x, own["min"], own["max"], linewidth=1, alpha=0.55, **style)
            axes.plot(x, own["mean"], marker=marker, markersize=4.5, linewidth=2.2 if place == 0 else 1.4, **style)
            ends.append((x[-1], own["mean"].iloc[-1]))
        axes.set(xscale="log", xlabel="seeds per type", ylabel=_title(metric))
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        _label_ends(axes, methods, ends)
    return figure_of(axes)


def paired_differences(
    table: pd.DataFrame,
    metric: str = "accuracy",
    reference: str = "logistic regression",
    *,
    axes: Axes | None = None,
) -> Figure:
    """Draw, draw by draw, by how much each method differs from a reference; a bar marks the mean.

    Beside each row stand the mean and in how many draws the method is the better one; arrowheads at the edge stand for
    differences so large that the others could not be told apart.

    Args:
        table: `evaluation.score_table`, one row for each method and seed.
        metric: The column to draw.
        reference: The method that the others are held against.
        axes: Where to draw; None makes a figure.
    """
    columns_of(table, ("method", "seed", metric), "what `score_table(methods, draw, seeds)` returned")
    if table.duplicated(["method", "seed"]).any():
        raise InputError(
            "There are several rows for one method and seed, so draws cannot be paired. Choose the rows of one number "
            "of seeds per type, and of one way to choose them."
        )
    wide = table.pivot(index="seed", columns="method", values=metric)
    if reference not in wide:
        raise InputError(f"{reference!r} is not among the methods ({listed(wide)}). Name one of them as `reference`.")
    names = [name for name in dict.fromkeys(table["method"]) if name != reference]
    if not names:
        raise InputError(f"There is no method beside {reference!r} to compare with it. Score some more.")
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    edge = _edge(wide[names].sub(wide[reference], axis=0).to_numpy())
    with panel(axes, height=1.1 + 0.32 * len(names)) as axes:
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, name in enumerate(names):
            gain = (wide[name] - wide[reference]).dropna().to_numpy()
            better, mean = int((sign * gain > 0).sum()), gain.mean()
            color = BLUE if sign * mean > 0 else ORANGE
            inside = gain[np.abs(gain) <= edge]
            axes.scatter(inside, np.full(len(inside), place), s=22, color=color, alpha=0.5, linewidths=0)
            for side, marker in ((-edge, "<"), (edge, ">")):
                if (gain * np.sign(side) > edge).any():
                    axes.plot(side, place, marker=marker, color=color, markersize=6)
            if abs(mean) <= edge:
                axes.plot([mean, mean], [place - 0.28, place + 0.28], color=color, linewidth=2.4)
            note = f"{mean:+.3f}".replace("-", "−") + f", better in {better} of {len(gain)}"
            axes.annotate(note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.5, -0.5), xmargin=0.06)
        axes.set_xlabel(f"{_title(metric)}: difference from {reference} on the same draw")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure_of(axes)


def _edge(gains: NDArray[np.floating]) -> float:
    """Return how far differences are drawn: to the largest, if four in five are not crowded within a third of that."""
    sizes = np.abs(gains[np.isfinite(gains)])
    usual = np.quantile(sizes, 0.8) if sizes.size else 0.0
    return 2 * usual if 0 < 3 * usual < sizes.max() else np.inf


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


def _label_ends(axes: Axes, names: list[str], ends: list[tuple[float, float]]) -> None:
    """Write names at the right of the axes, each as near to the end of its line as the others allow."""
    figure = figure_of(axes)
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    wanted = np.array([to_axes.transform(end)[1] for end in ends])
    line = 12 / (72 * figure.get_figheight() * axes.get_position().height)  # height of a line of text, of the axes'
    for place, (name, end, height) in enumerate(zip(names, ends, _apart(wanted, line), strict=True)):
        color, _ = _METHODS[place % len(_METHODS)]
        axes.annotate(
            fill(str(name), 24),
            end,
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            # from the left edge of the text to the end of the line
            arrowprops={"arrowstyle": "-", "color": color, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 3},
        )


def _apart(wanted: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return heights in the order of `wanted`, moved as little as makes neighbors differ by `least` (least squares).

    They stay between 0 and 1 while there is room for all.
    """
    order = np.argsort(wanted, kind="stable")
    steps = least * np.arange(len(wanted))
    blocks: list[list[float]] = []  # sum and number of heights that have to move together
    for height in wanted[order] - steps:
        blocks.append([height, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    placed = np.concatenate([np.full(int(count), total / count) for total, count in blocks]) + steps
    placed = np.minimum(np.maximum(placed, steps), 1 - steps[::-1])
    return placed[np.argsort(order, kind="stable")]


def _title(metric: str) -> str:
    return metric.replace("_", " ") + (" (lower is better)" if metric in _LOWER_IS_BETTER else "")

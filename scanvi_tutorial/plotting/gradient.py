"""What weighs a label: the factor that a score term brings, and what the weight does to predictions (chapter 7)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scanvi_tutorial.plotting.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    panel,
    require_columns,
    require_positive,
    sheet,
)

__all__ = ["label_factor_plot", "label_weight_plot"]


def label_factor_plot(table: pd.DataFrame) -> Figure:
    """Draw by how much the gradient of each label was multiplied, over one plus the loss of its cell.

    Args:
        table: A row a labeled cell: `loss` in nats, `factor` as measured on gradients, and `model`, by whose values
            points are colored.

    Raises:
        InputError: Where a column is missing, or where a number is not above zero and has no place on the axes.
    """
    require_columns(table, ("loss", "factor", "model"), "a row for each labeled cell")
    expected = 1 + table["loss"]
    require_positive(table[["factor"]].assign(**{"1 + loss": expected}))
    with panel(width=4.6, height=3.6) as axes:
        for name, color in zip(table["model"].unique(), cycle((ORANGE, BLUE, GREEN)), strict=False):
            of = table["model"] == name
            axes.scatter(expected[of], table["factor"][of], s=16, c=color, alpha=0.6, linewidths=0, label=name)
        both = np.concatenate([expected, table["factor"]])
        limits = both.min() / 1.3, both.max() * 1.3
        axes.plot(limits, limits, color=INK, linewidth=1, linestyle="--", zorder=0)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, box_aspect=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:,.0f}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="1 + loss of the cell (nats)", ylabel="factor on the label's gradient")
        axes.legend(loc="upper left")
    return axes.figure


def label_weight_plot(table: pd.DataFrame, *, marks: Mapping[str, float] | None = None) -> Figure:
    """Draw accuracy, how sure the model is, and calibration error over the label weight w.

    Args:
        table: A row a fit: `weight`, `accuracy`, `confidence` (mean of the highest probability) and
            `calibration_error`. Fits with one weight are draws: a point each, and a line through their means.
        marks: Weights to name, such as the defaults of other systems; those outside the sweep are left out.

    Raises:
        InputError: Where a column is missing, or where a weight is not above zero.
    """
    require_columns(table, ("weight", "accuracy", "confidence", "calibration_error"), "a row for each fit")
    require_positive(table[["weight"]])
    means = table.groupby("weight").mean(numeric_only=True)
    with sheet(height=3.1) as figure:
        left, right = figure.subplots(1, 2)
        for axes, column, color, name in (
            (left, "confidence", ORANGE, "mean highest probability"),
            (left, "accuracy", BLUE, "accuracy"),
            (right, "calibration_error", ORANGE, ""),
        ):
            axes.plot(means.index, means[column], color=color, label=name)
            axes.scatter(table["weight"], table[column], s=14, c=color, linewidths=0)
        left.fill_between(means.index, means["accuracy"], means["confidence"], color=ORANGE, alpha=0.12, linewidth=0)
        left.set_title("How right, and how sure")
        left.legend(loc="lower right")
        right.set_title("Expected calibration error")
        highest = table["calibration_error"].max()
        right.set_ylim(0, highest * (1.65 if marks else 1.05))  # names stand above the data
        for axes in (left, right):
            axes.set(xscale="log", xlabel="label weight $w$")
            axes.grid(axis="y")
        named = pd.Series(marks or {}, dtype=float)
        for weight, names in named[named.between(means.index.min(), means.index.max())].groupby(named):
            right.axvline(weight, color=MUTED, linestyle=":", linewidth=1)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
            text = ", ".join(names.index)  # systems that agree share a line
            right.annotate(text, (weight, 0.99), (2, 0), ha="left", va="top", color=MUTED, fontsize=8, **at)
    return figure

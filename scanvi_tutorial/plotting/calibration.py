"""Calibration plots: reliability of probabilities (chapter 8) and ranks of posterior draws (chapter 9)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import binom

from scanvi_tutorial.evaluation.ranks import allowed_deviation, ecdf_difference
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.plotting.style import (
    BAND,
    BLUE,
    FAINT,
    MUTED,
    ORANGE,
    palette,
    panels_in_a_row,
    require_columns,
    sheet,
    shown,
)

_FEW, _STRIP = 5, 0.3  # cells that say little; how far the bars of cells reach below an accuracy of zero


def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw a reliability diagram for each method: accuracy against confidence, in bins of confidence.

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
        for place, (name, table) in enumerate(tables.items()):
            axes = grid.ravel()[place]
            _reliability(axes, table)
            axes.set(title=shown(name, int(13 * side), lines=4), box_aspect=(1.06 + _STRIP) / 1.04)
            axes.tick_params(labelbottom=place + columns >= len(tables))  # also above an empty place
        x, y = "confidence: probability of the most probable type", "share of cells that are right"
        if len(tables) == 1:
            grid[0, 0].set(xlabel=x, ylabel=y)  # beside the panel, which is narrower than the sheet
        else:
            figure.supxlabel(x, fontsize=9)
            figure.supylabel(y, fontsize=9)
        dot = {"marker": "o", "linestyle": "none", "markersize": 5, "markeredgewidth": 0}
        marks = [
            Patch(color=BAND, label="95 % of calibrated bins"),
            Line2D([], [], color=BLUE, label="a bin of cells", **dot),
            Line2D([], [], color=ORANGE, label="outside the gray", **dot),
        ]
        figure.legend(handles=marks, loc="outside upper left", ncols=3, columnspacing=1.4)
    return figure


def coverage_plot(table: pd.DataFrame) -> Figure:
    """Draw how often sets held the type over how often they were asked to, a line a data set, a panel a size.

    Points are means over draws; below the dashed diagonal sets hold the type less often than asked.

    Args:
        table: A row a draw, with `dataset`, `per_label` (labels a type), `asked` and `found` (shares of the cells).
    """
    require_columns(table, ("dataset", "per_label", "asked", "found"), "evaluation")
    means = table.groupby(["per_label", "dataset", "asked"])["found"].mean()
    names, sizes = list(dict.fromkeys(table["dataset"])), sorted(set(table["per_label"]))
    colors = dict(zip(names, palette(names).values(), strict=True))
    low = min(table["asked"].min(), means.min()) - 0.03
    with sheet(height=3.4) as figure:
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.9, linestyle="--", zorder=1)
            for name in names:
                if (size, name) in means.index.droplevel("asked"):
                    own = means[size, name]
                    axes.plot(own.index, own, marker="o", markersize=4, color=colors[name])
            axes.set(title=f"{size} labels a type", xlabel="asked", xlim=(low, 1), ylim=(low, 1), box_aspect=1)
        panels[0].set_ylabel("found")
        marks = [Line2D([], [], color=colors[name], marker="o", markersize=4, label=shown(name)) for name in names]
        figure.legend(handles=marks, loc="outside lower center", ncols=min(len(names), 5))
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


def rank_plot(ranks: Mapping[str, pd.DataFrame], draws: int) -> Figure:
    """Draw the ranks of one or several posteriors side by side: histograms above, differences of ECDFs below.

    Bands hold what uniform ranks keep within: each bar of the first quantity in 99 of 100 cases, and all ECDFs of a
    panel together in 95 of 100 (`allowed_deviation`). Bars are the first quantity; the outline is the mean over the
    others, which has less noise than the band says.

    Args:
        ranks: Name of the posterior -> ranks among `draws` draws, a table (cells, quantities), of the same cells.
        draws: How many draws the truth was ranked among.
    """
    if not ranks:
        raise InputError("There are no ranks to draw. Pass a table of ranks for each posterior, under its name.")
    band = {"color": BAND, "linewidth": 0, "zorder": 0}
    with sheet(height=4.2) as figure:
        panels = figure.subplots(2, len(ranks), sharex=True, sharey="row", squeeze=False)
        edges = np.linspace(0, 1, min(20, draws + 1) + 1)
        for (name, table), (above, below) in zip(ranks.items(), panels.T, strict=True):
            difference = ecdf_difference(table, draws)
            places = (table + 0.5) / (draws + 1)
            first, *others = table.columns
            whole = len(table)

            low, high = binom.interval(0.99, whole, 1 / (len(edges) - 1))
            above.axhspan(low / whole, high / whole, **band)
            weights = np.full(whole, 1 / whole)
            marks = [above.hist(places[first], edges, weights=weights, color=ORANGE, alpha=0.75)[-1]]
            if others:
                rest = f"mean of the other {len(others)}" if len(others) > 1 else shown(others[0])
                shares = np.histogram(places[others], edges)[0] / (whole * len(others))
                marks.append(above.stairs(shares, edges, color=BLUE, linewidth=1.6))
            above.set_title(shown(name, 66 // len(ranks), lines=4))

            allowed = allowed_deviation(whole, table.shape[1])
            below.axhspan(-allowed, allowed, **band)
            below.axhline(0, color=MUTED, linewidth=0.8)
            at = np.concatenate([[0], (difference.index + 1) / (draws + 1)])
            below.plot(at, np.vstack([np.zeros(len(others)), difference[others]]), color=BLUE, linewidth=0.9, alpha=0.6)
            below.plot(at, [0, *difference[first]], color=ORANGE, linewidth=1.8)
            below.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
            for label, side in zip(below.get_xticklabels(), ("left", "center", "right"), strict=True):
                label.set_horizontalalignment(side)  # or the 1 of a panel touches the 0 of the next
        panels[0, 0].set_ylabel("share of the cells")
        panels[1, 0].set_ylabel("ECDF − uniform")
        figure.supxlabel("rank of the truth / number of draws", fontsize=9.5)
        if others:
            figure.legend(marks, [shown(first), rest], loc="outside upper left", ncols=2)
    return figure

"""Methods side by side: scores over the number of seeds and between draws (chapter 8), time and memory (chapter 11)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.plotting.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    panel,
    require_columns,
    sheet,
    shown,
)

_LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")
_METHODS = (  # Okabe and Ito; a shape too, for who cannot tell the colors
    *((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), ("#cc79a7", "D")),
    *(("#e69f00", "v"), ("#56b4e9", "P"), (INK, "X"), (FAINT, "*")),
)


def metric_by_seeds(table: pd.DataFrame, metric: str = "accuracy") -> Figure:
    """Draw a metric over the number of seeds per type, a line a method: the mean of the draws, and their range.

    Args:
        table: Rows of `evaluation.score_table` for several numbers of seeds, which a column `per_label` holds.
        metric: The column to draw.
    """
    columns = "method", "seed", metric, "per_label"
    require_columns(table, columns, "tables of `score_table` with the number of seeds added")
    summary = table.groupby(["method", "per_label"])[metric].agg(["mean", "min", "max"])
    methods = table["method"].unique()
    with panel(height=3.6) as axes:
        for place, name in enumerate(methods):
            scores, (color, marker) = summary.loc[name], _METHODS[place % len(_METHODS)]
            # side by side, or the ranges of all methods would stand on one line
            x = scores.index.to_numpy() * 1.012 ** (place - (len(methods) - 1) / 2)
            style = {"color": color, "zorder": 10 - place}
            axes.vlines(x, scores["min"], scores["max"], linewidth=1, alpha=0.55, **style)
            width = 2.2 if place == 0 else 1.4
            axes.plot(x, scores["mean"], marker=marker, markersize=4.5, linewidth=width, label=shown(name), **style)
        axes.set(xscale="log", xlabel="seeds per type", ylabel=_title(metric))
        axes.set_xticks(numbers := np.sort(table["per_label"].unique()), [f"{number:g}" for number in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        lines = sorted(axes.lines, key=lambda line: -line.get_ydata()[-1])  # as they end, from top to bottom
        axes.figure.legend(handles=lines, loc="outside right center")
    return axes.figure


def paired_differences(table: pd.DataFrame, metric: str = "accuracy", reference: str = "logistic regression") -> Figure:
    """Draw, draw by draw, by how much each method differs from a reference; a bar marks the mean.

    Beside each row stand the mean and in how many draws the method is the better one; arrowheads at the edge stand for
    differences so large that the others could not be told apart.

    Args:
        table: `evaluation.score_table`, one row for each method and seed.
        metric: The column to draw.
        reference: The method that the others are held against.
    """
    require_columns(table, ("method", "seed", metric), "what `score_table(methods, draw, seeds)` returned")
    if table.duplicated(["method", "seed"]).any():
        raise InputError(
            "There are several rows for one method and seed, so draws cannot be paired. Choose the rows of one number "
            "of seeds per type, and of one way to choose them."
        )
    wide = table.pivot(index="seed", columns="method", values=metric)
    if reference not in wide:
        raise InputError(f"{reference!r} is not among the methods ({listed(wide)}). Name one of them as `reference`.")
    names = [name for name in dict.fromkeys(table["method"]) if name != reference]
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    edge = _axis_edge(wide[names].sub(wide[reference], axis=0).to_numpy())
    with panel(height=1.1 + 0.32 * len(names)) as axes:
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, name in enumerate(names):
            gain = (wide[name] - wide[reference]).dropna().to_numpy()
            mean = gain.mean()
            color = BLUE if sign * mean > 0 else ORANGE
            inside = gain[np.abs(gain) <= edge]
            axes.scatter(inside, np.full(len(inside), place), s=22, color=color, alpha=0.5, linewidths=0)
            for side, marker in ((-edge, "<"), (edge, ">")):
                if (gain * np.sign(side) > edge).any():
                    axes.plot(side, place, marker=marker, color=color, markersize=6)
            if abs(mean) <= edge:
                axes.plot([mean, mean], [place - 0.28, place + 0.28], color=color, linewidth=2.4)
            note = f"{mean:+.3f}".replace("-", "−") + f", better in {(sign * gain > 0).sum()} of {len(gain)}"
            axes.annotate(note, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
        axes.set_yticks(range(len(names)), map(shown, names))
        axes.set(ylim=(len(names) - 0.5, -0.5), xmargin=0.06)
        axes.set_xlabel(f"{_title(metric)}: difference from {shown(reference)} on the same draw")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return axes.figure


def timing_plot(table: pd.DataFrame) -> Figure:
    """Draw how long each arm took: a bar to the median of its repeats, a dot a repeat.

    Beside it stands how many times as fast as the first arm it is.

    Args:
        table: Times (repeats, arms), in ms and above zero.
    """
    medians = table.median()
    with panel(height=0.5 + 0.42 * table.shape[1]) as axes:
        for place, name in enumerate(table):
            axes.barh(place, medians[name], height=0.55, color=BLUE if place else FAINT)
            axes.scatter(table[name], [place] * len(table), s=10, color=INK, zorder=3, linewidths=0)
            if place:
                note = f"  {medians.iloc[0] / medians[name]:.1f} × as fast"
                axes.text(max(medians[name], table[name].max()), place, note, va="center", fontsize="small")
        axes.set_yticks(range(table.shape[1]), map(shown, table))
        axes.set(xlabel="ms", xlim=(0, 1.02 * table.max(axis=None)))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    return axes.figure


def growth_plot(table: pd.DataFrame) -> Figure:
    """Draw seconds and memory over the number of stored counts, each beside a line that grows in proportion to it.

    Args:
        table: A row a run: `stored` counts, `seconds`, `held_mb`, all above zero.
    """
    require_columns(table, ("stored", "seconds", "held_mb"), "rows of one curve of the results file")
    rows = table.sort_values("stored")
    with sheet(height=3.0) as figure:
        left, right = figure.subplots(1, 2)
        memory = (right, "held_mb", ORANGE, "held memory, MB")
        for axes, column, color, name in ((left, "seconds", BLUE, "seconds"), memory):
            axes.plot(rows["stored"], rows[column], "o-", color=color)
            last = rows.iloc[-1]
            line = last[column] * rows["stored"] / last["stored"]
            axes.plot(rows["stored"], line, color=FAINT, linestyle="--", zorder=0, label="in proportion")
            axes.set(xscale="log", yscale="log", xlabel="counts that are stored", ylabel=name)
            axes.legend(loc="lower right")
    return figure


def _axis_edge(gains: NDArray[np.floating]) -> float:
    """Return how far differences are drawn: to the largest, if four in five are not crowded within a third of that."""
    sizes = np.abs(gains[np.isfinite(gains)])
    usual = np.quantile(sizes, 0.8) if sizes.size else 0.0
    return 2 * usual if 0 < 3 * usual < sizes.max() else np.inf


def _title(metric: str) -> str:
    return metric.replace("_", " ") + (" (lower is better)" if metric in _LOWER_IS_BETTER else "")

"""Pictures of a comparison of methods: a metric over the number of seeds, and paired differences between draws.

Used in book/08_evaluation.md. Tables are those of `evaluation.score_table`.
"""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.plotting.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, panel, require_columns

__all__ = ["metric_by_seeds", "paired_differences"]

_LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")
_METHODS = (  # Okabe and Ito; a shape too, for who cannot tell the colors
    *((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), ("#cc79a7", "D")),
    *(("#e69f00", "v"), ("#56b4e9", "P"), (INK, "X"), (FAINT, "*")),
)


def metric_by_seeds(table: pd.DataFrame, metric: str = "accuracy", *, per_label: str = "per_label") -> Figure:
    """Draw a metric over the number of seeds per type, a line a method: the mean of the draws, and their range.

    Args:
        table: Rows of `evaluation.score_table` for several numbers of seeds, which a further column holds.
        metric: The column to draw.
        per_label: The column with the number of seeds per type.
    """
    require_columns(
        table, ("method", "seed", metric, per_label), "tables of `score_table` with the number of seeds added"
    )
    methods = list(dict.fromkeys(table["method"]))
    numbers = np.sort(table[per_label].unique())
    summary = table.groupby(["method", per_label])[metric].agg(["mean", "min", "max"])
    ends = []
    with panel(height=3.6) as axes:
        for place, name in enumerate(methods):
            scores, (color, marker) = summary.loc[name], _METHODS[place % len(_METHODS)]
            # side by side, or the ranges of all methods would stand on one line
            x = scores.index.to_numpy() * 1.012 ** (place - (len(methods) - 1) / 2)
            style = {"color": color, "zorder": 10 - place}
            axes.vlines(x, scores["min"], scores["max"], linewidth=1, alpha=0.55, **style)
            axes.plot(x, scores["mean"], marker=marker, markersize=4.5, linewidth=2.2 if place == 0 else 1.4, **style)
            ends.append((x[-1], scores["mean"].iloc[-1]))
        axes.set(xscale="log", xlabel="seeds per type", ylabel=_title(metric))
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        _label_ends(axes, methods, ends)
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
    if not names:
        raise InputError(f"There is no method beside {reference!r} to compare with it. Score some more.")
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    edge = _axis_edge(wide[names].sub(wide[reference], axis=0).to_numpy())
    with panel(height=1.1 + 0.32 * len(names)) as axes:
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
    return axes.figure


def _axis_edge(gains: NDArray[np.floating]) -> float:
    """Return how far differences are drawn: to the largest, if four in five are not crowded within a third of that."""
    sizes = np.abs(gains[np.isfinite(gains)])
    usual = np.quantile(sizes, 0.8) if sizes.size else 0.0
    return 2 * usual if 0 < 3 * usual < sizes.max() else np.inf


def _label_ends(axes: Axes, names: list[str], ends: list[tuple[float, float]]) -> None:
    """Write names at the right of the axes, each as near to the end of its line as the others allow."""
    figure = axes.figure
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    wanted = np.array([to_axes.transform(end)[1] for end in ends])
    line = 12 / (72 * figure.get_figheight() * axes.get_position().height)  # height of a line of text, of the axes'
    for place, (name, end, height) in enumerate(zip(names, ends, _spread_heights(wanted, line), strict=True)):
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


def _spread_heights(wanted: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return heights in the order of `wanted`, moved as little as makes neighbors differ by `least` (least squares).

    They stay between 0 and 1 while there is room for all.
    """
    order = np.argsort(wanted, kind="stable")
    steps = least * np.arange(len(wanted))
    placed = isotonic_regression(wanted[order] - steps).x + steps
    placed = np.minimum(np.maximum(placed, steps), 1 - steps[::-1])
    return placed[np.argsort(order, kind="stable")]


def _title(metric: str) -> str:
    return metric.replace("_", " ") + (" (lower is better)" if metric in _LOWER_IS_BETTER else "")

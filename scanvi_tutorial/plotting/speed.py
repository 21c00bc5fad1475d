"""Pictures of what things cost: time by arm, and time and memory over the counts that are stored.

Used in book/11_speed.md. Everything comes in as a table; nothing here measures.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.plotting.style import BLUE, FAINT, INK, ORANGE, panel, require_columns, sheet

__all__ = ["growth_plot", "timing_plot"]


def timing_plot(table: pd.DataFrame, *, unit: str = "ms") -> Figure:
    """Draw how long each arm took: a bar to the median of its repeats, a dot a repeat.

    Beside it stands how many times as fast as the first arm it is.

    Args:
        table: Times (repeats, arms), in `unit`.
        unit: Name of the unit, for the axis.

    Raises:
        InputError: Where there is no arm or a time is not above zero.
    """
    if table.empty or not (table > 0).all(axis=None):
        raise InputError("Times must be above zero, and there must be one at least: a column an arm, a row a repeat.")
    medians = table.median()
    with panel(height=0.5 + 0.42 * table.shape[1]) as axes:
        for place, name in enumerate(table):
            axes.barh(place, medians[name], height=0.55, color=BLUE if place else FAINT)
            axes.scatter(table[name], [place] * len(table), s=10, color=INK, zorder=3, linewidths=0)
            if place:
                note = f"  {medians.iloc[0] / medians[name]:.1f} × as fast"
                axes.text(max(medians[name], table[name].max()), place, note, va="center", fontsize="small")
        axes.set(
            yticks=range(table.shape[1]), yticklabels=list(table), xlabel=unit, xlim=(0, 1.02 * table.max(axis=None))
        )
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    return axes.figure


def growth_plot(table: pd.DataFrame) -> Figure:
    """Draw seconds and memory over the number of stored counts, each beside a line that grows in proportion to it.

    Args:
        table: A row a run: `stored` counts, `seconds`, `held_mb`.

    Raises:
        InputError: Where a column is missing or a number is not above zero.
    """
    columns = "stored", "seconds", "held_mb"
    require_columns(table, columns, "rows of one curve of the results file")
    if table.empty or not (table[[*columns]] > 0).all(axis=None):
        raise InputError("A curve needs at least one row, and everything in it above zero.")
    rows = table.sort_values("stored")
    with sheet(height=3.0) as figure:
        for axes, column, color, name in zip(
            figure.subplots(1, 2), ("seconds", "held_mb"), (BLUE, ORANGE), ("seconds", "held memory, MB"), strict=True
        ):
            axes.plot(rows["stored"], rows[column], "o-", color=color)
            last = rows.iloc[-1]
            line = last[column] * rows["stored"] / last["stored"]
            axes.plot(rows["stored"], line, color=FAINT, linestyle="--", zorder=0, label="in proportion")
            axes.set(xscale="log", yscale="log", xlabel="counts that are stored", ylabel=name)
            axes.legend(loc="lower right")
    return figure

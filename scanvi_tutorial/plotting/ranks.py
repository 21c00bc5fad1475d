"""Pictures of ranks: a histogram, and how far their ECDF strays from that of the uniform.

Used in book/09_calibration.md. Tables of ranks come in; nothing here knows a posterior.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binom

from scanvi_tutorial.evaluation.ranks import allowed_deviation, ecdf_difference
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.plotting.style import BAND, BLUE, INK, MUTED, ORANGE, sheet

__all__ = ["rank_plot"]

_BARS = 20
_BAND = {"color": BAND, "linewidth": 0, "zorder": 0}


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
    with sheet(height=4.2) as figure:
        panels = figure.subplots(2, len(ranks), sharex=True, sharey="row", squeeze=False)
        edges = np.linspace(0, 1, min(_BARS, draws + 1) + 1)
        for (name, table), (above, below) in zip(ranks.items(), panels.T, strict=True):
            difference = ecdf_difference(table, draws)
            places = (table + 0.5) / (draws + 1)
            first, others = table.columns[0], list(table.columns[1:])
            whole = len(table)

            low, high = binom.interval(0.99, whole, 1 / (len(edges) - 1))
            above.axhspan(low / whole, high / whole, **_BAND)
            above.hist(places[first], edges, weights=np.full(whole, 1 / whole), color=ORANGE, alpha=0.75)
            if others:
                shares = np.histogram(places[others], edges)[0] / (whole * len(others))
                above.stairs(shares, edges, color=BLUE, linewidth=1.6)
            above.set_title(name)

            allowed = allowed_deviation(whole, table.shape[1])
            below.axhspan(-allowed, allowed, **_BAND)
            below.axhline(0, color=MUTED, linewidth=0.8)
            at = np.concatenate([[0], (difference.index + 1) / (draws + 1)])
            for quantity in [*others, first]:
                color, width = (ORANGE, 1.8) if quantity == first else (BLUE, 0.9)
                curve = np.concatenate([[0], difference[quantity]])
                below.plot(at, curve, color=color, linewidth=width, alpha=1 if quantity == first else 0.6)
            below.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
            for label, side in zip(below.get_xticklabels(), ("left", "center", "right"), strict=True):
                label.set_horizontalalignment(side)  # or the 1 of a panel touches the 0 of the next
        panels[0, 0].set_ylabel("share of the cells")
        panels[1, 0].set_ylabel("ECDF − uniform")
        figure.supxlabel("rank of the truth / number of draws", fontsize=9.5, color=INK)
        columns = next(iter(ranks.values())).columns
        if len(columns) > 1:
            _name_curves(panels[0, 0], columns)
    return figure


def _name_curves(axes, columns: pd.Index) -> None:
    """Say beside the first histogram what is orange and what is blue."""
    others = f"the other {len(columns) - 1}" if len(columns) > 2 else str(columns[1])
    for line, (words, color) in enumerate([(str(columns[0]), ORANGE), (others, BLUE)]):
        axes.annotate(
            words, (0.5, 0.97 - 0.11 * line), xycoords="axes fraction", ha="center", va="top", color=color, fontsize=9
        )

"""Rank plots show the ranks they are given, a band for chance, and nothing else."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from scanvi_tutorial.evaluation.ranks import allowed_deviation, ecdf_difference
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import rank_plot


def drawn(quantities=3, seed=0):
    ranks = np.random.default_rng(seed).integers(100, size=(500, quantities))
    return pd.DataFrame(ranks, columns=["log l", "z2[1]", "z2[2]"][:quantities])


def bars(axes, width):
    """Return the bars of that width; the band of chance is as wide as the panel."""
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_width() == pytest.approx(width)]


def test_each_posterior_has_a_histogram_above_and_its_ecdfs_below():
    figure = rank_plot({"one": drawn(), "two": drawn(seed=1)}, 99)
    above, below = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title(loc="left") for axes in above] == ["one", "two"]
    assert [sum(len(line.get_xdata()) == 101 for line in axes.lines) for axes in below] == [3, 3]


def test_bars_are_shares_of_the_cells_and_curves_are_differences_of_ecdfs():
    table = drawn()
    above, below = rank_plot({"one": table}, 99).axes
    heights = [patch.get_height() for patch in bars(above, 0.05)]
    np.testing.assert_allclose(heights, np.bincount(table["log l"] // 5, minlength=20) / 500)
    curves = [line.get_ydata() for line in below.lines if len(line.get_xdata()) == 101]
    np.testing.assert_allclose(curves[-1], [0, *ecdf_difference(table, 99)["log l"]])
    band = below.patches[0].get_bbox()
    assert band.y1 == pytest.approx(allowed_deviation(500, 3))
    assert band.y0 == -band.y1


def test_one_quantity_is_drawn_alone():
    figure = rank_plot({"one": drawn(1)}, 99)
    assert not figure.legends, "a name that tells nothing apart"
    assert sum(len(line.get_xdata()) == 101 for line in figure.axes[1].lines) == 1


def test_few_draws_get_a_bar_each():
    above, _ = rank_plot({"one": drawn() // 25}, 3).axes
    assert len(bars(above, 0.25)) == 4


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="no ranks"):
        rank_plot({}, 99)


def test_ranks_beyond_the_draws_are_refused():
    with pytest.raises(InputError, match="number of draws"):
        rank_plot({"one": drawn()}, 9)
    assert plt.get_fignums() == []

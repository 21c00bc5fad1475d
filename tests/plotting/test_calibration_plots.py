"""Pictures of a comparison say what its tables say: points, ranges and numbers are read back from what was drawn."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba

from scanvi_tutorial.evaluation import METRICS, reliability
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import metric_by_seeds, paired_differences, reliability_diagram
from scanvi_tutorial.plotting.style import BLUE, ORANGE

EIGHT = [f"method {k}" for k in "ABCDEFG"] + ["logistic regression"]


def bins(cells, accuracy, confidence=None):
    """Return a table of reliability with given numbers of cells in the upper bins."""
    edges = np.arange(11) / 10
    confidence = edges[:-1] + 0.05 if confidence is None else confidence
    return pd.DataFrame(
        {"confidence": confidence, "accuracy": accuracy, "cells": cells},
        index=pd.IntervalIndex.from_breaks(edges, name="bin"),
    )


def comparison(names=EIGHT, numbers=(5, 10), draws=3, seed=0):
    """Return a long table of scores, drawn at random."""
    rng = np.random.default_rng(seed)
    rows = [
        {"method": name, "seed": draw, "per_label": number, **dict(zip(METRICS, rng.random(len(METRICS)), strict=True))}
        for number in numbers
        for draw in range(draws)
        for name in names
    ]
    return pd.DataFrame(rows)


def drawn(axes, kind):
    return [c for c in axes.collections if isinstance(c, kind)]


def shown(figure):
    """Return the texts that are visible, each with its box in pixels (that of an annotation without its line)."""
    figure.canvas.draw()
    beyond = set()  # labels of ticks outside the limits, which are kept and not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible() and t not in beyond]
    return {t: mpl.text.Text.get_window_extent(t) for t in texts}


# Reliability


def test_each_bin_is_a_point_of_accuracy_over_confidence():
    rng = np.random.default_rng(0)
    p = pd.DataFrame(rng.dirichlet(np.ones(3) / 3, 300), columns=list("ABC"))
    table = reliability(rng.choice(list("ABC"), 300), p)
    (axes,) = reliability_diagram({"mine": table}).axes
    assert axes.get_title(loc="left") == "mine"
    (points,) = drawn(axes, PathCollection)
    seen = table[table["cells"] > 0]
    np.testing.assert_allclose(points.get_offsets(), seen[["confidence", "accuracy"]])
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(np.array(heights) / max(heights), table["cells"] / table["cells"].max())
    assert axes.get_ylim()[0] + max(heights) < 0  # below the points
    assert f"{table['cells'].max()}" in [text.get_text() for text in axes.texts]


def test_points_beyond_chance_are_orange():
    table = bins([0] * 5 + [4, 400, 400, 400, 400], [np.nan] * 5 + [0.75, 0.55, 0.72, 0.85, 0.99])
    (points,) = drawn(reliability_diagram({"mine": table}).axes[0], PathCollection)
    # four cells say little; for 400, two standard deviations are 0.048 at 0.65, 0.043 at 0.75 and 0.022 at 0.95
    colors = [to_rgba(c) for c in (BLUE, ORANGE, BLUE, BLUE, ORANGE)]
    assert [to_rgba(c) for c in points.get_edgecolors()] == colors
    assert [to_rgba(c) for c in points.get_facecolors()] == [(0, 0, 0, 0), *colors[1:]], "few cells are hollow"


def test_the_gray_bar_is_the_central_95_percent_of_a_binomial():
    table = bins([0] * 9 + [100], [np.nan] * 9 + [0.9])
    (bar,) = drawn(reliability_diagram({"mine": table}).axes[0], LineCollection)
    low, high = bar.get_segments()[0][:, 1]
    counts = np.random.default_rng(0).binomial(100, 0.95, 100_000) / 100
    np.testing.assert_allclose([low, high], np.quantile(counts, [0.025, 0.975]), atol=0.011)


@pytest.mark.parametrize("count", [1, 5])
def test_each_method_has_a_panel_in_the_order_given(count):
    figure = reliability_diagram({name: bins([9] * 10, np.arange(10) / 10) for name in EIGHT[:count]})
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == EIGHT[:count]
    assert figure.get_figwidth() <= 7.2


# More seeds


def test_a_line_is_the_mean_of_the_draws_and_its_bars_their_range():
    table = comparison(["one", "two"])
    (axes,) = metric_by_seeds(table, "brier").axes
    two = table[table["method"] == "two"].groupby("per_label")["brier"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), two.mean())
    np.testing.assert_allclose(axes.lines[1].get_xdata(), [5, 10], rtol=0.05)
    ranges = np.array([segment[:, 1] for segment in drawn(axes, LineCollection)[1].get_segments()])
    np.testing.assert_allclose(ranges, np.stack([two.min(), two.max()], axis=1))
    assert axes.get_ylabel() == "brier (lower is better)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10"]


def test_a_method_may_lack_a_number_of_seeds():
    table = comparison(["one", "two"]).query("method == 'one' or per_label == 5")
    (axes,) = metric_by_seeds(table).axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 1]


def test_the_legend_names_the_lines_in_the_order_in_which_they_end():
    figure = metric_by_seeds(comparison())
    (axes,) = figure.axes
    ends = {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == sorted(EIGHT, key=ends.get, reverse=True)


# Draw by draw


def test_differences_are_taken_on_the_same_draw():
    table = comparison(numbers=[10])[::-1]  # whatever the order of the rows
    (axes,) = paired_differences(table).axes
    wide = table.pivot(index="seed", columns="method", values="accuracy")
    for name, points in zip(EIGHT[-2::-1], drawn(axes, PathCollection), strict=True):
        want = wide[name] - wide["logistic regression"]
        np.testing.assert_allclose(points.get_offsets()[:, 0], want)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == EIGHT[-2::-1]


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 2), ("log_loss", 1)])
def test_the_note_tells_mean_and_wins(metric, better):
    table = pd.DataFrame(
        {"method": ["A"] * 3 + ["B"] * 3, "seed": [0, 1, 2] * 2, metric: [0.5, 0.5, 0.5, 0.8, 0.6, 0.4]}
    )
    (axes,) = paired_differences(table, metric, "A").axes
    (note,) = axes.texts
    assert note.get_text() == f"+0.100, better in {better} of 3"
    color = BLUE if metric == "accuracy" else ORANGE
    (points,) = drawn(axes, PathCollection)
    assert to_rgba(points.get_facecolors()[0], 1) == to_rgba(color)


def test_differences_beyond_the_edge_are_arrowheads_and_the_others_can_be_told_apart():
    usual = 0.01 * np.sin(np.arange(20))
    far = np.append(usual[:-1], -0.9)
    parts = {"A": np.zeros(20), "B": usual, "C": far}
    table = pd.concat(pd.DataFrame({"method": k, "seed": range(20), "accuracy": v}) for k, v in parts.items())
    (axes,) = paired_differences(table, reference="A").axes
    near, cut = drawn(axes, PathCollection)
    np.testing.assert_allclose(near.get_offsets()[:, 0], usual)
    np.testing.assert_allclose(cut.get_offsets()[:, 0], usual[:-1])
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert arrow.get_xdata()[0] < usual.min()
    assert arrow.get_ydata()[0] == 1
    low, high = axes.get_xlim()
    assert high - low < 5 * np.ptp(usual)
    assert axes.texts[1].get_text() == f"−{-far.mean():.3f}, better in {(far > 0).sum()} of 20"


# What all share


@pytest.mark.parametrize("names", [EIGHT[-2:], EIGHT], ids=["2", "8"])
@pytest.mark.parametrize("kind", ["reliability", "seeds", "pairs"])
def test_no_text_runs_out_of_the_figure_or_into_another(kind, names):
    draw = {
        "reliability": lambda: reliability_diagram({name: bins([90] * 10, np.arange(10) / 10) for name in names}),
        "seeds": lambda: metric_by_seeds(comparison(names)),
        "pairs": lambda: paired_differences(comparison(names, [10])),
    }[kind]
    figure = draw()
    assert min(text.get_fontsize() for text in shown(figure)) >= 8  # 8 points are 10.7 px in the book
    boxes = [box for box in shown(figure).values() if box.width > 1]
    page = figure.bbox
    assert all(b.x0 >= page.x0 - 1 and b.x1 <= page.x1 + 1 and b.y0 >= -1 and b.y1 <= page.y1 + 1 for b in boxes)
    inner = [b.padded(-1) for b in boxes]
    assert not [(i, k) for i, a in enumerate(inner) for k, b in enumerate(inner[:i]) if a.overlaps(b)]


def test_tables_that_cannot_be_drawn_are_refused():
    table = comparison()
    with pytest.raises(InputError, match=r"no column f1; .* Pass what `score_table"):
        paired_differences(table, "f1")
    with pytest.raises(InputError, match="several rows for one method and seed"):
        paired_differences(table)
    with pytest.raises(InputError, match="'LR' is not among the methods"):
        paired_differences(comparison(numbers=[5]), reference="LR")
    with pytest.raises(InputError, match="no column per_label"):
        metric_by_seeds(table.drop(columns="per_label"))
    with pytest.raises(InputError, match="no method to draw"):
        reliability_diagram({})
    with pytest.raises(InputError, match="no column cells"):
        reliability_diagram({"mine": bins([1] * 10, [1] * 10).drop(columns="cells")})
    assert not plt.get_fignums()

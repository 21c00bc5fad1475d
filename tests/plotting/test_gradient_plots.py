"""The figures of chapter 7 show the numbers that they are given, under their names."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import label_factor_plot, label_weight_plot


@pytest.fixture
def factors():
    loss = np.array([100.0, 900.0, 40.0, 2000.0])
    model = ["untrained", "untrained", "fitted", "fitted"]
    return pd.DataFrame({"loss": loss, "factor": [101.0, 901.0, 41.0, 1500.0], "model": model})


@pytest.fixture
def sweep():
    rows = [
        {"weight": w, "accuracy": a + d, "confidence": a - 0.2, "calibration_error": 0.2 / (1 + w)}
        for w, a in ((0.1, 0.5), (1, 0.7), (10, 0.8))
        for d in (-0.01, 0.03)
    ]
    return pd.DataFrame(rows)


def test_each_label_is_a_point_at_one_plus_its_loss_and_its_factor(factors):
    (axes,) = label_factor_plot(factors).axes
    untrained, fitted = axes.collections
    np.testing.assert_allclose(untrained.get_offsets(), [[101, 101], [901, 901]])
    np.testing.assert_allclose(fitted.get_offsets(), [[41, 41], [2001, 1500]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["untrained", "fitted"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_dashed_line_is_where_both_agree(factors):
    (axes,) = label_factor_plot(factors).axes
    (line,) = axes.lines
    np.testing.assert_array_equal(*line.get_data())
    assert line.get_xdata()[0] < 41
    assert line.get_xdata()[1] > 2001
    assert axes.get_xlim() == axes.get_ylim()


def test_a_missing_column_is_named(factors, sweep):
    with pytest.raises(InputError, match="no column model"):
        label_factor_plot(factors.drop(columns="model"))
    with pytest.raises(InputError, match="no column calibration_error"):
        label_weight_plot(sweep.drop(columns="calibration_error"))


def test_the_sweep_draws_a_point_a_fit_and_a_line_through_the_means(sweep):
    left, right = label_weight_plot(sweep).axes
    lines = {line.get_label(): line for line in left.lines}
    np.testing.assert_allclose(lines["accuracy"].get_ydata(), [0.51, 0.71, 0.81])
    np.testing.assert_allclose(lines["accuracy"].get_xdata(), [0.1, 1, 10])
    np.testing.assert_allclose(lines["mean highest probability"].get_ydata(), [0.3, 0.5, 0.6])
    np.testing.assert_allclose(right.lines[0].get_ydata(), sweep.groupby("weight")["calibration_error"].mean())
    points = right.collections[0].get_offsets()
    np.testing.assert_allclose(points, sweep[["weight", "calibration_error"]])
    assert right.get_ylim()[0] == 0


def test_marks_within_the_sweep_are_named_where_they_are_and_others_left_out(sweep):
    right = label_weight_plot(sweep, marks={"theirs": 0.5, "ours": 2.0, "far": 1e4}).axes[1]
    dotted = [line.get_xdata()[0] for line in right.lines if line.get_linestyle() == ":"]
    assert dotted == [0.5, 2.0]
    assert [text.get_text() for text in right.texts] == ["theirs", "ours"]


@pytest.mark.parametrize("kind", ["factor", "sweep"])
def test_figures_leave_the_style_alone_and_fit_the_column(factors, sweep, kind):
    plt.close(plt.figure())
    style = mpl.rcParams.copy()
    figure = label_factor_plot(factors) if kind == "factor" else label_weight_plot(sweep, marks={"ours": 2.0})
    assert mpl.rcParams == style
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x1 <= figure.get_figwidth() + 0.02
    assert figure.get_figwidth() <= 7.2

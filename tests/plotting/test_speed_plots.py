"""The figures of chapter 11 show the times that they are given."""

import numpy as np
import pandas as pd
import pytest

from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import growth_plot, timing_plot


def test_a_bar_reaches_to_the_median_and_each_repeat_is_a_dot():
    table = pd.DataFrame({"slow": [90.0, 110.0, 100.0], "quick": [20.0, 25.0, 60.0]})
    (axes,) = timing_plot(table).axes
    assert [bar.get_width() for bar in axes.patches] == [100, 25]
    np.testing.assert_array_equal([dots.get_offsets()[:, 0] for dots in axes.collections], table.T)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["slow", "quick"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first arm is on top


def test_the_ratio_to_the_first_arm_is_written_beside_the_others():
    (axes,) = timing_plot(pd.DataFrame({"slow": [90.0, 110.0, 100.0], "quick": [20.0, 25.0, 60.0]})).axes
    assert [text.get_text().strip() for text in axes.texts] == ["4.0 × as fast"]


def test_growth_is_drawn_beside_a_line_in_proportion_through_the_last_point():
    table = pd.DataFrame({"stored": [1e6, 1e8, 1e7], "seconds": [2.0, 100.0, 11.0], "held_mb": [50.0, 400.0, 90.0]})
    seconds, memory = growth_plot(table).axes
    for axes, last in ((seconds, 100), (memory, 400)):
        found, line = axes.lines
        np.testing.assert_array_equal(found.get_xdata(), [1e6, 1e7, 1e8])
        np.testing.assert_allclose(line.get_ydata(), [last / 100, last / 10, last])
        assert axes.get_xscale() == axes.get_yscale() == "log"


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(InputError, match="held_mb"):
        growth_plot(pd.DataFrame({"stored": [1.0], "seconds": [1.0]}))

"""Figures say what the data say: colors, positions and numbers are read back from what was drawn."""

import io
import itertools
import os
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb, to_rgba

from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import (
    confusion_plot,
    count_table_plot,
    figure6,
    history_plot,
    library_size_plot,
    mean_variance_plot,
    palette,
    predictive_plot,
    probability_plot,
    seed_purity_plot,
    umap,
)
from scanvi_tutorial.plotting.style import number_table, palette_of, sheet

TEN = [f"type {i}" for i in range(10)]


def make_cells(types=4, each=25, seed=0):
    """Return cells of several types that lie apart in latent space; the first three of each type are seeds."""
    rng = np.random.default_rng(seed)
    names = TEN[:types]
    truth = rng.permutation(np.repeat(np.arange(types), each))
    order = pd.Series(truth).groupby(truth).cumcount().to_numpy()
    label = np.where(order < 3, np.array(names)[truth], "Unknown")
    counts = sp.csr_matrix(rng.negative_binomial(2, 0.4, (len(truth), 30)).astype(np.float32))
    cells = AnnData(
        counts,
        obs=pd.DataFrame(
            {
                "truth": pd.Categorical.from_codes(truth, names),
                "label": pd.Categorical(label, categories=[*names, "Unknown"]),
            },
            index=[f"cell{i}" for i in range(len(truth))],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(30)]),
        uns={"markers": {names[0]: {"positive": ["gene7", "gene3"], "negative": ["gene1"]}}},
    )
    cells.obsm["X_scanvi"] = rng.normal(size=(len(truth), 5)) + 8 * np.eye(10)[truth][:, :5] + truth[:, None]
    share = rng.dirichlet(np.ones(types), len(truth))
    cells.obsm["scanvi_probabilities"] = pd.DataFrame(share, index=cells.obs_names, columns=names)
    return cells


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture
def where(cells):
    """Stand in for a UMAP, so that most tests don't wait for one."""
    return np.random.default_rng(5).normal(size=(cells.n_obs, 2))


@pytest.fixture(scope="module")
def sixth():
    """Draw Figure 6 once, for tests that only look at it: cells, their places, panels by title, the figure."""
    cells = make_cells()
    where = np.random.default_rng(5).normal(size=(cells.n_obs, 2))
    figure = figure6(cells, coordinates=where)
    return cells, where, panels(figure), figure


@pytest.fixture(scope="module")
def crowd():
    """Draw Figure 6 of 20,000 cells."""
    cells = make_cells(each=5_000)
    return figure6(cells, coordinates=np.random.default_rng(0).normal(size=(cells.n_obs, 2)))


@pytest.fixture(scope="module")
def maps():
    """Make three maps, two of them with one seed, once: numba compiles the first."""
    cells = make_cells()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator must stay as it is
    made = [umap(cells, seed=seed) for seed in (0, 0, 1)]
    return cells, made, (state == np.random.get_state()[1]).all()  # noqa: NPY002


def panels(figure):
    return {axes.get_title(loc="left").replace("\n", " "): axes for axes in figure.axes}


def points(axes):
    """Return the collections of points, with positions (n, 2), colors (n, 4) and areas."""
    drawn = [c for c in axes.collections if isinstance(c, PathCollection)]
    return [(np.asarray(c.get_offsets()), c.get_facecolors(), c.get_sizes()) for c in drawn]


def rows_of(xy, offsets):
    """Return which cell each drawn point is, by its position."""
    return np.array([np.flatnonzero((xy == p).all(1)).item() for p in offsets])


# One color a type

# Machado, Oliveira, Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def as_seen(color, matrix):
    """Return a color in CIE Lab, D65, as seen through a deficiency."""
    c = np.array(to_rgb(color))
    linear = np.clip(np.array(matrix) @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    t = np.array(to_xyz) @ linear / [0.9505, 1, 1.0888]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colors, matrix):
    """Return the smallest distance (Delta E 1976) between two of the colors."""
    seen = [as_seen(color, matrix) for color in colors]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_ten_types_and_unknown_stay_apart_with_any_color_vision(deficiency):
    matrix = DEFICIENCIES[deficiency]
    assert closest(palette([*TEN, "Unknown"]).values(), matrix) > 13
    assert closest(palette([*TEN[:4], "Unknown"]).values(), matrix) > 20


def test_the_color_check_can_fail():
    """Matplotlib's default colors come closer for a deuteranope than any two of ours do for anybody."""
    assert closest(mpl.color_sequences["tab10"], DEFICIENCIES["deuteranopia"]) < 8


def test_a_type_has_the_color_of_its_place_and_unknown_takes_none():
    assert palette(["a", "Unknown", "b"]) == {**palette(["a", "b"]), "Unknown": "#d3d3d3"}
    assert palette(TEN)["type 3"] == palette(TEN[:4])["type 3"]


def test_thirty_types_have_thirty_colors():
    assert len(set(palette(map(str, range(30))).values())) == 30
    with pytest.raises(InputError, match="30 types, not for 31"):
        palette(map(str, range(31)))
    with pytest.raises(InputError, match="named twice"):
        palette(["a", "a"])


def test_a_type_without_cells_keeps_its_color_for_the_others(cells):
    some = cells[cells.obs["truth"] != "type 1"].copy()  # anndata drops the category
    some.obs["truth"] = some.obs["truth"].cat.set_categories(TEN[:4])
    assert palette_of(some, "truth", "label")["type 2"] == palette_of(cells, "truth", "label")["type 2"]


def test_text_is_readable_on_any_shade():
    def as_luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    table = pd.DataFrame(1, range(100), ["share"])
    axes = plt.figure().subplots()
    mesh = number_table(axes, table, np.linspace(0, 1, 100)[:, None])
    for shade, text in zip(mesh.to_rgba(mesh.get_array()).reshape(100, 4), axes.texts, strict=True):
        dark, light = sorted(as_luminance(c) for c in (shade, text.get_color()))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# UMAP


def test_equal_seeds_give_equal_maps_and_others_do_not(maps):
    _, (first, again, other), _ = maps
    assert first.shape == (100, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_umap_changes_neither_the_cells_nor_the_global_generator(maps):
    cells, _, generator_untouched = maps
    assert generator_untouched
    assert set(cells.obsm) == {"X_scanvi", "scanvi_probabilities"}
    assert not cells.obsp
    assert set(cells.uns) == {"markers"}


def test_umap_keeps_near_cells_near(maps):
    """Types lie apart in latent space, so most of a cell's neighbors on the map are of its type."""
    cells, (xy, *_), _ = maps
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    nearest = distance.argsort(1)[:, 1:6]
    codes = cells.obs["truth"].cat.codes.to_numpy()
    assert (codes[nearest] == codes[:, None]).mean() > 0.9


def test_umap_says_where_latent_means_come_from(cells):
    del cells.obsm["X_scanvi"]
    with pytest.raises(InputError, match=r"obsm\[.X_scanvi.\] is missing.*st\.latent\(model, adata\)"):
        umap(cells)


def test_umap_refuses_what_it_cannot_map(cells):
    with pytest.raises(InputError, match="at least 10 cells, and there are 9"):
        umap(cells[:9])
    cells.obsm["X_scanvi"][4, 2] = np.nan
    with pytest.raises(InputError, match="not finite, first in cell 'cell4'"):
        umap(cells)


# Figure 6


def test_figure6_draws_its_own_map(maps):
    cells, (xy, *_), _ = maps
    ((offsets, *_),) = points(panels(figure6(cells))["type 0"])
    assert {tuple(p) for p in offsets} == {tuple(p) for p in xy.astype(float)}


def test_each_type_has_a_panel_colored_by_its_own_probability(sixth):
    cells, where, shown, _ = sixth
    for name in TEN[:4]:
        (drawn,) = [c for c in shown[name].collections if isinstance(c, PathCollection)]
        cell = rows_of(where, drawn.get_offsets())
        np.testing.assert_array_equal(drawn.get_array(), cells.obsm["scanvi_probabilities"][name].to_numpy()[cell])
        assert drawn.get_clim() == (0, 1)


def test_the_most_probable_cells_lie_on_top(sixth):
    for name in TEN[:4]:
        (drawn,) = sixth[2][name].collections
        assert (np.diff(drawn.get_array()) >= 0).all()


def test_color_of_probability_darkens_evenly(sixth):
    """Equal steps of probability are near-equal steps of lightness (CIE L*), from light to dark."""
    (drawn,) = sixth[2]["type 0"].collections
    steps = np.diff([as_seen(drawn.cmap(p)[:3], np.eye(3))[0] for p in np.linspace(0, 1, 11)])
    assert (steps < 0).all()
    assert steps.min() / steps.max() < 2


def test_seeds_are_larger_and_carry_their_color_while_others_are_gray(sixth):
    cells, where, shown, _ = sixth
    (gray, gray_color, small), (seeds, color, large) = points(shown["Seed labels"])
    labeled = np.flatnonzero(cells.obs["label"] != "Unknown")
    assert large.min() > 2 * small.max()
    assert set(rows_of(where, seeds)) == set(labeled)
    assert len(gray) == cells.n_obs - len(labeled)
    assert to_hex(gray_color[0]) == palette(["Unknown"])["Unknown"]
    want = [to_rgba(palette(TEN[:4])[name]) for name in cells.obs["label"].iloc[rows_of(where, seeds)]]
    np.testing.assert_allclose(color, want)


def test_truth_has_the_colors_of_the_seeds_and_every_cell(sixth):
    cells, where, shown, _ = sixth
    ((offsets, color, _),) = points(shown["True types"])
    cell = rows_of(where, offsets)
    assert sorted(cell) == list(range(cells.n_obs))
    np.testing.assert_allclose(color, [to_rgba(palette(TEN[:4])[name]) for name in cells.obs["truth"].iloc[cell]])


def test_legend_names_every_type_with_its_color(sixth):
    (legend,) = [axes.get_legend() for axes in sixth[3].axes if axes.get_legend()]
    named = {t.get_text(): mark.get_color() for t, mark in zip(legend.get_texts(), legend.legend_handles, strict=True)}
    assert named == {**palette(TEN[:4]), "no seed label": palette(["Unknown"])["Unknown"]}


def test_without_truth_its_panel_is_left_out(cells, where):
    del cells.obs["truth"]
    titles = set(panels(figure6(cells, coordinates=where)))
    assert titles - {""} == {"Seed labels", *TEN[:4]}


def test_cells_of_unknown_truth_are_gray(cells, where):
    cells.obs.loc["cell5", "truth"] = np.nan
    ((offsets, color, _),) = points(panels(figure6(cells, coordinates=where))["True types"])
    assert to_hex(color[rows_of(where, offsets) == 5][0]) == palette(["Unknown"])["Unknown"]


def test_a_type_without_seeds_is_drawn_where_the_truth_has_it(cells, where):
    label = cells.obs["label"].astype(str).replace("type 2", "Unknown")
    cells.obs["label"] = pd.Categorical(label, categories=[*TEN[:4], "Unknown"])
    cells.obsm["scanvi_probabilities"] = cells.obsm["scanvi_probabilities"].drop(columns="type 2")
    figure = figure6(cells, coordinates=where)
    assert set(panels(figure)) - {""} == {"Seed labels", "True types", "type 0", "type 1", "type 3"}
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert "type 2" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("types", [2, 5, 10])
def test_panels_do_not_overlap_and_stay_on_the_sheet(types):
    cells = make_cells(types, each=12)
    figure = figure6(cells, coordinates=np.random.default_rng(0).normal(size=(cells.n_obs, 2)))
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    assert len(boxes) == types + 3  # seeds, truth, color bar
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1))
    for box in boxes:
        assert box.x0 >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y0 >= -1
        assert box.y1 <= figure.bbox.height + 1


def test_markers_shrink_as_cells_grow_in_number(sixth, crowd):
    few, many = (axes["type 0"].collections[0].get_sizes()[0] for axes in (sixth[2], panels(crowd)))
    assert few > 4 * many


def test_many_cells_stay_a_small_picture(crowd):
    with io.BytesIO() as file:
        crowd.savefig(file, format="svg")
        assert file.tell() < 2_000_000  # 20,000 cells in six panels; a mark each would be over 10 MB


def test_figure6_leaves_the_cells_alone(sixth, cells):
    before, cells = cells, sixth[0]  # made alike; one of them was drawn
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    pd.testing.assert_frame_equal(cells.obsm["scanvi_probabilities"], before.obsm["scanvi_probabilities"])
    assert set(cells.obsm) == set(before.obsm)
    assert set(cells.uns) == set(before.uns)


def test_figure6_says_which_function_makes_what_it_lacks(cells, where):
    table = cells.obsm.pop("scanvi_probabilities")
    with pytest.raises(InputError, match=r"is missing.*st\.label_probabilities\(model, adata\)"):
        figure6(cells, coordinates=where)
    cells.obsm["scanvi_probabilities"] = table.to_numpy()
    with pytest.raises(InputError, match=r"of type ndarray.*st\.label_probabilities"):
        figure6(cells, coordinates=where)
    cells.obsm["scanvi_probabilities"] = table
    with pytest.raises(InputError, match=r"shape \(100, 2\), not \(99, 2\)"):
        figure6(cells, coordinates=where[1:])
    del cells.obsm["X_scanvi"]
    with pytest.raises(InputError, match=r"st\.latent\(model, adata\)"):
        figure6(cells)
    with pytest.raises(InputError, match="no column 'labels'"):
        figure6(cells, labels_key="labels", coordinates=where)


# Counts


def test_count_table_writes_the_counts_that_it_shades(cells):
    (axes,) = count_table_plot(cells).axes
    rows = [int(tick.get_text().rpartition(" ")[2]) for tick in axes.get_yticklabels()]
    genes = [tick.get_text() for tick in axes.get_xticklabels()]
    written = np.array([int(text.get_text()) for text in axes.texts]).reshape(10, 14)
    np.testing.assert_array_equal(written, cells[rows, genes].X.toarray())
    (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    shade = np.ma.filled(mesh.get_array(), 0).reshape(10, 14)
    assert (np.diff(shade.ravel()[written.ravel().argsort(kind="stable")]) >= 0).all()
    assert (shade[written == 0] == 0).all()


def test_count_table_takes_cells_of_every_type_and_markers_first(cells):
    (axes,) = count_table_plot(cells).axes
    types = [tick.get_text().partition(" ·")[0] for tick in axes.get_yticklabels()]
    assert types == sorted(types)
    assert sorted(map(types.count, TEN[:4])) == [2, 2, 3, 3]
    genes = [tick.get_text() for tick in axes.get_xticklabels()]
    assert genes[:2] == ["gene7", "gene3"]
    detected = pd.Series(np.asarray((cells.X > 0).sum(0)).ravel(), cells.var_names)
    assert (detected[genes[2:]].diff().dropna() <= 0).all()
    assert detected[genes[2:]].min() >= detected.drop(genes).max()


def test_library_sizes_are_counted_type_by_type(cells):
    (axes,) = library_size_plot(cells).axes
    totals = np.asarray(cells.X.sum(1)).ravel()
    heights = {to_hex(patch.get_facecolor()): patch.get_data() for patch in axes.patches}
    for name, color in palette(TEN[:4]).items():
        height, edges, base = heights[color]
        counts = np.histogram(totals[cells.obs["truth"] == name], edges)[0]
        np.testing.assert_allclose((height - base) / (height - base).max(), counts / counts.max())
        assert counts.sum() == 25
    assert {tick.get_text() for tick in axes.get_yticklabels()} == {f"{name} (25)" for name in TEN[:4]}
    medians = {round(line.get_xdata()[0], 3) for line in axes.lines}
    assert medians == {round(float(np.median(totals[cells.obs["truth"] == name])), 3) for name in TEN[:4]}


def test_library_sizes_of_cells_without_types_make_one_row(cells):
    del cells.obs["truth"]
    (axes,) = library_size_plot(cells).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["all cells (100)"]


def test_the_dispersion_written_beside_the_line_is_that_of_the_counts():
    rng = np.random.default_rng(0)
    theta, mean = 2.0, rng.uniform(1, 20, 300)
    counts = rng.negative_binomial(theta, theta / (theta + mean), (4_000, 300))
    (axes,) = mean_variance_plot(AnnData(sp.csr_matrix(counts, dtype=np.float32))).axes
    (text,) = [t.get_text() for t in axes.get_legend().get_texts() if "θ =" in t.get_text()]
    assert float(text.rpartition("= ")[2]) == pytest.approx(theta, abs=0.11)
    drawn = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(drawn, np.stack([counts.mean(0), counts.var(0)], 1), rtol=1e-6)


def test_poisson_counts_get_no_visible_overdispersion():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(1, 20, 200), (3_000, 200))
    (axes,) = mean_variance_plot(AnnData(sp.csr_matrix(counts, dtype=np.float32))).axes
    poisson, negative_binomial = axes.lines
    np.testing.assert_allclose(negative_binomial.get_ydata(), poisson.get_ydata(), rtol=0.1)


def test_purity_bars_are_cut_by_true_type(cells):
    label = cells.obs["label"].astype(str).to_numpy(dtype=object)
    seed = np.flatnonzero(label == "type 0")[0]
    label[seed] = "type 1"  # a seed of type 1 that is truly of type 0
    cells.obs["label"] = pd.Categorical(label, categories=[*TEN[:4], "Unknown"])
    (axes,) = seed_purity_plot(cells).axes
    texts = [tick.get_text() for tick in axes.get_yticklabels()]
    assert texts == ["type 0: 2 of 2 right", "type 1: 3 of 4 right", "type 2: 3 of 3 right", "type 3: 3 of 3 right"]
    row = [(p.get_x(), p.get_width(), to_hex(p.get_facecolor())) for p in axes.patches if round(p.get_y() + 0.35) == 1]
    colors = palette(TEN[:4])
    assert [bar for bar in row if bar[1]] == [(0, 3, colors["type 1"]), (3, 1, colors["type 0"])]


def test_purity_needs_a_truth(cells):
    del cells.obs["truth"]
    with pytest.raises(InputError, match=r"no column 'truth' in adata\.obs.*label"):
        seed_purity_plot(cells)


# Fits


@pytest.fixture
def history():
    epoch = np.arange(40)
    fall = np.exp(-epoch / 5)
    frame = pd.DataFrame(
        {
            "bound_train": -300 - 5_000 * fall,
            "bound_held_out": -310 - 5_000 * fall,
            "kl_z": 9 - 9 * fall,
            "kl_l": 1 + fall,
            "kl_y": 0.5 + fall,
            "cross_entropy": 2 * fall,
            "learning_rate": 3e-3 * np.sin(np.pi * (epoch + 1) / 41),
            "kl_weight": np.minimum(1, (epoch + 1) / 20),
        },
        index=pd.RangeIndex(40, name="epoch"),
    )
    frame.attrs["best_epoch"] = 31
    return frame


def curves(axes):
    return {line.get_label(): line for line in axes.lines}


def test_history_draws_every_column_under_its_name(history):
    bound, kl, label, schedule = history_plot(history).axes
    for axes, name, column in (
        (bound, "training cells", "bound_train"),
        (bound, "held-out cells", "bound_held_out"),
        (kl, "$z_1$ and $z_2$", "kl_z"),
        (kl, r"$\ell$", "kl_l"),
        (kl, "$y$", "kl_y"),
        (schedule, "weight of the KL terms", "kl_weight"),
    ):
        np.testing.assert_array_equal(curves(axes)[name].get_ydata(), history[column])
        assert name in [text.get_text() for text in axes.get_legend().get_texts()]
    np.testing.assert_array_equal(label.lines[0].get_ydata(), history["cross_entropy"])
    assert label.get_yscale() == "log"
    rate = curves(schedule)["learning rate / 0.003"].get_ydata()
    np.testing.assert_allclose(rate * history["learning_rate"].max(), history["learning_rate"])


def test_history_of_a_fit_that_saw_no_label_has_no_panel_for_them(history):
    bound, kl, schedule = history_plot(history.drop(columns="cross_entropy")).axes
    assert [axes.get_title("left").split(" (")[0] for axes in (bound, kl, schedule)] == [
        "Bound",
        "KL terms, held-out cells",
        "Schedule",
    ]
    assert "kept: epoch 31" in [text.get_text() for text in schedule.texts]
    assert schedule.get_xlabel() == "epoch"


def test_history_marks_the_best_epoch(history):
    def marked(figure):
        return {line.get_xdata()[0] for axes in figure.axes for line in axes.lines if line.get_linestyle() == ":"}

    assert marked(history_plot(history)) == {31}
    assert marked(history_plot(history, best_epoch=4)) == {4}
    history.attrs.clear()
    assert marked(history_plot(history)) == set()


def test_history_does_not_let_the_first_epochs_hide_the_rest(history):
    low, high = history_plot(history).axes[0].get_ylim()
    assert low > history["bound_train"].iloc[0]
    assert high > history["bound_train"].max()


def test_history_shows_a_run_that_falls_apart(history):
    history.loc[35:, "bound_held_out"] = -9_000
    assert history_plot(history).axes[0].get_ylim()[0] < -9_000


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_history_survives_numbers_that_are_not_finite(history, value):
    history.loc[:, ["bound_train", "bound_held_out"]] = value
    history_plot(history)


def test_history_of_one_epoch_is_drawn(history):
    history_plot(history[:1], best_epoch=0)


def test_history_names_a_missing_column(history):
    with pytest.raises(InputError, match=r"no column kl_y; .* Pass history\.frame"):
        history_plot(history.drop(columns="kl_y"))


@pytest.fixture
def check():
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.5, 2, 50)
    table = {"observed_mean": mean, "predicted_mean": mean * 1.1, "observed_zeros": np.exp(-mean)}
    return pd.DataFrame({**table, "predicted_zeros": np.exp(-1.1 * mean)})


def test_predictive_plot_puts_prediction_over_observation(check):
    means, zeros = predictive_plot(check).axes
    for axes, what in ((means, "mean"), (zeros, "zeros")):
        want = check[[f"observed_{what}", f"predicted_{what}"]].to_numpy()
        np.testing.assert_allclose(axes.collections[0].get_offsets(), want)
    assert means.get_xlim() == means.get_ylim()


def test_predictive_plot_leaves_silent_genes_off_the_logarithmic_panel(check):
    check.loc[0, "predicted_mean"] = 0
    means, zeros = predictive_plot(check).axes
    assert len(means.collections[0].get_offsets()) == 49
    assert len(zeros.collections[0].get_offsets()) == 50


def test_predictive_plot_names_missing_columns(check):
    with pytest.raises(InputError, match="no column observed_zeros, predicted_zeros"):
        predictive_plot(check[["observed_mean", "predicted_mean"]])


def test_probability_bars_count_right_and_wrong_cells():
    p = pd.DataFrame({"a": [0.9, 0.9, 0.2, 0.55], "b": [0.1, 0.1, 0.8, 0.45]})
    axes, shares = probability_plot(p, pd.Categorical(["a", "b", "b", "b"])).axes
    right, wrong = (np.array([bar.get_height() for bar in group]) for group in axes.containers)
    edges = np.array([bar.get_x() for bar in axes.containers[0]])
    assert (right.sum(), wrong.sum()) == (2, 2)
    assert wrong[np.searchsorted(edges, 0.55, side="right") - 1] == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["right (50% of the cells)", "wrong (50%)"]
    found = {round(bar.get_x() + 0.05, 2): bar.get_height() for bar in shares.patches}
    assert found == {0.55: 1, 0.85: 0, 0.95: 0.5}
    assert [text.get_text() for text in shares.texts] == ["1", "1", "2"]


def test_probability_plot_works_without_truth_and_refuses_another_length():
    p = pd.DataFrame({"a": [0.9, 0.4], "b": [0.1, 0.6]})
    (axes,) = probability_plot(p).axes
    assert sum(bar.get_height() for bar in axes.patches) == 2
    with pytest.raises(InputError, match="2 rows of probabilities and 3 true types"):
        probability_plot(p, ["a", "b", "a"])


def test_confusion_writes_cells_and_shades_shares_of_the_row():
    table = pd.DataFrame([[6, 2], [0, 0]], index=["a", "b"], columns=["a", "b"])
    axes = confusion_plot(table).axes[0]
    assert [text.get_text() for text in axes.texts] == ["6", "2", "0", "0"]
    np.testing.assert_allclose(axes.collections[0].get_array().reshape(2, 2), [[0.75, 0.25], [0, 0]])
    assert axes.yaxis_inverted()  # the first type on top, as in the table
    assert axes.get_ylabel() == "true type"


def test_probability_bars_know_types_that_are_numbers():
    p = pd.DataFrame({"1": [0.9, 0.2, 0.6], "2": [0.1, 0.8, 0.4]})
    for truth in ([1, 2, 2], [1.0, 2.0, 2.0], pd.Categorical([1.0, 2.0, 2.0])):
        axes, _ = probability_plot(p, truth).axes
        assert axes.get_legend().get_texts()[0].get_text() == "right (67% of the cells)"


# Every figure

FIGURES = {
    "count table": lambda cells: count_table_plot(cells),
    "library sizes": lambda cells: library_size_plot(cells),
    "mean and variance": lambda cells: mean_variance_plot(cells),
    "seed purity": lambda cells: seed_purity_plot(cells),
    "probabilities": lambda cells: probability_plot(cells.obsm["scanvi_probabilities"]),
    "confusion": lambda cells: confusion_plot(pd.crosstab(cells.obs["truth"], cells.obs["truth"])),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_leave_style_and_cells_as_they_were(name, cells):
    plt.close(plt.figure())  # with its first figure pyplot settles for a backend, which is a parameter too
    style, before = mpl.rcParams.copy(), cells.copy()
    figure = FIGURES[name](cells)
    assert mpl.rcParams == style
    assert plt.get_fignums() == [figure.number]  # where a notebook looks for what to show
    assert figure.get_figwidth() <= 7.2  # the text column
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert (cells.X != before.X).nnz == 0


def test_a_backend_that_starts_with_the_first_figure_stays_interactive(cells, monkeypatch):
    """So a notebook starts its own; switched off again, it would show no further figure."""

    def start_and_make(*args, make=plt.figure, **kwargs):
        plt.ion()
        return make(*args, **kwargs)

    monkeypatch.setattr(plt, "figure", start_and_make)
    library_size_plot(cells)
    assert plt.isinteractive()
    plt.ioff()


@pytest.mark.parametrize("name", FIGURES)
def test_text_of_figures_is_readable_and_on_the_sheet(name, cells):
    figure = FIGURES[name](cells)
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_visible() and t.get_text()]
    assert min(t.get_fontsize() for t in texts) >= 8  # 8 points are 10.7 px in the book
    figure.draw_without_rendering()  # as saving does: what the first layout changed is laid out again
    box = figure.get_tightbbox()  # inches
    assert box.x0 >= -0.02
    assert box.x1 <= figure.get_figwidth() + 0.02
    assert box.y1 <= figure.get_figheight() + 0.02


@pytest.mark.parametrize("dtype", [int, float, "category"])
def test_types_that_are_numbers_have_one_color_and_count_as_right(cells, where, dtype):
    number = {name: i for i, name in enumerate(TEN[:4])}
    cells.obs["label"] = cells.obs["label"].astype(object).map({**number, "Unknown": -1})
    cells.obs["truth"] = cells.obs["truth"].astype(object).map(number).astype(float).astype(dtype)
    cells.obsm["scanvi_probabilities"] = cells.obsm["scanvi_probabilities"].rename(columns=lambda name: name[-1])
    colors = palette("0123")
    assert palette_of(cells, "truth") == colors
    assert palette([0.0, 1.0, 2.0, 3.0]) == colors
    (legend,) = [axes.get_legend() for axes in figure6(cells, coordinates=where).axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [*"0123", "no seed label"]
    (axes,) = seed_purity_plot(cells).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"{i}: 3 of 3 right" for i in range(4)]
    (axes,) = library_size_plot(cells).axes
    assert {tick.get_text() for tick in axes.get_yticklabels()} == {f"{i} (25)" for i in range(4)}


def test_a_figure_that_fails_is_closed():
    with pytest.raises(ValueError, match="nonsense"), sheet() as figure:
        figure.subplots().set_xscale("nonsense")
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_map_leaves_the_number_of_threads_as_it_was():
    """Numba raises it for the whole process, and a fit on other threads differs in its last digits."""
    program = (
        "import numpy as np, torch; from anndata import AnnData; from scanvi_tutorial.plotting import umap;"
        "cells = AnnData(obsm={'X_scanvi': np.random.default_rng(0).normal(size=(40, 3))}, shape=(40, 0));"
        "umap(cells); print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.strip() == "1"

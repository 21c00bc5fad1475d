"""Names are drawn as they are, whatever signs are in them, and under any settings that the reader has made."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook
from matplotlib.text import Text

from scanvi_tutorial import plotting
from scanvi_tutorial.data import load
from scanvi_tutorial.evaluation import METRICS
from scanvi_tutorial.plotting import cell_probe, figure6, history_plot, predictive_plot, probability_plot
from scanvi_tutorial.plotting.style import panel, shown

NAMES = [
    "$x_1$ and $\\frac$",
    "_first_",
    "CD4^{+} 50 % \\alpha #~&",
    "NK–like — cell‑type −\u2009\u00a0\u3000x",
    "a\tvery long name of a natural killer cell, CD56-bright, of the blood",
]
HOSTILE = {
    "text.usetex": True,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "axes.formatter.use_mathtext": True,
    "axes.spines.top": True,
    "figure.dpi": 37,
    "figure.edgecolor": "red",
    "figure.frameon": False,
    "figure.constrained_layout.w_pad": 0.5,
    "savefig.facecolor": "black",
    "font.size": 27,
    "font.family": "serif",
    "font.sans-serif": ["DejaVu Serif"],
    "legend.frameon": True,
    "xtick.bottom": False,
}


@pytest.fixture(scope="module")
def cells():
    made = load("simulated", cells=100, genes=30, per_label=5)
    names = dict(zip(made.obs["truth"].cat.categories, NAMES, strict=False))
    names |= {"Unknown": "Unknown"}
    made.obs["truth"] = made.obs["truth"].cat.rename_categories(lambda name: names[name])
    made.obs["label"] = made.obs["label"].astype(str).map(names)
    # a fifth type, so that all names are there
    for column in ("truth", "label"):
        made.obs[column] = made.obs[column].astype(object)
        made.obs.iloc[:4, made.obs.columns.get_loc(column)] = NAMES[4]
        made.obs[column] = made.obs[column].astype("category")
    share = np.random.default_rng(0).dirichlet(np.ones(len(NAMES)), made.n_obs)
    made.obsm["scanvi_probabilities"] = pd.DataFrame(share, made.obs_names, NAMES)
    return made


def scores(rows):
    rng = np.random.default_rng(0)
    table = [{"method": name, "seed": seed, "per_label": n} for name in NAMES for seed in range(2) for n in rows]
    return pd.DataFrame(table).assign(**{metric: rng.random(len(table)) for metric in METRICS})


def bins():
    part = pd.IntervalIndex.from_breaks([0, 0.5, 1])
    return pd.DataFrame({"confidence": [0.3, 0.8], "accuracy": [0.2, 0.9], "cells": [10, 30]}, part)


def ranks():
    return pd.DataFrame(np.random.default_rng(0).integers(10, size=(50, 2)), columns=NAMES[:2])


def history():
    steps = pd.RangeIndex(1, 5, name="epoch")
    table = pd.DataFrame({name: [-3e-3, -2e-3, -1e-3, -5e-4] for name in ("bound_train", "bound_held_out")}, steps)
    rest = "kl_z", "kl_l", "kl_y", "cross_entropy", "learning_rate", "kl_weight"
    return table.assign(**{name: [3.0, 1.0, 0.1, 0.001] for name in rest})


def genes():
    values = [0.01, 1.0, 100.0]
    columns = "observed_mean", "predicted_mean", "observed_zeros", "predicted_zeros"
    return pd.DataFrame(dict.fromkeys(columns, values))


GROWTH = pd.DataFrame({"stored": [1e6, 1e8], "seconds": [2.0, 100.0], "held_mb": [50.0, 400.0]})
WEIGHTS = pd.DataFrame({name: [0.1, 10.0] for name in ("weight", "accuracy", "confidence", "calibration_error")})
COVERAGE = pd.DataFrame({"dataset": NAMES, "per_label": 10, "asked": 0.9, "found": 0.8})
NATS = pd.Series([2.0, -1.0], [NAMES[0], "gene"])
FACTORS = pd.DataFrame({"loss": np.arange(5.0), "factor": np.arange(1.0, 6), "model": NAMES})
FIGURES = {  # a figure, and the names that stand in it
    "count_table_plot": (plotting.count_table_plot, NAMES),
    "library_size_plot": (plotting.library_size_plot, NAMES),
    "mean_variance_plot": (plotting.mean_variance_plot, []),
    "seed_purity_plot": (plotting.seed_purity_plot, NAMES * 2),
    "figure6": (lambda cells: figure6(cells, coordinates=places(cells)), NAMES * 2),
    "probability_plot": (lambda cells: probability_plot(cells.obsm["scanvi_probabilities"], cells.obs["truth"]), []),
    "confusion_plot": (lambda _: plotting.confusion_plot(pd.DataFrame(np.eye(5), NAMES, NAMES)), NAMES * 2),
    "label_factor_plot": (lambda _: plotting.label_factor_plot(FACTORS), NAMES),
    "label_weight_plot": (
        lambda _: plotting.label_weight_plot(WEIGHTS, marks=dict.fromkeys(NAMES[:1], 1.0)),
        NAMES[:1],
    ),
    "history_plot": (lambda _: history_plot(history(), best_epoch=3), []),
    "predictive_plot": (lambda _: predictive_plot(genes()), []),
    "metric_by_seeds": (lambda _: plotting.metric_by_seeds(scores([5, 10])), NAMES),
    "paired_differences": (lambda _: plotting.paired_differences(scores([5]), reference=NAMES[0]), NAMES[1:]),
    "timing_plot": (lambda _: plotting.timing_plot(pd.DataFrame({name: [2.0, 3.0] for name in NAMES})), NAMES),
    "growth_plot": (lambda _: plotting.growth_plot(GROWTH), []),
    "reliability_diagram": (lambda _: plotting.reliability_diagram(dict.fromkeys(NAMES, bins())), NAMES),
    "coverage_plot": (lambda _: plotting.coverage_plot(COVERAGE), NAMES),
    "evidence_plot": (lambda _: plotting.evidence_plot(NATS, names=("A", "B")), NAMES[:1]),
    "rank_plot": (lambda _: plotting.rank_plot(dict.fromkeys(NAMES[:3], ranks()), 9), NAMES[:3] + NAMES[:2]),
}


def places(cells):
    return np.random.default_rng(1).normal(size=(cells.n_obs, 2))


def texts(figure):
    """Return all that was drawn, each in plain blanks; what Matplotlib would take for mathematics is left out."""
    figure.draw_without_rendering()
    drawn = (text for text in figure.findobj(Text) if text.get_visible() and text.get_text())
    words = (text.get_text() for text in drawn if not cbook.is_math_text(text.get_text()))
    return sorted(plain(text).replace(r"\$", "$") for text in words)


def plain(name):
    return "".join(name.split())


def pixels(figure):
    figure.savefig(file := io.BytesIO(), format="png", dpi=60)
    return file.getvalue()


def test_all_figures_are_looked_at():
    assert set(plotting.__all__) - {"Probe", "cell_probe", "palette", "umap"} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_drawn_as_they_are(name, cells):
    make, names = FIGURES[name]
    found = "\n".join(texts(make(cells)))
    for wanted in set(names):
        assert found.count(plain(wanted)) >= names.count(wanted)


@pytest.mark.parametrize("name", FIGURES)
def test_settings_of_the_reader_change_no_figure_and_stay(name, cells):
    make, _ = FIGURES[name]
    ours = pixels(make(cells))
    with plt.style.context(["dark_background", HOSTILE]):
        before = mpl.rcParams.copy()
        theirs = pixels(make(cells))
        assert mpl.rcParams == before
        assert theirs == ours


def test_what_is_longer_than_its_lines_is_cut():
    assert shown("x" * 100, 10, lines=2) == "x" * 10 + "\n" + "x" * 9 + "…"


# Names in files


@pytest.fixture
def slashed(cells):
    """Return cells whose table bears other names than the answer has: files take no slash."""
    made = cells.copy()
    for column in ("truth", "label"):
        made.obs[column] = made.obs[column].cat.rename_categories({NAMES[0]: "CD4/CD8"})
    names = ["CD4/CD8", *NAMES[1:]]
    made.obsm["scanvi_probabilities"].columns = [name.replace("/", "|") for name in names]
    made.uns["scanvi"] = {"label_names": np.array(names, dtype=object)}
    return made


def test_figure6_and_the_probe_show_the_names_of_the_answer(slashed):
    found = texts(figure6(slashed, coordinates=places(slashed)))
    assert found.count("CD4/CD8") == 2
    page = cell_probe(slashed, coordinates=places(slashed)).html
    assert "CD4/CD8" in page
    assert "CD4|CD8" not in page
    assert "CD4|CD8" in slashed.obsm["scanvi_probabilities"], "the table itself stays as it is"


def test_names_that_cannot_be_those_of_the_table_are_not_shown(slashed):
    slashed.uns["scanvi"] = {"label_names": np.array(["a", "b"], dtype=object)}
    assert "CD4|CD8" in texts(figure6(slashed, coordinates=places(slashed)))


def test_a_type_with_a_slash_is_right_where_the_table_has_it_otherwise():
    p = pd.DataFrame({"CD4|CD8": [0.9, 0.8], "B": [0.1, 0.2]})
    legend = probability_plot(p, ["CD4/CD8", "B"]).axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "right (50% of the cells)"


def test_a_figure_can_be_saved_without_its_white():
    with panel() as axes:
        axes.plot([1, 2])
    axes.figure.savefig(file := io.BytesIO(), transparent=True)
    file.seek(0)
    assert plt.imread(file)[0, 0, 3] == 0

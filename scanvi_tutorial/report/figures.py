"""The figures of a report, each with a caption and an alternative text, as PNG data inside the page."""

from __future__ import annotations

import base64
import io
import warnings
from contextlib import suppress
from itertools import chain

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from scanvi_tutorial.config import NONE_OF_THESE
from scanvi_tutorial.evaluation import confusion, reliability
from scanvi_tutorial.inputs.cells import probabilities_of
from scanvi_tutorial.inputs.errors import InputError, column_of
from scanvi_tutorial.inputs.labels import label_name, means_no_label
from scanvi_tutorial.plotting import confusion_plot, history_plot, palette, probability_plot, reliability_diagram, umap
from scanvi_tutorial.plotting.style import (
    BLUE,
    FAINT,
    INK,
    UNLABELED_COLOR,
    book_style,
    panel,
    probability_cmap,
    sheet,
    shown,
)

_MOST_COLORS = 30  # of `palette`; rarer labels share gray
_DPI = 140
_LONGEST = 32  # letters of a name in a figure; the table of the page has the whole


def held_out_of(adata: AnnData) -> tuple[pd.Series, pd.DataFrame]:
    """Return the hidden labels, (seeds,), and their probabilities while they were hidden, (seeds, labels)."""
    about = adata.uns["scanvi"]
    names, held_out = [str(name) for name in about["label_names"]], about["held_out"]
    given = pd.Categorical([str(name) for name in held_out["given"]], categories=names)
    table = np.asarray(held_out["probabilities"], dtype=np.float64).reshape(-1, len(names))
    cells = pd.Index([str(cell) for cell in held_out["cells"]])
    return pd.Series(given, cells), pd.DataFrame(table, cells, names)


def figures_of(adata: AnnData, *, seed: int = 0) -> list[dict[str, str]]:
    """Return the figures of an annotation; a map needs at least ten cells.

    A figure has a `heading`, its `data` (a data: address), a `caption`, and `alt` for those who cannot see it.
    """
    about = adata.uns["scanvi"]
    given, held_out = held_out_of(adata)
    probabilities_of(adata)  # raises an error before the map is computed
    with warnings.catch_warnings(), matplotlib.rc_context({"interactive": False}):  # no window, no notebook shows them
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        pictures = [_labels(adata)]
        with suppress(InputError):  # too few cells for a map
            pictures.append(_maps(adata, umap(adata, seed=seed)))
        pictures.append(_probabilities(adata))
        if len(given):
            pictures += [_errors(given, held_out), _calibration(given, held_out)]
        pictures.append(_history(pd.DataFrame(about["history"]).reset_index(drop=True), int(about["best_epoch"])))
    return pictures


def _labels(adata: AnnData) -> dict[str, str]:
    names, given, now = labels_of(adata)
    before, after = (np.bincount(codes[codes >= 0], minlength=len(names)) for codes in (given, now))
    with panel(height=1.0 + 0.3 * len(names)) as axes:
        place = np.arange(len(names))
        axes.barh(place, after, 0.75, color=FAINT, label="cells with this label now")
        axes.barh(place, before, 0.35, color=BLUE, label="cells given with it")
        axes.set_yticks(place, [_text(name) for name in names])
        axes.invert_yaxis()
        axes.set(xlabel="cells", xscale="symlog")
        axes.set_xlim(left=0)
        axes.figure.legend(loc="outside upper left", ncols=2)
    numbers = "; ".join(f"{name}: {a:,} now, {b:,} given" for name, a, b in zip(names, after, before, strict=True))
    caption = "The narrow bars are the cells that had the label before, the wide bars the cells that have it now."
    return _picture("Cells per label", axes.figure, caption, f"Bars with numbers of cells. {numbers}.")


def _maps(adata: AnnData, xy: NDArray[np.float32]) -> dict[str, str]:
    names, given, codes = labels_of(adata)
    common = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")[:_MOST_COLORS]
    most = [names[code] for code in sorted(common)]
    colors = {**dict.fromkeys(names, UNLABELED_COLOR), **palette(most)}
    paint = np.array([*colors.values(), UNLABELED_COLOR], dtype=object)
    order = np.random.default_rng(0).permutation(len(xy))
    known = order[np.argsort(given[order] >= 0, kind="stable")]  # cells without a label below
    probability = adata.obs["scanvi_probability"].to_numpy()
    low = np.argsort(-probability, kind="stable")  # doubtful cells on top
    refused = refused_in(adata)
    dots = {"s": float(np.clip(6_000 / len(xy), 1, 14)), "linewidths": 0}
    columns = max(1, min(4, 92 // (max(len(_text(name)) for name in most) + 5)))
    with sheet(height=2.9 + 0.2 * -(-len(most) // columns)) as figure:
        before, now, sure = figure.subplots(1, 3)
        before.scatter(*xy[known].T, c=list(paint[given[known]]), **dots)
        now.scatter(*xy[order].T, c=list(paint[codes[order]]), **dots)
        now.scatter(*xy[refused].T, color=INK, **dots)
        sure.scatter(*xy[refused].T, color=UNLABELED_COLOR, **dots)  # without a probability
        points = sure.scatter(*xy[low].T, c=probability[low], cmap=probability_cmap(), vmin=0, vmax=1, **dots)
        for axes, title in zip((before, now, sure), ("Given", "Final", "Probability"), strict=True):
            axes.set(title=title, xticks=[], yticks=[], box_aspect=1)
        bar = figure.colorbar(points, ax=sure, orientation="horizontal", ticks=[0, 0.5, 1], aspect=30)
        bar.outline.set_visible(False)
        marks = [Line2D([], [], marker="o", linestyle="none", color=colors[name], label=_text(name)) for name in most]
        if refused.any():
            marks.append(Line2D([], [], marker="o", linestyle="none", color=INK, label=NONE_OF_THESE))
        figure.legend(handles=marks, loc="outside lower left", ncols=columns)
    caption = (
        "UMAP of the latent states. Neighboring cells are similar; distances between groups and their sizes have "
        "little meaning. Cells with a low probability are drawn on top."
    )
    alt = "Three maps of the same cells, colored by given labels, by final labels, and by probability."
    return _picture("Maps", figure, caption, alt)


def _probabilities(adata: AnnData) -> dict[str, str]:
    table = probabilities_of(adata)
    highest = table.to_numpy().max(1)
    alt = (
        f"Histogram; the median is {in_words(np.median(highest))}, and {(highest < 0.5).sum():,} of {len(highest):,} "
        "cells are below 0.5."
    )
    caption = (
        "Highest label probability of each cell. Check cells with low probabilities, or leave them without a label."
    )
    return _picture("Highest label probability", probability_plot(table), caption, alt)


def _errors(given: pd.Series, held_out: pd.DataFrame) -> dict[str, str]:
    table = confusion(given, held_out)
    right = np.trace(table.to_numpy()) / len(given)
    figure = confusion_plot(table.rename(index=_text, columns=_text))
    figure.axes[0].set(xlabel="predicted label", ylabel="hidden label")
    caption = "Hidden labels, and the labels that were predicted for these cells without them."
    alt = f"Square table; {right:.0%} of {len(given)} labels on the diagonal."
    return _picture("Hidden labels", figure, caption, alt)


def _calibration(given: pd.Series, held_out: pd.DataFrame) -> dict[str, str]:
    table = reliability(given, held_out)
    bins = "; ".join(
        f"probability {row.confidence:.2f}, accuracy {row.accuracy:.2f} ({int(row.cells)} cells)"
        for row in table[table["cells"] > 0].itertuples()
    )
    caption = (
        "Accuracy on hidden labels against the stated probability. Labels that were chosen by hand may be easier to "
        "predict than those of the other cells."
    )
    return _picture("Calibration", reliability_diagram({"hidden labels": table}), caption, f"Bins: {bins}.")


def _history(history: pd.DataFrame, best: int) -> dict[str, str]:
    caption = (
        "The fit used for the map. It has converged where the curves are level; the dotted line marks the kept epoch."
    )
    alt = f"Bound, KL terms and schedule over {len(history)} epochs; epoch {best} was kept."
    return _picture("History of the fit", history_plot(history, best_epoch=best), caption, alt)


def labels_of(adata: AnnData) -> tuple[list[str], NDArray[np.integer], NDArray[np.integer]]:
    """Return names, and the given and the present label of each cell as codes (cells,), -1 for none.

    The names are those of the annotation, in its order, then further ones that were added to the columns later.
    """
    parameters = adata.uns["scanvi"]["parameters"]
    none = label_name(parameters["unlabeled_category"])
    given, now = _names_in(adata, str(parameters["labels_key"])), _names_in(adata, "scanvi_label")
    given = given.where(~given.map(lambda name: name == none or means_no_label(name)))
    now = now.mask(refused_in(adata))
    new = (sorted(set(column.dropna())) for column in (now, given))
    names = list(dict.fromkeys([*map(str, adata.uns["scanvi"]["label_names"]), *chain(*new)]))
    return names, *(pd.Categorical(column, categories=names).codes.astype(np.int64) for column in (given, now))


def refused_in(adata: AnnData) -> NDArray[np.bool_]:
    """Return which cells are called "none of these", (cells,); no cell where that is the name of a type."""
    if NONE_OF_THESE in map(str, adata.uns["scanvi"]["label_names"]):
        return np.zeros(adata.n_obs, dtype=bool)
    return (_names_in(adata, "scanvi_label") == NONE_OF_THESE).to_numpy(dtype=bool)


def _names_in(adata: AnnData, column: str) -> pd.Series:
    """Return a column as text, with missing values; all are missing where the column does not exist."""
    if column not in adata.obs:
        return pd.Series(None, adata.obs_names, dtype=object)
    return column_of(adata, column, "").astype(object).map(label_name, na_action="ignore")


def in_words(probability: float) -> str:
    """Return a probability with two digits; only exact values are written as 0.00 or 1.00."""
    if 0.995 <= probability < 1:
        return "above 0.99"
    return "below 0.01" if 0 < probability < 0.005 else f"{probability:.2f}"


def _text(name: object) -> str:
    """Return a name, shortened if it is too long."""
    return shown(name, _LONGEST, lines=1)


def _picture(heading: str, figure: Figure, caption: str, alt: str) -> dict[str, str]:
    """Save and close a figure."""
    buffer = io.BytesIO()
    with book_style():
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    plt.close(figure)
    data = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"heading": heading, "data": data, "caption": caption, "alt": alt}

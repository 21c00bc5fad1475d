"""Pictures of a fit and of what it says: its history, a predictive check, how sure it is, where it errs.

Used in book/05_training.md and book/06_figure.md. Everything comes in as a table; nothing here knows a model.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.labels import label_name
from scanvi_tutorial.plotting.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    panel,
    require_columns,
    sheet,
    text_on,
)

__all__ = ["confusion_plot", "history_plot", "predictive_plot", "probability_plot"]

_HISTORY = (
    *("bound_train", "bound_held_out", "kl_z", "kl_l", "kl_y"),
    *("learning_rate", "kl_weight"),
)
_PREDICTIVE = ("observed_mean", "predicted_mean", "observed_zeros", "predicted_zeros")


def history_plot(history: pd.DataFrame, *, best_epoch: int | None = None) -> Figure:
    """Draw what happened while a model was fitted: the bound, its KL terms, the label term and the schedule.

    Args:
        history: A row an epoch (`History.frame`), in nats per cell: `bound_train`, `bound_held_out`, the KL terms on
            held-out cells `kl_z`, `kl_l`, `kl_y`, and `cross_entropy` on the seeds, whose panel is left out where no
            label was looked at; further `learning_rate` and `kl_weight`.
        best_epoch: The epoch to mark, whose state was kept; None reads `history.attrs["best_epoch"]` if it is there.
    """
    require_columns(history, _HISTORY, "history.frame of what `fit` returned")
    best = history.attrs.get("best_epoch") if best_epoch is None else best_epoch
    epochs = history.index.to_numpy()
    looked = "cross_entropy" in history
    with sheet(height=4.8 if looked else 2.8) as figure:
        panels = figure.subplots(2 if looked else 1, 2 if looked else 3, sharex=True).ravel()
        bound, kl, schedule = panels[0], panels[1], panels[-1]
        if looked:
            _draw_label_term(panels[2], history["cross_entropy"])
        for axes, title, curves in (
            (bound, "Bound", {"training cells": "bound_train", "held-out cells": "bound_held_out"}),
            (
                kl,
                "KL terms, held-out cells",
                {"$z_1$ and $z_2$": "kl_z", r"$\ell$": "kl_l", "$y$": "kl_y"},
            ),
        ):
            for (name, column), color in zip(curves.items(), (BLUE, ORANGE, GREEN), strict=False):
                axes.plot(epochs, history[column], color=color, label=name)
            axes.set_title(f"{title}{' ' if looked else chr(10)}(nats per cell)")
        bound.set_ylim(_bound_limits(history[["bound_train", "bound_held_out"]].to_numpy()))
        peak = history["learning_rate"].max()
        schedule.plot(epochs, history["learning_rate"] / peak, color=BLUE, label=f"learning rate / {peak:.2g}")
        schedule.plot(epochs, history["kl_weight"], color=ORANGE, label="weight of the KL terms")
        schedule.set_title("Schedule")
        schedule.set(ylim=(-0.05, 1.6), yticks=[0, 0.5, 1])
        for axes in panels:
            if best is not None:
                axes.axvline(best, color=MUTED, linestyle=":", linewidth=1.2)
            axes.grid(axis="y")
        bound.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
        kl.legend(loc="best")
        schedule.legend(loc="upper left")
        if best is not None:
            early = best < (epochs[0] + epochs[-1]) / 2
            panels[-1 if looked else 0].annotate(
                f"kept: epoch {best}",
                (best, 0.72 if looked else 0.55),
                (4 if early else -4, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="left" if early else "right",
                va="top",
                color=MUTED,
            )
        for axes in panels[-2 if looked else -3 :]:
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_label_term(axes: Axes, entropy: pd.Series) -> None:
    axes.plot(entropy.index.to_numpy(), entropy, color=BLUE)
    axes.set_title("Cross-entropy of the seeds (nats)")
    axes.set_yscale("log")
    # two decades at the least, or a run that learns nothing would seem to fall like one that does
    axes.set_ylim(bottom=min(entropy.min(), entropy.max() / 100) * 0.7)
    axes.yaxis.set_minor_formatter(NullFormatter())


def predictive_plot(check: pd.DataFrame) -> Figure:
    """Draw what the model predicts for each gene over what was counted: its mean, and its share of zeros.

    `check` is a table of genes with `observed_mean` and `predicted_mean` (counts per cell) and `observed_zeros` and
    `predicted_zeros` (shares of the cells), as `posterior_predictive` returns. Genes whose mean is zero on either side
    have no place on the logarithmic axes of the first panel and are left out there.
    """
    require_columns(check, _PREDICTIVE, "what `posterior_predictive(model, adata)` returned")
    with sheet(height=3.5) as figure:
        means, zeros = figure.subplots(1, 2)
        marks = {"s": 9, "c": BLUE, "alpha": 0.35, "linewidths": 0, "rasterized": True}
        some = (check["observed_mean"] > 0) & (check["predicted_mean"] > 0)
        means.scatter(check["observed_mean"][some], check["predicted_mean"][some], **marks)
        zeros.scatter(check["observed_zeros"], check["predicted_zeros"], **marks)
        means.set(xscale="log", yscale="log", title="Mean count of each gene")
        zeros.set(title="Share of zeros of each gene", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for axes in (means, zeros):
            axes.axline((1, 1), (2, 2), color=INK, linewidth=1, linestyle="--")
            axes.set(xlabel="counted", ylabel="predicted", box_aspect=1)
        both = means.get_xlim() + means.get_ylim()
        means.set(xlim=(min(both), max(both)), ylim=(min(both), max(both)))
    return figure


def probability_plot(probabilities: pd.DataFrame, truth: ArrayLike | None = None) -> Figure:
    """Draw a histogram of the probability of each cell's most probable type, cut into right and wrong by the truth.

    Where the truth is known, a second panel has the share of wrong cells in each tenth, since a bar of few cells shows
    no share.

    Args:
        probabilities: Table (cells, labels).
        truth: True types (cells,), in the order of the rows.
    """
    p = probabilities.to_numpy()
    names = np.array([label_name(name) for name in probabilities.columns], dtype=object)
    highest, called = p.max(1), names[p.argmax(1)]
    groups: dict[str, NDArray] = {"": highest}
    wrong = None
    if truth is not None:
        true_types = np.array([label_name(name) for name in truth], dtype=object)
        if true_types.shape != called.shape:
            raise InputError(
                f"There are {len(called)} rows of probabilities and {len(true_types)} true types. Align both."
            )
        wrong = called != true_types
        groups = {
            f"right ({(~wrong).mean():.0%} of the cells)": highest[~wrong],
            f"wrong ({wrong.mean():.0%})": highest[wrong],
        }
    if wrong is not None:
        with sheet(height=2.8) as figure:
            counts, shares = figure.subplots(1, 2, width_ratios=[3, 2])
            _draw_highest(counts, groups)
            _draw_wrong(shares, highest, wrong)
        return figure
    with panel(height=2.8) as axes:
        _draw_highest(axes, groups)
    return axes.figure


def _draw_highest(axes: Axes, groups: dict[str, NDArray]) -> None:
    colors = [BLUE, ORANGE][: len(groups)]
    bins = np.linspace(0, 1, 26)
    axes.hist(list(groups.values()), bins, stacked=True, color=colors, label=list(groups), edgecolor="white")
    axes.set(xlim=(0, 1), xlabel="probability of the most probable type", ylabel="cells")
    if len(groups) > 1:
        axes.legend(loc="upper left")


def _draw_wrong(axes: Axes, highest: NDArray, wrong: NDArray) -> None:
    tenth = np.minimum((highest * 10).astype(int), 9)
    cells, errors = np.bincount(tenth, minlength=10), np.bincount(tenth[wrong], minlength=10)
    filled = np.flatnonzero(cells)
    axes.bar((filled + 0.5) / 10, errors[filled] / cells[filled], 0.1, color=ORANGE, edgecolor="white")
    for place in filled:
        axes.text((place + 0.5) / 10, errors[place] / cells[place], f"{cells[place]:,}", ha="center", va="bottom")
    axes.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="the same, in tenths", ylabel="share that is wrong")
    axes.set_title("over each bar: cells in that tenth")


def confusion_plot(table: pd.DataFrame) -> Figure:
    """Draw a table of counts (true types, predicted types): numbers are cells, shades are shares of the row."""
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.42 if len(table) > 6 else 0.52
    with panel(width=min(7.2, 2.6 + 0.7 * table.shape[1]), height=1.3 + side * len(table)) as axes:
        shade = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
        for (row, column), cells in np.ndenumerate(counts):
            color = text_on(shade.cmap(shade.norm(share[row, column]))) if cells else FAINT
            axes.text(column + 0.5, row + 0.5, f"{cells:,}", ha="center", va="center", color=color, fontsize=8.5)
        axes.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(len(table)) + 0.5, table.index)
        axes.set(xlabel="inferred type", ylabel="true type")
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = axes.figure.colorbar(shade, ax=axes, label="share of the row", ticks=[0, 0.5, 1], aspect=25, pad=0.02)
        bar.outline.set_visible(False)
    return axes.figure


def _bound_limits(curves: NDArray[np.floating]) -> tuple[float, float] | None:
    """Return limits that leave out the steep first twentieth of the epochs, which would flatten all the rest."""
    late = curves[min(max(1, len(curves) // 20), len(curves) - 1) :]
    late = late[np.isfinite(late)]
    if not late.size:
        return None
    low, high = late.min(), curves[np.isfinite(curves)].max()
    margin = 0.08 * max(high - low, 1e-3)
    return float(low - margin), float(high + margin)

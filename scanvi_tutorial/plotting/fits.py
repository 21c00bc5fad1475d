"""Plots of fits: history, predictive check, probabilities (chapters 5, 6) and the label weight (chapter 7)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.labels import label_name
from scanvi_tutorial.plotting.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    number_table,
    panel,
    require_columns,
    sheet,
    shown,
)

_HISTORY = ("bound_train", "bound_held_out", "kl_z", "kl_l", "kl_y", "learning_rate", "kl_weight")
_PREDICTIVE = ("observed_mean", "predicted_mean", "observed_zeros", "predicted_zeros")


def history_plot(history: pd.DataFrame, *, best_epoch: int | None = None) -> Figure:
    """Draw the history of a fit: the bound, its KL terms, the label term and the schedule.

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
    rows = [["bound", "kl"], ["label", "schedule"] if looked else ["schedule", "schedule"]]
    with sheet(height=4.8) as figure:
        panels = figure.subplot_mosaic(rows, sharex=True)
        bound = panels["bound"]
        kl = panels["kl"]
        schedule = panels["schedule"]
        for axes, column, color, name in (
            (bound, "bound_train", BLUE, "training cells"),
            (bound, "bound_held_out", ORANGE, "held-out cells"),
            (kl, "kl_z", BLUE, "$z_1$ and $z_2$"),
            (kl, "kl_l", ORANGE, r"$\ell$"),
            (kl, "kl_y", GREEN, "$y$"),
            (schedule, "kl_weight", ORANGE, "weight of the KL terms"),
        ):
            axes.plot(epochs, history[column], color=color, label=name)
        peak = history["learning_rate"].max()
        schedule.plot(epochs, history["learning_rate"] / peak, color=BLUE, label=f"learning rate / {peak:.2g}")
        bound.set(title="Bound (nats per cell)", ylim=_bound_limits(history[["bound_train", "bound_held_out"]]))
        kl.set_title("KL terms, held-out cells (nats per cell)")
        schedule.set(title="Schedule", ylim=(-0.05, 1.6), yticks=[0, 0.5, 1])
        bound.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
        kl.legend(loc="best")
        schedule.legend(loc="upper left")
        if looked:
            label, entropy = panels["label"], history["cross_entropy"]
            label.plot(epochs, entropy, color=BLUE)
            # two decades at the least, or a run that learns nothing would seem to fall like one that does
            low = min(entropy.min(), entropy.max() / 100) * 0.7
            label.set(title="Cross-entropy of the seeds (nats)", yscale="log")
            label.set_ylim(bottom=low)
            label.yaxis.set_minor_formatter(NullFormatter())
            label.set_xlabel("epoch")
        for axes in panels.values():
            axes.grid(axis="y")
            if best is not None:
                axes.axvline(best, color=MUTED, linestyle=":", linewidth=1.2)
        if best is not None:
            align, away = ("left", 4) if best < (epochs[0] + epochs[-1]) / 2 else ("right", -4)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            schedule.annotate(f"kept: epoch {best}", (best, 0.72), (away, 0), ha=align, va="top", color=MUTED, **at)
        schedule.set_xlabel("epoch")
        schedule.xaxis.get_major_locator().set_params(integer=True)
    return figure


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
        truth: True types (cells,), in the order of the rows; a slash in a name may be "|" in the table, as in files.
    """
    p = probabilities.to_numpy()
    if not np.isfinite(p).all():
        raise InputError("A probability is not a finite number. Leave out cells that have not been annotated.")
    names = np.array([label_name(name).replace("/", "|") for name in probabilities.columns], dtype=object)
    highest, called = p.max(1), names[p.argmax(1)]
    groups, colors = {"": highest}, [BLUE]
    if truth is not None:
        true_types = np.array([label_name(name).replace("/", "|") for name in truth], dtype=object)
        if true_types.shape != called.shape:
            raise InputError(
                f"There are {len(called)} rows of probabilities and {len(true_types)} true types. Align both."
            )
        wrong = called != true_types
        right = f"right ({(~wrong).mean():.0%} of the cells)"
        groups, colors = {right: highest[~wrong], f"wrong ({wrong.mean():.0%})": highest[wrong]}, [BLUE, ORANGE]
    with sheet(height=2.8) as figure:
        counts, *shares = figure.subplots(1, len(groups), width_ratios=[3, 2][: len(groups)], squeeze=False)[0]
        bins = np.linspace(0, 1, 26)
        counts.hist(list(groups.values()), bins, stacked=True, color=colors, label=list(groups), edgecolor="white")
        counts.set(xlim=(0, 1), xlabel="probability of the most probable type", ylabel="cells")
        for axes in shares:
            counts.legend(loc="upper left")
            tenth = np.minimum((highest * 10).astype(int), 9)
            share = pd.Series(wrong).groupby(tenth).agg(["mean", "size"])
            bars = axes.bar((share.index + 0.5) / 10, share["mean"], 0.1, color=ORANGE, edgecolor="white")
            axes.bar_label(bars, [f"{cells:,}" for cells in share["size"]], fontsize=9)
            axes.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="the same, in tenths", ylabel="share that is wrong")
            axes.set_title("over each bar: cells in that tenth")
    return figure


def confusion_plot(table: pd.DataFrame) -> Figure:
    """Draw a table of counts (true types, predicted types): numbers are cells, shades are shares of the row."""
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.42 if len(table) > 6 else 0.52
    with panel(width=min(7.2, 2.6 + 0.7 * table.shape[1]), height=1.3 + side * len(table)) as axes:
        shade = number_table(axes, table.rename(index=shown, columns=shown), share)
        axes.set(xlabel="inferred type", ylabel="true type")
        bar = axes.figure.colorbar(shade, ax=axes, label="share of the row", ticks=[0, 0.5, 1], aspect=25, pad=0.02)
        bar.outline.set_visible(False)
    return axes.figure


def label_factor_plot(table: pd.DataFrame) -> Figure:
    """Draw by how much the gradient of each label was multiplied, over one plus the loss of its cell.

    Args:
        table: A row a labeled cell: `loss` in nats, `factor` as measured on gradients (1 + `loss` and `factor` above
            zero), and `model`, by whose values points are colored.
    """
    require_columns(table, ("loss", "factor", "model"), "a row for each labeled cell")
    expected = 1 + table["loss"]
    with panel(width=4.6, height=3.6) as axes:
        for name, color in zip(table["model"].unique(), cycle((ORANGE, BLUE, GREEN)), strict=False):
            of = table["model"] == name
            axes.scatter(expected[of], table["factor"][of], s=16, c=color, alpha=0.6, linewidths=0, label=shown(name))
        both = np.concatenate([expected, table["factor"]])
        limits = both.min() / 1.3, both.max() * 1.3
        axes.plot(limits, limits, color=INK, linewidth=1, linestyle="--", zorder=0)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, box_aspect=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:,.0f}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="1 + loss of the cell (nats)", ylabel="factor on the label's gradient")
        axes.legend(handles=axes.collections, loc="upper left")  # given, or those that begin with "_" would be left out
    return axes.figure


def label_weight_plot(table: pd.DataFrame, *, marks: Mapping[str, float] | None = None) -> Figure:
    """Draw accuracy, how sure the model is, and calibration error over the label weight w.

    Args:
        table: A row a fit: `weight` (above zero), `accuracy`, `confidence` (mean of the highest probability) and
            `calibration_error`. Fits with one weight are draws: a point each, and a line through their means.
        marks: Weights to name, such as the defaults of other systems; those outside the sweep are left out.
    """
    require_columns(table, ("weight", "accuracy", "confidence", "calibration_error"), "a row for each fit")
    means = table.groupby("weight").mean(numeric_only=True)
    with sheet(height=3.1) as figure:
        left, right = figure.subplots(1, 2)
        for axes, column, color, name in (
            (left, "confidence", ORANGE, "mean highest probability"),
            (left, "accuracy", BLUE, "accuracy"),
            (right, "calibration_error", ORANGE, ""),
        ):
            axes.plot(means.index, means[column], color=color, label=name)
            axes.scatter(table["weight"], table[column], s=14, c=color, linewidths=0)
        left.fill_between(means.index, means["accuracy"], means["confidence"], color=ORANGE, alpha=0.12, linewidth=0)
        left.set_title("How right, and how sure")
        left.legend(loc="lower right")
        right.set_title("Expected calibration error")
        right.set_ylim(0, table["calibration_error"].max() * (1.65 if marks else 1.05))  # names stand above the data
        for axes in (left, right):
            axes.set(xscale="log", xlabel="label weight $w$")
            axes.grid(axis="y")
        named = pd.Series(marks or {}, dtype=float)
        for weight, names in named[named.between(means.index.min(), means.index.max())].groupby(named):
            right.axvline(weight, color=MUTED, linestyle=":", linewidth=1)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
            text = ", ".join(map(shown, names.index))  # systems that agree share a line
            right.annotate(text, (weight, 0.99), (2, 0), ha="left", va="top", color=MUTED, fontsize=8, **at)
    return figure


def _bound_limits(curves: pd.DataFrame) -> tuple[float, float] | None:
    """Return limits that leave out the steep first twentieth of the epochs, which would flatten all the rest."""
    curves = curves.where(np.isfinite(curves))
    low = curves[min(max(1, len(curves) // 20), len(curves) - 1) :].min(axis=None)
    high = curves.max(axis=None)
    margin = 0.08 * max(high - low, 1e-3)
    return (low - margin, high + margin) if np.isfinite(low) else None

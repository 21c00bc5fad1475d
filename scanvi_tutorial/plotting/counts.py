"""Pictures of the counts and of the seed labels, before there is a model.

Used in book/01_data.md. Counts are raw (cells, genes); a total is the sum of a cell's counts over the genes given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import column_of
from scanvi_tutorial.inputs.labels import check_labels, label_name
from scanvi_tutorial.inputs.markers import check_markers
from scanvi_tutorial.plotting.style import BLUE, INK, MUTED, ORANGE, number_table, palette, palette_of, panel, shown


def count_table_plot(adata: AnnData, *, by: str = "truth") -> Figure:
    """Draw a corner of the count matrix: one row a cell, one column a gene, each count as number and shade.

    Ten cells are shown, the first ones, taken in turn from each type of obs[`by`] where it exists, and up to fourteen
    genes: markers in their order, then the most detected genes.
    """
    counts, types = check_counts(adata), _types(adata, by).reset_index(drop=True)
    rows = types.groupby(types, observed=True, dropna=False).cumcount().sort_values(kind="stable").index[:10]
    rows = types[rows].sort_values(kind="stable").index
    markers = check_markers(adata.uns.get("markers"))
    known = [gene for sides in markers.values() for gene in sides["positive"] if gene in adata.var_names]
    detected = adata.var_names[np.argsort(-np.bincount(counts.indices, minlength=adata.n_vars), kind="stable")]
    genes = list(dict.fromkeys([*known, *detected]))[:14]
    table = pd.DataFrame(
        counts[rows][:, adata.var_names.get_indexer(genes)].toarray(),
        index=[f"{shown(types[row])} · cell {row}" for row in rows],
        columns=map(shown, genes),
    )
    with panel(height=0.9 + 0.26 * len(rows)) as axes:
        number_table(axes, table, LogNorm(0.5, max(table.max(axis=None), 20))(table.where(table > 0)).filled(np.nan))
    return axes.figure


def library_size_plot(adata: AnnData, *, by: str = "truth") -> Figure:
    """Draw a histogram of the total counts per cell on a logarithmic axis, one row for each type in obs[`by`].

    Rows share their bins; each is as high as its most common total, so shapes and places compare, numbers don't. A tick
    marks the median.
    """
    totals, types = np.asarray(check_counts(adata).sum(1)).ravel(), _types(adata, by)
    names = list(types.cat.categories)
    colors = palette_of(adata, by) if by in adata.obs else palette(names)
    bins = np.geomspace(totals.min(), totals.max() * 1.001 + 1, 33)
    with panel(height=0.9 + 0.42 * len(names)) as axes:
        for place, name in enumerate(reversed(names)):
            of_type = totals[(types == name).to_numpy()]
            height = np.histogram(of_type, bins)[0]
            axes.stairs(place + 0.85 * height / height.max(), bins, baseline=place, fill=True, color=colors[name])
            axes.plot([np.median(of_type)] * 2, [place - 0.08, place + 0.08], color=INK, linewidth=1.6, zorder=3)
        axes.set_yticks(range(len(names)), [f"{shown(name)} ({(types == name).sum():,})" for name in reversed(names)])
        axes.set(xscale="log", xlabel="total counts of a cell", ylim=(-0.2, len(names)))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if bins[-1] < 10 * bins[0] else (1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return axes.figure


def mean_variance_plot(adata: AnnData) -> Figure:
    """Draw the variance of each gene's count over its mean, with the lines of a Poisson and a negative binomial.

    A Poisson count has variance = mean. The other line is mean + mean² / θ, with one θ for all genes: the median of
    mean² / (variance − mean) over genes of mean 0.1 and more that vary more than a Poisson count does.
    """
    x = check_counts(adata).astype(np.float64)
    mean = np.asarray(x.mean(0)).ravel()
    variance = np.asarray(x.multiply(x).mean(0)).ravel() - mean**2
    wild = (mean >= 0.1) & (variance > mean)
    seen = (mean > 0) & (variance > 0)
    line = np.geomspace(mean[seen].min(), mean[seen].max(), 100)
    with panel(height=3.4) as axes:
        axes.scatter(mean[seen], variance[seen], s=8, c=MUTED, alpha=0.4, linewidths=0, rasterized=True, label="a gene")
        axes.plot(line, line, color=BLUE, linestyle="--", label="Poisson: variance = mean")
        if wild.any():
            theta = float(np.median(mean[wild] ** 2 / (variance - mean)[wild]))
            label = rf"negative binomial: mean + mean² / θ, θ = {theta:.2g}"
            axes.plot(line, line + line**2 / theta, color=ORANGE, label=label)
        axes.set(xscale="log", yscale="log", xlabel="mean count of a gene", ylabel="variance over cells")
        axes.legend(loc="upper left")
    return axes.figure


def seed_purity_plot(adata: AnnData, *, labels_key: str = "label", truth_key: str = "truth") -> Figure:
    """Draw, for each seed label, what its seeds truly are: a bar of as many cells, cut by true type.

    How many are right stands beside the bar.
    """
    names, codes = check_labels(adata, labels_key)
    column_of(adata, truth_key, "Name the one with the true types, or leave this figure out where none are known.")
    types = _types(adata, truth_key)
    colors = palette_of(adata, truth_key, labels_key, also=names)
    right = []
    with panel(height=1.3 + 0.3 * len(names)) as axes:
        for place, name in enumerate(names):
            counts = types[codes == place].value_counts(sort=False)
            counts = counts[[name] * (name in counts.index) + [other for other in counts.index if other != name]]
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            bar = [colors[other] for other in counts.index]
            axes.barh(place, counts, left=starts, color=bar, height=0.7, edgecolor="white", linewidth=0.8)
            right.append(f"{shown(name)}: {counts.get(name, 0)} of {counts.sum()} right")
        axes.set_yticks(range(len(names)), right)
        axes.invert_yaxis()
        axes.set_xlabel("seed cells")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.02)
        axes.tick_params(axis="y", length=0)
        found = [name for name in colors if (types[codes >= 0] == name).any()]
        marks = [Patch(color=colors[name], label=shown(name)) for name in found]
        axes.legend(handles=marks, title="true type", loc="upper left", bbox_to_anchor=(1, 1), alignment="left")
    return axes.figure


def _types(adata: AnnData, column: str) -> pd.Series:
    """Return a categorical without unused names; "all cells" where the column is missing."""
    if column not in adata.obs:
        return pd.Series("all cells", index=adata.obs_names, dtype="category")
    return adata.obs[column].astype("category").cat.remove_unused_categories().cat.rename_categories(label_name)

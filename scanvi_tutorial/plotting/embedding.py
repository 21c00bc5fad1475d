"""Figure 6 of the scANVI paper (Xu et al. 2021, doi 10.15252/msb.20209620), and its map with cells that can be asked.

Both maps, read in book/06_figure.md, are UMAPs of the posterior means of z2: near cells are alike, while distances
between groups say little. The second is one piece of HTML, which needs no server; without scripts it stays a still
figure of the least certain cell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from scanvi_tutorial.inputs.cells import probabilities_of
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.labels import check_labels, label_name
from scanvi_tutorial.inputs.session import scanpy_module, usual_settings
from scanvi_tutorial.plotting.style import UNLABELED_COLOR, palette_of, panels_in_a_row, probability_cmap, sheet, shown

Places = NDArray[np.floating] | None  # places of cells on a map, (cells, 2); None makes a map of obsm["X_scanvi"]

_TOP = 2.75  # height of the upper row in inches
_WIDTH = 1_000  # of the map, in its own units
_HEIGHT = 800
_MARGIN = 25
_MOST = 3_000  # cells on one map: more would be a heavy page and a gray one


@usual_settings()
def umap(adata: AnnData, *, use_rep: str = "X_scanvi", seed: int = 0) -> NDArray[np.float32]:
    """Return a UMAP (cells, 2) of `adata.obsm[use_rep]`; equal seeds give equal maps.

    `adata` stays as it is. Neighbors (15, Euclidean) and layout are scanpy's.

    Raises:
        InputError: If the representation is missing, not finite, or has fewer than ten cells.
    """
    from threadpoolctl import threadpool_limits

    z = _states_of(adata, use_rep)
    cells = AnnData(obs=pd.DataFrame(index=adata.obs_names), obsm={use_rep: z})
    sc = scanpy_module()
    near = min(15, cells.n_obs - 1)
    with threadpool_limits():  # numba sets the OpenMP threads of PyTorch too; this resets them
        sc.pp.neighbors(cells, n_neighbors=near, use_rep=use_rep, random_state=seed)
        sc.tl.umap(cells, random_state=seed)
    return cells.obsm["X_umap"]


def _states_of(adata: AnnData, use_rep: str) -> NDArray[np.floating]:
    """Return `adata.obsm[use_rep]` (cells, latent), or raise `InputError` where no map can be made of it."""
    if use_rep not in adata.obsm:
        raise InputError(
            f"obsm[{use_rep!r}] is missing. Write the latent means there first: "
            f"adata.obsm[{use_rep!r}] = st.latent(model, adata)."
        )
    z = np.asarray(adata.obsm[use_rep])
    if not (finite := np.isfinite(z).all(1)).all():
        cell = adata.obs_names[~finite][0]
        raise InputError(
            f"obsm[{use_rep!r}] holds numbers that are not finite, first in cell {cell!r}. Fit the model again."
        )
    if len(z) < 10:
        raise InputError(f"A map needs at least 10 cells, and there are {len(z)}. Pass more of them.")
    return z


def _map_of(adata: AnnData, coordinates: Places, seed: int) -> NDArray[np.floating]:
    """Return `coordinates` (cells, 2), or a new map where there are none; `InputError` where the shape is another."""
    xy = umap(adata, seed=seed) if coordinates is None else np.asarray(coordinates)
    if xy.shape != (adata.n_obs, 2):
        raise InputError(f"A map of {adata.n_obs} cells has the shape ({adata.n_obs}, 2), not {xy.shape}.")
    return xy


def figure6(
    adata: AnnData,
    *,
    labels_key: str = "label",
    truth_key: str = "truth",
    coordinates: Places = None,
    seed: int = 0,
) -> Figure:
    """Draw one map of the cells by seed label, by true type and by probability of each type.

    Reads obsm["X_scanvi"] (cells, latent), obsm["scanvi_probabilities"] (cells, labels),
    obs[`labels_key`] and, where there is one, obs[`truth_key`]; changes none of them. Cells
    with a high probability are drawn last.

    Args:
        adata: Cells.
        labels_key: Column with the seed labels.
        truth_key: Column with the true types; without that column its panel is left out.
        coordinates: A map (cells, 2); without it `umap(adata, seed=seed)` makes one.
        seed: Draws the map, and the order in which the cells of the truth are drawn.

    Raises:
        InputError: If something to read is missing; the message says which function makes it.
    """
    probabilities = probabilities_of(adata)
    names, codes = check_labels(adata, labels_key, least=0)
    xy = _map_of(adata, coordinates, seed)
    colors = palette_of(adata, truth_key, labels_key, also=names)
    known = adata.obs.get(truth_key)
    found = {*names, *(() if known is None else known.dropna().map(label_name))}

    columns = panels_in_a_row(probabilities.shape[1])
    rows = -(-probabilities.shape[1] // columns)
    below = 0.35 + rows * (0.2 + 5.6 / columns)  # the wider the panels, the higher
    with sheet(height=_TOP + below) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=[_TOP, below])
        panels = upper.subplots(1, 2 if known is not None else 1, squeeze=False)[0]
        gray = _draw_cells(panels[0], xy[codes < 0], "Seed labels", c=UNLABELED_COLOR)
        small = gray.get_sizes()[0]
        labeled = codes >= 0
        large = np.clip(2_000 / max(labeled.sum(), 1), max(3 * small, 14), max(3 * small, 30))
        of_seeds = [colors[names[code]] for code in codes[labeled]]
        look = {"edgecolors": "white", "linewidths": 0.5, "rasterized": True}
        panels[0].scatter(*xy[labeled].T, s=large, c=of_seeds, **look)
        if known is not None:
            # in random order, so that no type hides another on principle
            order = np.random.default_rng(seed).permutation(len(xy))
            by_cell = known.iloc[order].map(label_name, na_action="ignore")
            types = by_cell.astype(object).map(colors).fillna(UNLABELED_COLOR).tolist()
            _draw_cells(panels[1], xy[order], "True types", c=types)
        else:
            panels[0].set_box_aspect(0.85)  # as it would be beside a second panel
            panels[0].set_anchor("W")
        marks = [_mark(name, color, 7) for name, color in colors.items() if name in found]
        marks.append(_mark("no seed label", UNLABELED_COLOR, 4))
        panels[-1].legend(handles=marks, loc="center left", bbox_to_anchor=(1.02, 0.5))
        grid = lower.subplots(rows, columns, squeeze=False).ravel()
        for name, axes in zip(probabilities.columns, grid, strict=False):
            probability = probabilities[name].to_numpy()
            order = np.argsort(probability, kind="stable")  # the highest last, on top
            shade = {"c": probability[order], "cmap": probability_cmap(), "vmin": 0, "vmax": 1}
            points = _draw_cells(axes, xy[order], shown(name, 72 // columns, lines=4), **shade)
        for axes in grid[probabilities.shape[1] :]:
            axes.set_axis_off()
        place = {"fraction": 0.03, "pad": 0.01, "aspect": 14 * rows}
        bar = lower.colorbar(points, ax=grid.tolist(), ticks=[0, 0.5, 1], **place)
        bar.outline.set_visible(False)
        lower.suptitle("Inferred probability of each type", x=0.006, ha="left")
    return figure


@dataclass(frozen=True, slots=True)
class Probe:
    """A piece of HTML that notebooks show."""

    html: str = field(repr=False)  # a notebook stores the repr beside it

    def _repr_html_(self) -> str:
        return self.html


def cell_probe(
    adata: AnnData, *, labels_key: str = "label", truth_key: str = "truth", coordinates: Places = None, seed: int = 0
) -> Probe:
    """Return a map of cells in the color of their inferred type, and the probabilities of the one that is asked for.

    Reads obsm["scanvi_probabilities"] (a table (cells, labels)) and, where there is one, obs[`truth_key`]. Of more than
    3,000 cells a random 3,000 are shown. The slider orders cells from the least certain to the most certain.

    Args:
        adata: Cells.
        labels_key: Column with the seed labels, for the colors.
        truth_key: Column with the true types; not told where the column is missing.
        coordinates: A map (cells, 2) made before; without it `umap(adata, seed=seed)` is called.
        seed: Draws the map, and the cells that are shown.

    Raises:
        InputError: If something to read is missing or not finite; the message says which function makes it.
    """
    table = probabilities_of(adata)
    xy = _map_of(adata, coordinates, seed)
    if not (np.isfinite(table.to_numpy()).all() and np.isfinite(xy).all()):
        raise InputError("A probability or a place on the map is not a finite number. Fit the model again.")
    colors = palette_of(adata, truth_key, labels_key, also=table.columns)
    some = np.random.default_rng(seed).permutation(adata.n_obs)[:_MOST]
    order = some[np.argsort(table.to_numpy()[some].max(axis=1), kind="stable")]
    known = adata.obs[truth_key].iloc[order] if truth_key in adata.obs else [None] * len(order)
    shares = table.to_numpy()[order]
    low, high = xy.min(axis=0), xy.max(axis=0)
    scaled = (xy[order] - low) / np.where(high > low, high - low, 1)
    room = np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN
    x, y = np.rint(_MARGIN + np.c_[scaled[:, 0], 1 - scaled[:, 1]] * room).astype(int).T  # y is downward
    data = {
        "cells": [str(name) for name in adata.obs_names[order]],
        "labels": [label_name(name) for name in table.columns],
        "truth": [None if pd.isna(name) else label_name(name) for name in known],
        "best": shares.argmax(axis=1).tolist(),
        "percent": np.rint(100 * shares).astype(int).tolist(),
        "x": x.tolist(),
        "y": y.tolist(),
    }
    return Probe(_html(data, colors))


def _draw_cells(axes: Axes, xy: NDArray, title: str, **look: object) -> PathCollection:
    """Draw cells so large that together they would cover a third of the panel; their coordinates mean nothing."""
    box = axes.get_window_extent()
    area = box.width * box.height * (72 / axes.get_figure(root=True).dpi) ** 2  # points²
    size = np.clip(0.33 * area / max(len(xy), 1), 1.0, 14.0)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#d0d7de")
    axes.margins(0.04)
    return axes.scatter(*xy.T, s=size, linewidths=0, rasterized=True, **look)


def _mark(name: str, color: str, size: float) -> Line2D:
    return Line2D(
        [],
        [],
        marker="o",
        linestyle="none",
        color=color,
        markersize=size,
        markeredgewidth=0,
        label=shown(name, 24, lines=4),
    )


def _html(data: Mapping[str, Any], colors: Mapping[str, str]) -> str:
    dots = ""
    for code, name in enumerate(data["labels"]):
        path = "".join(f"M{data['x'][i]} {data['y'][i]}h0" for i in np.flatnonzero(np.equal(data["best"], code)))
        dots += f'<path stroke="{colors[name]}" d="{path}"/>'
    bars = "".join(
        f'<li><span class="name">{escape(name)}</span><span class="track"><span class="bar" style="width:{share}%;'
        f'background:{colors[name]}"></span></span><span class="share">{share} %</span></li>'
        for name, share in zip(data["labels"], data["percent"][0], strict=True)
    )
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no name may end the script
    return Template(Path(__file__).with_name("probe.html").read_text(encoding="utf-8")).substitute(
        width=_WIDTH,
        height=_HEIGHT,
        dots=dots,
        bars=bars,
        x=data["x"][0],
        y=data["y"][0],
        cell=escape(data["cells"][0]),
        truth="" if data["truth"][0] is None else f", in truth {escape(data['truth'][0])}",
        last=len(data["cells"]) - 1,
        data=packed,
    )

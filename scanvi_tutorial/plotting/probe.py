"""A map whose cells can be asked: point at one, or walk through them by keyboard, and read its probabilities.

Used in book/06_figure.md. It is one piece of HTML, which needs no server; without scripts, or in a notebook that
JupyterLab doesn't trust, it stays a still figure of the least certain cell.
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

from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.labels import label_name
from scanvi_tutorial.plotting.embedding import Places, map_of, probabilities_of
from scanvi_tutorial.plotting.style import palette_of

__all__ = ["Probe", "cell_probe"]

_WIDTH, _HEIGHT, _MARGIN = 1_000, 800, 25  # of the map, in its own units
_MOST = 3_000  # cells on one map: more would be a heavy page and a gray one


@dataclass(frozen=True, slots=True)
class Probe:
    """A piece of HTML that notebooks show."""

    html: str = field(repr=False)  # a notebook stores the repr beside it

    def _repr_html_(self) -> str:
        return self.html


def cell_probe(
    adata: AnnData,
    *,
    labels_key: str = "label",
    truth_key: str = "truth",
    coordinates: Places = None,
    seed: int = 0,
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
    xy = map_of(adata, coordinates, seed)
    if not (np.isfinite(table.to_numpy()).all() and np.isfinite(xy).all()):
        raise InputError("A probability or a place on the map is not a finite number. Fit the model again.")
    colors = palette_of(adata, truth_key, labels_key, also=table.columns)
    shown = np.random.default_rng(seed).permutation(adata.n_obs)[:_MOST]
    order = shown[np.argsort(table.to_numpy()[shown].max(axis=1), kind="stable")]
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


def _html(data: Mapping[str, Any], colors: Mapping[str, str]) -> str:
    dots = "".join(
        f'<path stroke="{colors[name]}" d="'
        + "".join(f"M{data['x'][i]} {data['y'][i]}h0" for i in np.flatnonzero(np.asarray(data["best"]) == code))
        + '"/>'
        for code, name in enumerate(data["labels"])
    )
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

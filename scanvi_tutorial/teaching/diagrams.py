"""Plate diagrams of Pyro models, and comparison of the structures of two models; introduced in book/02_sketch.md.

Relations are what `pyro.infer.inspect.get_model_relations` returns: for each site its parents ("sample_sample"), its
distribution family ("sample_dist"), the plates around it ("plate_sample"), and the list of observed sites ("observed").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import softplus

Relations = Mapping[str, Any]
Point = tuple[float, float]

# Position of each site of scANVI (column, row), the same for the model and its guide.
_PLACES = {"z1": (0, 2), "y": (1, 2), "z2": (0, 1), "l": (1, 1), "x": (0.5, 0), "label": (-0.5, 0)}
_SYMBOLS = {"z1": "$z_1$", "z2": "$z_2$", "y": "$y$", "l": r"$\ell$", "x": "$x$"}
_INK = "#1b1f24"
_SHADE = "#b9d0e6"
_GRAY = "#57606a"
_COLUMN, _ROW = 2.4, 1.8  # centimeters
_SIDE = 2.8  # from a circle to its plate, with room for the distribution family and the name of the plate
_ABOVE = 0.8
_BELOW = 1.1
_BARE = {"ec": "none", "fc": "none"}  # text without a circle


class Stub(nn.Module):
    """A placeholder for a network: it returns tensors of the right shapes and is not trained.

    Inputs of shape (..., width) are broadcast against each other, because y may have an
    enumeration axis, and concatenated to (..., d_in). The outputs have the shapes
    (..., d_out): one tensor, or a tuple of several. A softplus is applied to the outputs
    whose position is in `positive`, for standard deviations.
    """

    def __init__(
        self,
        d_in: int,
        *d_out: int,
        positive: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_out = d_out
        self.positive = tuple(positive)
        draws = torch.Generator().manual_seed(seed)
        weight = torch.randn(sum(d_out), d_in, generator=draws) / d_in**0.5
        self.weight = nn.Parameter(weight)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map one or several inputs, (..., d_in) in total, to outputs (..., d_out)."""
        lead = torch.broadcast_shapes(*(t.shape[:-1] for t in inputs))
        joined = torch.cat([t.expand(*lead, -1) for t in inputs], dim=-1)
        raw = nn.functional.linear(joined, self.weight).split(self.d_out, dim=-1)
        pieces = [softplus(r) if i in self.positive else r for i, r in enumerate(raw)]
        return tuple(pieces) if len(pieces) > 1 else pieces[0]


def plate_diagram(
    relations: Relations | Mapping[str, Relations], *, given: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Draw the relations of a model as a plate diagram, or those of several models side by side under their titles.

    A circle is a site, with its distribution family beside it. Shaded sites are observed. A box is a plate.
    `given` maps data that are not sites to the sites that depend on them: shaded squares with dashed arrows.

    Raises:
        ValueError: If there is no site to draw, or `given` names one that no diagram has.
    """
    import daft  # imports pyplot, which listings and sentences do not need

    given = given or {}
    panels: Mapping[str, Any] = {"": relations} if "sample_sample" in relations else relations
    sites = {site for panel in panels.values() for site in panel["sample_sample"]}
    unknown = {reader for readers in given.values() for reader in readers} - sites
    if unknown or not sites:
        raise ValueError(f"There is no site {', '.join(sorted(unknown)) or 'at all'} in the relations to draw.")
    pgm = daft.PGM(grid_unit=1.0, node_unit=0.95, line_width=1.1, node_ec=_INK)
    start = 0.0
    for title, panel in panels.items():
        places = _places(panel, given)
        first, last = (pick(x for x, _ in places.values()) for pick in (min, max))
        centers = {name: (start + (x - first) * _COLUMN, y * _ROW) for name, (x, y) in places.items()}
        _draw(pgm, title, panel, centers, given)
        start += (last - first) * _COLUMN + 2 * _SIDE + 0.5
    with np.errstate(divide="ignore"):  # daft divides by the slope of an arrow that leaves a square sideways
        pgm.render()
    return pgm.figure


def same_structure(one: Relations, other: Relations, *, besides: Collection[str] = ()) -> bool:
    """Return whether two models have the same sites, families, arrows, plates and observed sites.

    The sites in `besides` are left out of the comparison.
    """
    return not differences(one, other, besides=besides)


def differences(one: Relations, other: Relations, *, besides: Collection[str] = ()) -> list[str]:
    """Return sentences on where two models differ in sites, families, parents, plates and observed sites."""
    mine, theirs = (
        {site: fact for site, fact in _facts(relations).items() if site not in besides} for relations in (one, other)
    )
    found = [f"only the first has {site}" for site in mine if site not in theirs]
    found += [f"only the second has {site}" for site in theirs if site not in mine]
    for site in (site for site in mine if site in theirs):
        found += [
            f"{site} has {what} {mine[site][what]} in the first and {theirs[site][what]} in the second"
            for what in mine[site]
            if mine[site][what] != theirs[site][what]
        ]
    return found


def _facts(relations: Relations) -> dict[str, dict[str, object]]:
    """Return, for each site, the properties that `differences` compares; the order of sampling is not one of them."""
    return {
        site: {
            "family": relations["sample_dist"][site],
            "parents": sorted(parents),
            "plates": sorted(plate for plate, inside in relations["plate_sample"].items() if site in inside),
            "observed": site in relations["observed"],
        }
        for site, parents in relations["sample_sample"].items()
    }


def _places(relations: Relations, given: Mapping[str, Sequence[str]]) -> dict[str, Point]:
    """Return (column, row) of each site: fixed places for scANVI's sites, otherwise below the parents."""
    graph = {
        site: [*parents, *(name for name, readers in given.items() if site in readers)]
        for site, parents in relations["sample_sample"].items()
    }
    order = list(TopologicalSorter(graph).static_order())
    if _PLACES.keys() >= {*order}:
        return {name: _PLACES[name] for name in order}
    places: dict[str, Point] = {}
    for name in order:
        around = sum(name in inside for inside in relations["plate_sample"].values())
        row = min((places[parent][1] for parent in graph.get(name, [])), default=-around) - 1
        # every other row is shifted by half a column, so that no arrow crosses a circle between its ends
        places[name] = sum(y == row for _, y in places.values()) + row % 2 / 2, row
    return places


def _draw(
    pgm: Any, key: str, relations: Relations, centers: Mapping[str, Point], given: Mapping[str, Sequence[str]]
) -> None:
    """Add one diagram to a daft.PGM under its title `key`, which is also a prefix of its node names."""
    plates = relations["plate_sample"]
    middle = (min(x for x, _ in centers.values()) + max(x for x, _ in centers.values())) / 2
    for plate, inside in plates.items():
        members = {*inside, *(name for name, readers in given.items() if {*readers} & {*inside})}
        margin = 0.5 * sum({*other} < {*inside} for other in plates.values())
        xs, ys = zip(*(centers[name] for name in members), strict=True)
        low, left = min(ys) - _BELOW - margin, min(xs) - _SIDE - margin
        box = [left, low, max(xs) + _SIDE + margin - left, max(ys) + _ABOVE + margin - low]
        pgm.add_plate(box, plate, fontsize=9, rect_params={"ec": _GRAY, "fc": "none", "lw": 1.0})
    for name, (x, y) in centers.items():
        family = relations["sample_dist"].get(name)
        shade = _SHADE if family is None or name in relations["observed"] else "w"
        form = {"shape": "rectangle", "scale": 0.8} if family is None else {}
        pgm.add_node(key + name, _SYMBOLS.get(name, name), x, y, plot_params={"fc": shade}, **form)
        if family is not None:
            side, align = (-0.6, "right") if x < middle - 0.1 else (0.6, "left")
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", family)
            look = {"ha": align, "ma": align, "color": _GRAY}
            pgm.add_node(f"{key}{name}:", words, x + side, y, fontsize=8.5, plot_params=_BARE, label_params=look)
    if key:
        top = max(y for _, y in centers.values()) + _ABOVE + 0.5
        pgm.add_node(key, key, middle, top, scale=0.5, fontsize=11, plot_params=_BARE)
    arrows = [(parent, site, "-") for site, parents in relations["sample_sample"].items() for parent in parents]
    arrows += [(name, site, "--") for name, readers in given.items() for site in readers if site in centers]
    for start, end, line in arrows:
        pgm.add_edge(key + start, key + end, plot_params={"ls": line, "head_width": 0.16, "head_length": 0.22})

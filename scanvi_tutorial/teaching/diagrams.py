"""Plate diagrams of Pyro models, and whether two tell the same story.

Used by the book alone; book/02_sketch.md introduces them. Relations are what `pyro.infer.inspect.get_model_relations`
returns: for each site its parents ("sample_sample"), its distribution family ("sample_dist"), the plates around it
("plate_sample"), and the list of observed sites ("observed").
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import softplus

if TYPE_CHECKING:
    import daft

__all__ = [
    "COLUMN",
    "INK",
    "LONG",
    "PLACES",
    "SYMBOLS",
    "Point",
    "Relations",
    "Stub",
    "differences",
    "plate_diagram",
    "same_story",
]

Relations = Mapping[str, Any]
Point = tuple[float, float]

# Where a site of scANVI stands (column, row), so that the model and its guide can be laid side by side.
PLACES = {"z1": (0.0, 2.0), "y": (1.0, 2.0), "z2": (0.0, 1.0), "l": (1.0, 1.0), "x": (0.5, 0.0)}
SYMBOLS = {"z1": "$z_1$", "z2": "$z_2$", "y": "$y$", "l": r"$\ell$", "x": "$x$"}
INK, SHADE, GRAY = "#1b1f24", "#b9d0e6", "#57606a"
COLUMN, ROW, SIDE, ENDS, GAP = 2.4, 1.7, 2.9, 1.1, 0.5  # centimeters; SIDE leaves room for a family
LONG = 12  # characters of a family's name that fit beside its site


class Stub(nn.Module):
    """Stand in for a network: right shapes in and out, nothing learned.

    Inputs of shape (..., width) are broadcast against each other, because y may carry an
    enumeration axis, and joined to (..., d_in). The outputs have the shapes (..., d_out),
    a single one bare and several as a tuple; those whose position is in `positive` have
    gone through a softplus, for scales.
    """

    def __init__(
        self,
        d_in: int,
        *d_out: int,
        positive: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.d_in, self.d_out, self.positive = d_in, d_out, tuple(positive)
        draws = torch.Generator().manual_seed(seed)
        weight = torch.randn(sum(d_out), d_in, generator=draws) / d_in**0.5
        self.weight = nn.Parameter(weight)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map (..., d_in) in one or several pieces to (..., d_out) each."""
        lead = torch.broadcast_shapes(*(t.shape[:-1] for t in inputs))
        joined = torch.cat([t.expand(*lead, -1) for t in inputs], dim=-1)
        raw = nn.functional.linear(joined, self.weight).split(self.d_out, dim=-1)
        pieces = [softplus(r) if i in self.positive else r for i, r in enumerate(raw)]
        return tuple(pieces) if len(pieces) > 1 else pieces[0]

    def extra_repr(self) -> str:
        """Return the widths, as in `7 → 3, 3`."""
        return f"{self.d_in} → {', '.join(map(str, self.d_out))}"


def plate_diagram(
    relations: Relations | Mapping[str, Relations], *, given: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Draw relations as a plate diagram, or several of them side by side under their titles.

    A circle is a site with its distribution family beside it, a shaded one is observed, a box is a plate.
    `given` maps data that are no site to the sites that read them: a shaded square with dashed arrows.

    Raises:
        ValueError: If there is no site to draw, or `given` names one that no diagram has.
    """
    import daft  # brings pyplot along, which listings and sentences do without

    panels: Mapping[str, Any] = {"": relations} if "sample_sample" in relations else relations
    sites = {site for panel in panels.values() for site in panel["sample_sample"]}
    strangers = {reader for readers in (given or {}).values() for reader in readers} - sites
    if strangers or not sites:
        raise ValueError(f"There is no site {', '.join(sorted(strangers)) or 'at all'} in the relations to draw.")
    layouts = [_places(panel, given or {}) for panel in panels.values()]
    spots = [spot for layout in layouts for spot in layout.values()]
    (left, low), (right, high) = (tuple(pick(axis) for axis in zip(*spots, strict=True)) for pick in (min, max))
    width = (right - left) * COLUMN + 2 * SIDE
    height = (high - low) * ROW + 2 * ENDS + (0.7 if any(panels) else 0)
    pgm = daft.PGM((len(panels) * (width + GAP) - GAP, height), (0, 0), 1.0, 0.95, line_width=1.1, node_ec=INK)
    for i, (title, panel) in enumerate(panels.items()):
        start = i * (width + GAP)
        centers = {
            site: (start + SIDE + (x - left) * COLUMN, ENDS + (y - low) * ROW) for site, (x, y) in layouts[i].items()
        }
        _draw(pgm, f"panel {i} ", panel, centers, given or {})
        if title:
            _write(pgm, f"title {i}", title, (start + width / 2, height - 0.35), size=11)
    with np.errstate(divide="ignore"):  # daft divides by the slope of an arrow that leaves a square sideways
        pgm.render()
    return pgm.figure


def same_story(one: Relations, other: Relations, *, besides: Collection[str] = ()) -> bool:
    """Tell whether two models have the same sites, families, arrows, plates and observed sites.

    `besides` names sites to leave out of the comparison, on either side.
    """
    return not differences(one, other, besides=besides)


def differences(one: Relations, other: Relations, *, besides: Collection[str] = ()) -> list[str]:
    """List in words where two models differ in sites, families, parents, plates and what is observed."""
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
    """Return per site what `differences` compares; the order in which sites were sampled is not among it."""
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
    """Return (column, row) per site: scANVI's sites where readers expect them, others below their parents."""
    parents = dict(relations["sample_sample"])
    read = {name: [site for site in readers if site in parents] for name, readers in given.items()}
    names = [*parents, *(name for name, readers in read.items() if readers and name not in parents)]
    taken = {name: PLACES[name] for name in names if name in PLACES}
    for name in (name for name in names if name not in taken):
        above = [taken[parent] for parent in parents.get(name, []) if parent in taken]
        around = sum(name in inside for inside in relations["plate_sample"].values())
        row = min((y for _, y in above), default=4.0 - around) - 1.0
        wish = sum(x for x, _ in above) / len(above) if above else 0.0
        near = [
            (u, 1.0 if v == row else 0.5)
            for other, (u, v) in taken.items()
            if other not in parents.get(name, []) and abs(v - row) <= 1
        ]
        free = [wish + step / 2 * sign for step in range(2 * len(names) + 1) for sign in (-1, 1)]
        taken[name] = next(x for x in free if all(abs(x - u) >= room for u, room in near)), row
    return {name: taken[name] for name in names}


def _draw(
    pgm: daft.PGM, key: str, relations: Relations, centers: Mapping[str, Point], given: Mapping[str, Sequence[str]]
) -> None:
    """Add one diagram to `pgm`; `key` keeps its names apart from those of its neighbors."""
    arrows = [(parent, site, "-") for site, parents in relations["sample_sample"].items() for parent in parents]
    arrows += [(name, site, "--") for name, readers in given.items() for site in readers if site in centers]
    middle = sum(x for x, _ in centers.values()) / len(centers)
    for plate, inside in relations["plate_sample"].items():
        members = {*inside, *(name for name, site, line in arrows if line == "--" and site in inside)}
        xs, ys = zip(*(centers[name] for name in members), strict=True)
        inset = 0.1 + 0.12 * sum(set(inside) < set(others) for others in relations["plate_sample"].values())
        x, y = min(xs) - SIDE + inset, min(ys) - ENDS + inset
        box = [x, y, max(xs) + SIDE - inset - x, max(ys) + ENDS - inset - y]
        corner = "bottom left" if inset < 0.2 else "top left"  # a box within a box must not write over its label
        pgm.add_plate(box, plate, position=corner, fontsize=9, rect_params={"ec": GRAY, "fc": "none", "lw": 1.0})
    for name, (x, y) in centers.items():
        family = relations["sample_dist"].get(name)
        shaded = family is None or name in relations["observed"]
        form = {"shape": "rectangle", "scale": 0.8} if family is None else {}
        pgm.add_node(key + name, SYMBOLS.get(name, name), x, y, plot_params={"fc": SHADE if shaded else "w"}, **form)
        if family is not None:
            away = 1 if x > middle - 0.01 else -1
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", family)
            words = "\n".join(textwrap.wrap(words, LONG)).replace(" ", "")
            _write(pgm, f"{key}{name} family", words, (x + 0.6 * away, y), align="left" if away > 0 else "right")
    for start, end, line in arrows:
        pgm.add_edge(key + start, key + end, plot_params={"ls": line, "head_width": 0.16, "head_length": 0.22})


def _write(pgm: daft.PGM, key: str, words: str, at: Point, *, align: str = "center", size: float = 8.5) -> None:
    """Add words without a circle around them."""
    look = {"ha": align, "ma": align, "color": GRAY if align != "center" else INK}
    pgm.add_node(key, words, *at, fontsize=size, plot_params={"ec": "none", "fc": "none"}, label_params=look)

"""Genes that favor the label of a cell over another type, in nats (book/13_guarantee.md).

The decoder of one fit gives the likelihood of the counts of a cell in the mean state of a type; the log-likelihood
ratio of two types is a sum over genes. The label comes from all fits, label model and rules, so the two may disagree;
a warning is given if the likelihood of this one fit favors the other type.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.new_cells import cells_for
from scanvi_tutorial.inference.evidence import evidence as evidence_of_states
from scanvi_tutorial.inference.evidence import positions_of
from scanvi_tutorial.inputs.cells import check_cells
from scanvi_tutorial.inputs.errors import InputError, InputWarning, did_you_mean, listed

_MOST_CELLS, _GENES, _LEAST = 500, 5, 0.05  # cells of a type that are asked; genes that are named, and their nats


def evidence(
    model: Annotator | str | Path,
    adata: AnnData,
    cells: ArrayLike,
    *,
    name: str | None = None,
    rival: str | None = None,
    layer: str | None = None,
) -> pd.Series:
    """Return how much the counts of each gene favor the label of some cells over another type, in nats per cell.

    A gene can favor a type by a high as well as by a low count. The comparison is between two labeled types, so it does
    not explain rejected cells; for these see `uns["scanvi"]["groups"]`.

    Args:
        model: What `annotate(..., model=path)` saved, as a file or as an `Annotator`.
        adata: Raw counts, (cells, genes), as `predict` takes them.
        cells: Names or positions of the cells, or a mask of bool (cells,).
        name: The type that positive values favor; None takes the most probable one.
        rival: The other type; None takes the most probable other one.
        layer: Where the counts are, if not in `X`.

    Returns:
        A series called "nats", by gene, the largest first: the sum is that of log p(x | name) − log p(x | rival), the
        mean over the cells. Its `attrs` have `name` and `rival`.

    Raises:
        InputError: Where there are no such cells or types, or counts or genes cannot be used.
        PersistenceError: Where the file is no saved annotation.

    Warns:
        InputWarning: Where the sum over genes favors the rival.
    """
    annotator = model if isinstance(model, Annotator) else Annotator.load(model)
    check_cells(adata)
    rows = positions_of(adata, cells)
    aligned = cells_for(annotator, adata[rows], layer)
    types = list(annotator.label_names)
    for asked in (name, rival):
        if asked is not None and asked not in types:
            raise InputError(f"There is no type {asked!r}{did_you_mean(asked, types)} The types are {listed(types)}.")
    if name is not None and name == rival:
        raise InputError(f"{name!r} cannot be its own rival. Name another type.")
    order = np.argsort(-annotator.say(aligned).probabilities.mean(0), kind="stable")
    name = next(types[kind] for kind in order if types[kind] != rival) if name is None else name
    rival = next(types[kind] for kind in order if types[kind] != name) if rival is None else rival
    states = _mean_states(annotator, [types.index(kind) for kind in (name, rival)])
    found = evidence_of_states(annotator.fits[0], aligned, np.arange(aligned.n_obs), *states)
    if found.sum() < 0:
        warnings.warn(
            f"The likelihood of this one fit favors {rival!r}, by {-found.sum():.1f} nats per cell. "
            f"The label {name!r} comes from all fits, label model and rules.",
            InputWarning,
            stacklevel=2,
        )
    found.attrs |= {"name": name, "rival": rival}
    return found


def evidence_by_type(
    annotator: Annotator, cells: AnnData, probabilities: NDArray[np.floating], refused: NDArray[np.bool_]
) -> pd.DataFrame:
    """Return a row for each type that some cell is named: its rival, nats per cell, and the genes that speak most.

    The rival of a type is the one that its cells are most probably of beside it. Of many cells of a type, 500 are asked
    that lie evenly among the others.

    Args:
        annotator: Its first fit is asked.
        cells: Raw counts of its genes, (cells, genes).
        probabilities: (cells, types).
        refused: (cells,), which have no name.
    """
    names, best = list(annotator.label_names), np.where(refused, -1, probabilities.argmax(1))
    rows = {}
    for kind in np.unique(best[best >= 0]):
        own = np.flatnonzero(best == kind)
        mean = probabilities[own].mean(0)
        mean[kind] = -1.0
        rival = int(mean.argmax())
        some = own[np.linspace(0, len(own) - 1, min(len(own), _MOST_CELLS)).astype(int)]
        found = evidence_of_states(annotator.fits[0], cells, some, *_mean_states(annotator, [kind, rival]))
        rows[names[kind]] = {
            "rival": names[rival],
            "nats": float(found.sum()),
            "for": _strongest(found[found > 0]),
            "against": _strongest(-found[found < 0][::-1]),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["rival", "nats", "for", "against"])


def _mean_states(annotator: Annotator, kinds: Sequence[int]) -> NDArray[np.float64]:
    """Return the mean states of types in the label model's view of the first fit, (types, latent)."""
    parameters = annotator.parameters
    return parameters.means[0][kinds] * parameters.units[0] + parameters.origins[0]


def _strongest(nats: pd.Series) -> str:
    return ", ".join(f"{gene} {number:.1f}" for gene, number in nats[:_GENES].items() if number >= _LEAST)

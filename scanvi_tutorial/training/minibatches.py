"""Minibatches of unlabeled and labeled cells, made from sparse counts.

Explained in book/05_training.md. If all cells were shuffled together, most minibatches would contain few labeled cells
or none, because labels are rare. So each minibatch has a part with unlabeled and a part with labeled cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.inputs.arrays import Cells, SparseCounts, chunks


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """The unlabeled or the labeled cells of a minibatch."""

    x: Float[Tensor, "cells genes"] | SparseCounts  # counts
    y: Float[Tensor, "cells labels"] | None = None  # types, one-hot; None for cells without a label
    depth: Float[Tensor, "cells 1"] | None = None  # share of the molecules that were kept; None means all
    batch: Float[Tensor, "cells batches"] | None = None  # one-hot; None in a model without batches

    def to(self, device: torch.device) -> Half:
        """Return the same cells on `device`."""
        parts = (self.x, self.y, self.depth, self.batch)
        return type(self)(*(None if part is None else part.to(device) for part in parts))


@dataclass(frozen=True, slots=True, eq=False)
class Minibatch:
    """The cells of one optimizer step; one of the two halves may be absent."""

    unlabeled: Half | None
    labeled: Half | None

    def to(self, device: torch.device) -> Minibatch:
        """Return the same minibatch on `device`."""
        return type(self)(*(half and half.to(device) for half in (self.unlabeled, self.labeled)))


def paired_minibatches(
    cells: Cells,
    unlabeled_rows: np.ndarray,
    labeled_rows: np.ndarray,
    *,
    batch_size: int,
    labeled_batch_size: int,
    min_depth: float = 1.0,
    sparse: bool = False,
    rng: np.random.Generator,
    part: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
    molecules: np.random.Generator | None = None,
) -> Iterator[Minibatch]:
    """Yield the minibatches of one epoch: each unlabeled cell once, together with labeled cells.

    Args:
        cells: Counts and codes of all cells.
        unlabeled_rows: Rows without a label, (n,).
        labeled_rows: Rows with one, (m,).
        batch_size: Unlabeled cells in a minibatch, at least; see `chunks`.
        labeled_batch_size: Labeled cells in a minibatch, at most.
        min_depth: Every cell keeps a share of its molecules between this and one; see `downsample_counts`.
        sparse: Leave the zeros out, for the fast engine.
        rng: Draws the order.
        part: Selects the rows of this process, if several processes share a minibatch.
        molecules: Draws the molecules that are kept; `rng` where it is None.
    """
    settings = {"min_depth": min_depth, "sparse": sparse, "rng": molecules or rng}
    for rows in chunks(rng.permutation(unlabeled_rows), batch_size) if len(unlabeled_rows) else [unlabeled_rows]:
        beside = labeled_rows
        if len(beside) > labeled_batch_size:
            beside = rng.choice(beside, size=labeled_batch_size, replace=False)
        yield Minibatch(
            read_half(cells, _two_or_more(part(rows)), **settings),
            read_half(cells, _two_or_more(part(beside)), labeled=True, **settings),
        )


def read_half(
    cells: Cells,
    rows: np.ndarray,
    *,
    labeled: bool = False,
    min_depth: float = 1.0,
    sparse: bool = False,
    rng: np.random.Generator | None = None,
) -> Half | None:
    """Return the cells of `rows`, with their labels if `labeled`, downsampled if `min_depth` < 1; None without rows.

    `rng` draws the molecules that are kept; without downsampling nothing is drawn.
    """
    if not len(rows):
        return None
    counts, depth = cells.counts[rows], None
    if min_depth < 1:
        counts, kept = downsample_counts(counts, min_depth, rng)
        depth = torch.from_numpy(kept.astype(np.float32))
    x = SparseCounts.from_csr(counts) if sparse else torch.from_numpy(counts.toarray())
    return Half(x, cells.y(rows) if labeled else None, depth, cells.batch(rows))


def downsample_counts(
    counts: csr_matrix,
    min_depth: float,
    rng: np.random.Generator,
) -> tuple[csr_matrix, np.ndarray]:
    """Return downsampled counts and the depth of each cell, (cells, 1).

    For each cell a depth between `min_depth` and one is drawn, and each molecule is kept with
    that probability. A negative binomial count remains negative binomial: its mean is
    multiplied by the depth, and its inverse dispersion is unchanged.
    """
    depth = rng.uniform(min_depth, 1, counts.shape[0])
    chance = np.repeat(depth, np.diff(counts.indptr))
    molecules = np.rint(counts.data).astype(np.int64)
    # most counts are one, and drawing from a binomial is slow
    kept = ((rng.random(len(chance)) < chance) & (molecules > 0)).astype(np.int64)
    many = np.flatnonzero(molecules > 1)
    kept[many] = rng.binomial(molecules[many], chance[many])
    parts = (kept.astype(counts.dtype), counts.indices.copy(), counts.indptr.copy())
    downsampled = csr_matrix(parts, counts.shape)
    downsampled.eliminate_zeros()
    return downsampled, depth[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows for training and held-out rows."""

    unlabeled_rows: np.ndarray
    held_out_rows: np.ndarray  # unlabeled cells on which the bound is monitored
    labeled_rows: np.ndarray


def split_cells(codes: np.ndarray, config: TrainConfig) -> Split:
    """Hold out unlabeled cells, drawn with `config.seed`; `codes` is (cells,) with -1 for unlabeled."""
    unlabeled = np.random.default_rng(config.seed).permutation(np.flatnonzero(codes < 0))
    watched = math.ceil(config.held_out * len(unlabeled)) if len(unlabeled) > 2 else 0
    return Split(
        unlabeled_rows=np.sort(unlabeled[watched:]),
        held_out_rows=np.sort(unlabeled[:watched]),
        labeled_rows=np.flatnonzero(codes >= 0),
    )


def length_of(split: Split, config: TrainConfig) -> tuple[int, int]:
    """Return the largest number of epochs of a fit and the number of steps per epoch."""
    steps = len(chunks(split.unlabeled_rows, config.batch_size))
    return max(1, min(config.max_epochs, config.max_steps // steps)), steps


def _two_or_more(rows: np.ndarray) -> np.ndarray:
    """Repeat the cell if there is only one, because BatchNorm is undefined for a single cell."""
    return np.repeat(rows, 2) if len(rows) == 1 else rows

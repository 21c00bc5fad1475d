"""Minibatches that pair unlabeled cells with labeled ones; counts stay sparse until here.

Explained in book/05_training.md. If labeled and unlabeled cells shared one shuffled queue, a few hundred labels
among thousands of cells would hardly ever be looked at; here every step sees both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.inputs.arrays import Cells, SparseCounts, chunks
from scanvi_tutorial.inputs.errors import InputError

__all__ = ["Minibatch", "Split", "downsample_counts", "paired_minibatches", "split_cells"]

_FEWEST_SEEDS = 20  # a class must keep this many after some are held out, for held-out labels to be watched


@dataclass(frozen=True, eq=False, slots=True)
class Minibatch:
    """What one step of the optimizer looks at; either half may be absent, not both."""

    x: Float[Tensor, "cells genes"] | SparseCounts | None  # counts of unlabeled cells
    x_labeled: Float[Tensor, "labeled genes"] | SparseCounts | None  # counts of labeled cells
    y: Float[Tensor, "labeled labels"] | None  # their types, one-hot
    share: Float[Tensor, "cells 1"] | None = None  # of the molecules of x that were kept; None means all
    share_labeled: Float[Tensor, "labeled 1"] | None = None  # likewise of x_labeled
    batch: Float[Tensor, "cells batches"] | None = None  # of the cells of x, one-hot; None in a model without batches
    batch_labeled: Float[Tensor, "labeled batches"] | None = None  # likewise of x_labeled

    def to(self, device: torch.device) -> Minibatch:
        """Return the same minibatch on `device`."""
        parts = (self.x, self.x_labeled, self.y, self.share, self.share_labeled, self.batch, self.batch_labeled)
        return type(self)(*(None if part is None else part.to(device) for part in parts))


def paired_minibatches(
    cells: Cells,
    unlabeled: np.ndarray,
    labeled: np.ndarray,
    *,
    size: int,
    labeled_size: int,
    balanced: bool = False,
    min_depth: float = 1.0,
    sparse: bool = False,
    rng: np.random.Generator,
) -> Iterator[Minibatch]:
    """Yield one epoch: every row of `unlabeled` once, each minibatch beside labeled cells.

    Args:
        cells: Counts and codes of all cells.
        unlabeled: Rows without a label, (n,).
        labeled: Rows with one, (m,).
        size: Unlabeled cells in a minibatch, at least; see `chunks`.
        labeled_size: Labeled cells in a minibatch: all of them where they are no more than this.
        balanced: Draw the labeled cells with equal chances for every type, with replacement.
        min_depth: Every cell keeps a share of its molecules between this and one; see `downsample_counts`.
        sparse: Leave the zeros out, for the fast engine.
        rng: Draws the order and the molecules; nothing else is random here.
    """
    for rows in chunks(rng.permutation(unlabeled), size) if len(unlabeled) else [unlabeled]:
        if len(rows) == 1:
            rows = np.repeat(rows, 2)  # the only unlabeled cell there is
        beside = _draw_labeled(cells.codes, labeled, labeled_size, balanced, rng)
        if len(beside) == 1:
            beside = np.repeat(beside, 2)  # likewise
        x, share = _counts_and_shares(cells, rows, min_depth, sparse, rng)
        x_labeled, share_labeled = _counts_and_shares(cells, beside, min_depth, sparse, rng)
        y = cells.y(beside) if len(beside) else None
        yield Minibatch(x, x_labeled, y, share, share_labeled, cells.batch(rows), cells.batch(beside))


def downsample_counts(
    counts: csr_matrix,
    least: float,
    rng: np.random.Generator,
) -> tuple[csr_matrix, np.ndarray]:
    """Return cells as if sequenced less deeply, and the share that each kept, (cells, 1).

    Every cell draws a share between `least` and one, and keeps each of its molecules with
    that chance. A negative binomial count stays one: its mean shrinks by the share, its
    inverse dispersion is what it was.
    """
    shares = rng.uniform(least, 1, counts.shape[0])
    molecules = np.rint(counts.data).astype(np.int64)
    kept = rng.binomial(molecules, np.repeat(shares, np.diff(counts.indptr)))
    parts = (kept.astype(counts.dtype), counts.indices.copy(), counts.indptr.copy())
    thin = csr_matrix(parts, counts.shape)
    thin.eliminate_zeros()
    return thin, shares[:, None]


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """Rows to learn from and rows to watch."""

    unlabeled: np.ndarray
    held_out: np.ndarray  # unlabeled cells on which the bound is watched
    labeled: np.ndarray
    held_out_labeled: np.ndarray  # empty unless held-out labels are watched


def split_cells(codes: np.ndarray, config: TrainConfig, label_names: Sequence[str]) -> Split:
    """Set cells aside, drawn with `config.seed`; `codes` is (cells,) with -1 for unlabeled.

    Raises `InputError` where labels are to be watched and a class has too few to spare.
    """
    rng = np.random.default_rng(config.seed)
    unlabeled = rng.permutation(np.flatnonzero(codes < 0))
    watched = math.ceil(config.held_out * len(unlabeled)) if len(unlabeled) > 2 else 0
    aside = np.empty(0, dtype=int)
    if config.monitor == "labels":
        parts = []
        for code, name in enumerate(label_names):
            rows = rng.permutation(np.flatnonzero(codes == code))
            spared = len(rows) // 5
            if len(rows) - spared < _FEWEST_SEEDS:
                raise InputError(
                    f"Early stopping cannot watch held-out labels: {name!r} has {len(rows)} labeled cells, and would "
                    f"keep fewer than {_FEWEST_SEEDS} to learn from. Use monitor='bound', or label more cells."
                )
            parts.append(rows[:spared])
        aside = np.concatenate(parts)
    return Split(
        unlabeled=np.sort(unlabeled[watched:]),
        held_out=np.sort(unlabeled[:watched]),
        labeled=np.setdiff1d(np.flatnonzero(codes >= 0), aside),
        held_out_labeled=np.sort(aside),
    )


def _counts_and_shares(
    cells: Cells, rows: np.ndarray, min_depth: float, sparse: bool, rng: np.random.Generator
) -> tuple[Tensor | SparseCounts | None, Tensor | None]:
    if not len(rows):
        return None, None
    counts, shares = cells.counts[rows], None
    if min_depth < 1:
        counts, kept = downsample_counts(counts, min_depth, rng)
        shares = torch.from_numpy(kept.astype(np.float32))
    return SparseCounts.from_csr(counts) if sparse else torch.from_numpy(counts.toarray()), shares


def _draw_labeled(
    codes: np.ndarray, labeled: np.ndarray, size: int, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    if balanced and len(labeled):
        _, code, count = np.unique(codes[labeled], return_inverse=True, return_counts=True)
        chance = 1 / count[code]
        return rng.choice(labeled, size=min(size, len(labeled)), p=chance / chance.sum())
    return labeled if len(labeled) <= size else rng.choice(labeled, size=size, replace=False)

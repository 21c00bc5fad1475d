"""The history of a fit: a table with one row per epoch. Explained in book/05_training.md."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from torch import Tensor, nn


@dataclass(frozen=True)
class History:
    """The course of a fit.

    `frame` is `rows` as a table with one row per epoch. Its columns are, in nats per cell: `loss` (the training loss),
    `bound_train` and `bound_held_out`, the terms of the latter (`log_likelihood`, `kl_l`, `kl_z`, `kl_y`) and, if the
    fit used labels, `cross_entropy` (mean over labeled cells). Further columns are `kl_weight` and `learning_rate`.
    """

    rows: list[dict[str, float]]
    best_epoch: int  # the epoch whose parameters the model has
    stopped_early: bool
    seconds: float  # with those of interrupted runs, each up to its last checkpoint

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as a table, (epochs, quantities)."""
        frame = pd.DataFrame(self.rows, index=pd.RangeIndex(len(self.rows), name="epoch"))
        frame.attrs["best_epoch"] = self.best_epoch
        return frame

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.rows)


@dataclass
class FitState:
    """The progress of a fit."""

    rows: list[dict[str, float]] = field(default_factory=list)  # of the history, one per epoch
    best: float = -math.inf  # the best held-out bound so far
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    seconds: float = 0.0  # of earlier, interrupted runs

    def add(self, row: dict[str, float], score: float, model: nn.Module) -> None:
        """Add an epoch; if its score is the highest so far, keep the parameters of `model`."""
        if score > self.best:
            self.best, self.best_epoch = score, len(self.rows)
            self.best_state = copy.deepcopy(model.state_dict())
        self.rows.append(row)

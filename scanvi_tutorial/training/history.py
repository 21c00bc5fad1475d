"""What a fit leaves to look at: a table with one row an epoch. Read in book/05_training.md."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from torch import Tensor, nn


@dataclass(frozen=True)
class History:
    """What happened during `fit`.

    `frame` is `rows` as a table. It has one row an epoch and, in nats per cell: `loss` (what the steps minimized),
    `bound_train` and `bound_held_out`, the terms of the latter (`log_likelihood`, `kl_l`, `kl_z`, `kl_y`) and, unless
    no label was looked at, `cross_entropy` (mean over labeled cells); further `kl_weight` and `learning_rate`.
    """

    rows: list[dict[str, float]]
    best_epoch: int  # the epoch whose state the model was left in
    stopped_early: bool
    seconds: float  # of every process that worked on it, up to the checkpoint that the next one took over

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
    """How far a fit has come."""

    rows: list[dict[str, float]] = field(default_factory=list)  # of the history, one an epoch
    best: float = -math.inf  # what was watched, at its best
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    seconds: float = 0.0  # spent on it by processes that are gone

    def add(self, row: dict[str, float], score: float, model: nn.Module) -> None:
        """Note an epoch; where it scored higher than all before, keep the state of `model`."""
        if score > self.best:
            self.best, self.best_epoch = score, len(self.rows)
            self.best_state = copy.deepcopy(model.state_dict())
        self.rows.append(row)

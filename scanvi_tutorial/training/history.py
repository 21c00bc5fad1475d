"""What a fit leaves to look at: a table with one row an epoch. Read in book/05_training.md."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor, nn

__all__ = ["FitState", "History"]


@dataclass(frozen=True, eq=False)
class History:
    """What happened during `fit`.

    `frame` has one row an epoch and, in nats per cell: `loss` (what the steps minimized), `bound_train` and
    `bound_held_out`, the terms of the latter (`log_likelihood`, `kl_l`, `kl_z`, `kl_y`) and, unless no label was looked
    at, `cross_entropy` (mean over labeled cells); further `kl_weight`, `learning_rate` and, where held-out labels are
    watched, `held_out_accuracy`.
    """

    frame: pd.DataFrame
    best_epoch: int  # the epoch whose state the model was left in
    stopped_early: bool
    seconds: float  # of every process that worked on it, up to the checkpoint that the next one took over

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.frame)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types from which `from_dict` makes an equal history."""
        rest = {"best_epoch": self.best_epoch, "stopped_early": self.stopped_early, "seconds": self.seconds}
        return {"frame": self.frame.to_dict("list"), **rest}

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, float]], best_epoch: int, stopped_early: bool, seconds: float
    ) -> History:
        """Return the history of epochs of which each left a row."""
        frame = pd.DataFrame(list(rows), index=pd.RangeIndex(len(rows), name="epoch"))
        frame.attrs["best_epoch"] = best_epoch
        return cls(frame, best_epoch, stopped_early, seconds)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> History:
        """Return the history that `to_dict` described."""
        rows = pd.DataFrame(saved["frame"]).to_dict("records")
        return cls.from_rows(rows, saved["best_epoch"], saved["stopped_early"], saved["seconds"])


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

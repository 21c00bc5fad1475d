"""Where an AnnData keeps what is read of it, as its owner named it: labels, counts, batches."""

from __future__ import annotations

from dataclasses import dataclass

from scanvi_tutorial.config import UNLABELED

__all__ = ["Columns"]


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns and layer that a model or a method reads."""

    labels_key: str = "label"  # column of `obs` with the labels
    unlabeled_category: str | int = UNLABELED  # a further name for "without a label" in that column
    layer: str | None = None  # layer with the raw counts; None reads `X`
    batch_key: str | None = None  # column of `obs` with the batches, if they are to be told apart

"""All settings of the book, and the only code that reads environment variables.

Introduced in book/01_data.md (profiles), book/04_model.md (model) and book/05_training.md (training).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from tqdm.auto import tqdm

DATASETS = ("simulated", "pbmc68k", "facs", "facs-t", "worm", "pbmc")
UNLABELED = "Unknown"  # the category of a cell without a known type
NONE_OF_THESE = "none of these"  # the label of a cell that resembles no labeled type
#: The contribution of a labeled cell to the loss. With "labels" it is L and the cross-entropy; with "everywhere" it is
#: U, as for an unlabeled cell, and the cross-entropy; with "unlabeled" it is U alone, so that no label is used.
Objective = Literal["labels", "everywhere", "unlabeled"]

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The configuration of the model: its likelihood, the sizes of its networks, the weight of the labels.

    `label_weight` is w in: loss = mean bound per cell + w · mean cross-entropy over labeled cells.
    """

    gene_likelihood: Literal["zinb", "nb", "poisson"] = "zinb"  #: distribution of the counts
    library: Literal["latent", "observed"] = "latent"  #: whether the library size is inferred or is the total count
    n_latent: int = 10  #: dimensions of z1 and of z2
    gene_hidden: tuple[int, ...] = (128,)  #: hidden layers of Z2LEncoder and XDecoder
    label_hidden: tuple[int, ...] = (128,)  #: hidden layers of Z2Decoder and Z1Encoder
    classifier_hidden: tuple[int, ...] = (128,)  #: hidden layers of Classifier; () makes it linear
    norm: Literal["batch", "layer", "none"] = "batch"  #: normalization inside hidden layers only
    dropout_rate: float = 0.1  #: share of hidden units that are dropped out during training
    label_weight: float = 50.0  #: w, the weight of the mean cross-entropy
    shares: Literal["equal", "learned"] = "equal"  #: p(y): equal for all types, or learned under a Dirichlet prior
    label_noise: float = 0.0  #: share of labels that are expected to be wrong; with 0, labels are assumed to be right
    confusion: Literal["given", "learned"] = (
        "given"  #: whether wrong labels are spread evenly over types, or the confusion matrix is learned
    )

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("gene_hidden", "label_hidden", "classifier_hidden"):
            _check(self, name, all(width >= 1 for width in getattr(self, name)), "widths of at least 1")
        _check(self, "n_latent", self.n_latent >= 1, "at least 1")
        _check(self, "label_weight", self.label_weight >= 0, "at least 0")
        _check(self, "dropout_rate", 0 <= self.dropout_rate < 1, "in [0, 1)")
        _check(self, "label_noise", 0 <= self.label_noise <= 0.5, "in [0, 0.5]")
        if self.shares == "learned":  # BatchNorm removes the mean of a minibatch, which depends on the shares
            _check(self, "norm", self.norm != "batch", '"layer" or "none" where shares is "learned"')
        if self.confusion == "learned":
            _check(self, "label_noise", self.label_noise > 0, 'above 0 where confusion is "learned"')

    @classmethod
    def tutorial(cls) -> ModelConfig:
        """Return the network sizes of Pyro's scANVI tutorial: hidden 100 and 50, latent 10."""
        return cls(gene_hidden=(100,), label_hidden=(50,), classifier_hidden=(50,))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The configuration of training."""

    seed: int = 0  #: draws minibatches, latents, dropout and the held-out cells
    max_epochs: int = 100  #: largest number of passes over the unlabeled cells
    max_steps: int = 2_000  #: largest number of optimizer steps, rounded down to whole epochs (at least one)
    batch_size: int = 128  #: unlabeled cells in a step
    labeled_batch_size: int = 128  #: labeled cells in a step, at most
    min_depth: float = 0.1  #: each training cell is downsampled to a share of its molecules between this and 1
    objective: Objective = "labels"  #: the contribution of a labeled cell to the loss
    learning_rate: float = 3e-3  #: the peak of the one-cycle schedule
    warmup: float = 0.5  #: share of the steps over which the weight of the KL terms rises to one
    held_out: float = 0.1  #: share of the unlabeled cells that are held out to monitor the bound
    patience: int = 20  #: epochs without a better held-out bound before training stops
    engine: Literal["fast", "pyro"] = "fast"  #: how the bound is computed; both give the same
    device: str = "auto"  #: "auto" takes CUDA, then MPS, then the CPU; else "cpu", "cuda", "cuda:1", "mps"

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("max_epochs", "max_steps", "patience"):
            _check(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("batch_size", "labeled_batch_size"):
            _check(self, name, getattr(self, name) >= 2, "at least 2")
        _check(self, "min_depth", 0 < self.min_depth <= 1, "in (0, 1]")
        _check(self, "learning_rate", self.learning_rate > 0, "above 0")
        _check(self, "warmup", 0 <= self.warmup <= 1, "in [0, 1]")
        _check(self, "held_out", 0 < self.held_out <= 0.5, "in (0, 0.5]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The settings of a run of the book; chapters read all sizes from here, whatever the profile."""

    smoke: bool = False  #: the short profile on simulated counts
    dataset: str = "pbmc68k"  #: a name for `st.load`
    data_dir: Path | None = None  #: folder of downloads; None means a cache of the user
    quiet: bool = False  #: no progress bars
    genes: int = 2_000  #: largest number of genes in the model

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(
                f"SCANVI_DATASET names no data set of this book: {self.dataset!r}. Choose one of {', '.join(DATASETS)}."
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> RunConfig:
        """Read CI, SCANVI_SMOKE (overrides CI), SCANVI_DATASET, SCANVI_DATA_DIR, TQDM_DISABLE."""
        env = os.environ if environ is None else environ
        switch = env.get("SCANVI_SMOKE")
        smoke = bool(env.get("CI")) if switch in (None, "") else _flag("SCANVI_SMOKE", switch)
        folder = env.get("SCANVI_DATA_DIR")
        return cls(
            smoke=smoke,
            dataset="simulated" if smoke else env.get("SCANVI_DATASET") or "pbmc68k",
            data_dir=Path(folder).expanduser() if folder else None,
            quiet=_flag("TQDM_DISABLE", env.get("TQDM_DISABLE", "")),
        )

    @property
    def train(self) -> TrainConfig:
        """The training configuration of a chapter."""
        return TrainConfig(max_epochs=40, batch_size=64, warmup=0.25) if self.smoke else TrainConfig()

    @property
    def train_unlabeled(self) -> TrainConfig:
        """The training configuration of a fit without labels."""
        return replace(self.train, objective="unlabeled") if self.smoke else UNLABELED_TRAIN

    @property
    def per_label(self) -> int:
        """The number of seed cells per type: 50 in the tutorial's data set, else 10."""
        return 50 if self.dataset == "pbmc" else 10

    @property
    def draws(self) -> int:
        """The number of repetitions of a comparison, each with new seed cells and new weights."""
        return 2 if self.smoke else 3


def progress_bar(
    steps: Iterable[T], description: str, *, unit: str = "it", shown: bool = True, total: int | None = None
) -> "tqdm[T]":
    """Return `steps` with a progress bar, which `TQDM_DISABLE=1` hides (tqdm.auto alone does not)."""
    silent = not shown or os.environ.get("TQDM_DISABLE", "").lower() in _TRUE
    return tqdm(steps, desc=description, unit=unit, disable=silent, total=total)


@contextmanager
def no_progress() -> Iterator[None]:
    """Hide the progress bars that are created in the block."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TQDM_DISABLE") if before is None else os.environ.update(TQDM_DISABLE=before)


def _flag(name: str, text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"{name} must be 1 or 0, got {text!r}.")


def _check_types(settings: ModelConfig | TrainConfig) -> None:
    """Raise an error for a value of the wrong type; 10.0 is accepted as a whole number, and a list as widths."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal:
            _check(settings, name, value in get_args(kind), f"one of {', '.join(get_args(kind))}")
        elif kind is int:
            _check(settings, name, is_whole(value), "a whole number")
            object.__setattr__(settings, name, int(value))
        elif kind is float:
            _check(settings, name, isinstance(value, Real), "a number")
        elif get_origin(kind) is tuple:
            of_numbers = isinstance(value, list | tuple) and all(map(is_whole, value))
            _check(settings, name, of_numbers, "a list of whole numbers, such as (128,)")
            object.__setattr__(settings, name, tuple(map(int, value)))


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number of any numeric type, such as 10 or 10.0, but not True."""
    of_integers = isinstance(value, Integral) and not isinstance(value, bool)
    return of_integers or (isinstance(value, float | np.floating) and float(value).is_integer())


def _check(settings: ModelConfig | TrainConfig, name: str, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, got {getattr(settings, name)!r}.")


#: A fit without labels reaches about the same bound in fewer epochs at a higher rate (book/11_speed.md).
UNLABELED_TRAIN = TrainConfig(objective="unlabeled", max_epochs=50, learning_rate=1e-2, patience=10)

"""scANVI as a `Baseline`: a single fit with labels, and the recommended method, several fits without labels.

Used in book/08_evaluation.md. The recommended method pools a label model and rules, learned on the latent states.
"""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.annotation.combined import answer_from_states, components_of
from scanvi_tutorial.annotation.progress import bar_of_steps, count_steps
from scanvi_tutorial.annotation.tasks import run_tasks
from scanvi_tutorial.config import UNLABELED, UNLABELED_TRAIN, ModelConfig, TrainConfig
from scanvi_tutorial.inference.predictions import label_probabilities, latent
from scanvi_tutorial.inputs.batches import ConfoundedBatchWarning, check_batches, confounding
from scanvi_tutorial.inputs.cells import Columns, strip_to_inputs
from scanvi_tutorial.inputs.coarse import Coarse
from scanvi_tutorial.inputs.errors import warn_of, whole_number
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.session import one_thread, usual_settings
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.cache import fit_or_load
from scanvi_tutorial.training.history import History
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import length_of, split_cells

_FEWEST_AND_MOST, _CELLS_TIMES_FITS = (4, 6), 16_000  # fits, so that many cells do not take hours
_MOST_COMPONENTS = 30  # of the states of fits that see no label: a step takes time for each (book/14_scale.md)
_ONE_AT_A_TIME = threading.Lock()  # in a process: fits draw from torch's own generator
_NORMS: tuple[Literal["layer", "batch"], ...] = ("layer", "batch")  # in turn, since neither is better on all cells


@dataclass(frozen=True, slots=True)
class SingleFit:
    """One fit of scANVI, of this model trained in this way; the seed draws its weights and minibatches.

    `samples` draws of the state are averaged over; 0 asks the classifier at the posterior mean.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    samples: int = 25
    folder: str | Path | None = None  # where fits are kept; None is `cache_folder()`

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        train = replace(self.train, seed=seed)
        fitted, _ = fit_or_load(adata, self.model, train, labels_key=labels_key, folder=self.folder)
        return label_probabilities(fitted, adata, samples=self.samples, seed=seed)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Several fits of scANVI without labels; a label model and rules are learned on their latent states.

    The fits use LayerNorm and BatchNorm in turn, whatever the `norm` of `model` is.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = UNLABELED_TRAIN
    fits: int | None = None  # None: six, and fewer from 2,700 cells on, but four at the least
    batch_key: str | None = None  # the column of obs with a batch that decoder and library know
    folder: str | Path | None = None  # where fits are kept, unfinished ones too; None is `cache_folder()`
    keep: bool = True  # False fits anew and leaves nothing on disk
    jobs: int = 1  # how many fits run side by side, each in a process of its own, on one thread; see `run_tasks`

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", whole_number(self.jobs, "jobs", 1))
        if self.fits is not None:
            object.__setattr__(self, "fits", whole_number(self.fits, "fits", 1))

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        states = [latent(model, adata) for model, _ in self.fit(adata, labels_key, seed)]
        components = None if self.batch_key else components_of(adata)[1]  # they know no batches
        return answer_from_states(states, components, adata, labels_key=labels_key, seed=seed).probabilities

    def fit(self, adata: AnnData, labels_key: str, seed: int) -> list[tuple[SCANVI, History]]:
        """Return the fitted models and their histories; `labels_key` only says how many types there are."""
        count = self.fits or int(np.clip(_CELLS_TIMES_FITS // adata.n_obs, *_FEWEST_AND_MOST))
        seeds = np.random.SeedSequence(seed).generate_state(count)
        steps = math.prod(length_of(split_cells(np.full(adata.n_obs, -1), self.train), self.train))
        if self.batch_key is not None:
            text = confounding(*check_labels(adata, labels_key), check_batches(adata, self.batch_key))
            if text is not None:
                warnings.warn(text, ConfoundedBatchWarning, stacklevel=2)
        seen = _with_components(adata, labels_key)
        with bar_of_steps(f"{count} fits", count, steps) as folder:
            tasks = [
                (self, seen, labels_key, int(own), norm, folder, steps)
                for own, norm in zip(seeds, islice(cycle(_NORMS), count), strict=True)
            ]
            done = dict(run_tasks(_one, tasks, min(self.jobs, count)))
        return [done[number] for number in range(count)]


@usual_settings()
def recommended(
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    fits: int | None = None,
    folder: str | Path | None = None,
    layer: str | None = None,
    unlabeled_category: object = UNLABELED,
    batch_key: str | None = None,
    coarse: Coarse | str | None = None,
    jobs: int = 1,
) -> pd.DataFrame:
    """Return probabilities (cells, labels) of the recommended method: an `Ensemble` of fits without labels.

    One label per type is enough to run. For your own data use `annotate`, which also checks data and results.

    Args:
        adata: Raw counts, (cells, genes), of the genes for the model.
        labels_key: Column of `obs` with the labels; cells without one are missing there, or "Unknown".
        seed: Of weights and minibatches.
        model: `ModelConfig()` where it is None; its `norm` is LayerNorm and BatchNorm in turn in any case.
        train: `UNLABELED_TRAIN` where it is None; its objective is "unlabeled" in any case.
        fits: How many fits are pooled; None takes six, and fewer from 2,700 cells on, but four at the least.
        folder: Where fits are kept; `cache_folder()` where it is None.
        layer: Where the counts are, if not in `X`.
        unlabeled_category: A further name for "without a label".
        batch_key: Column of `obs` with a batch that is to be corrected for.
        coarse: What coarse names among the labels stand for, or a column of `obs` with parents; see `annotate`.
        jobs: How many fits run side by side, each in a process of its own.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    adata, notes = strip_to_inputs(adata, Columns(labels_key, unlabeled_category, layer, batch_key, coarse))
    warn_of(notes)
    batch_key = batch_key if batch_key in adata.obs else None
    settings = {"fits": fits, "batch_key": batch_key, "folder": folder, "jobs": jobs}
    ensemble = Ensemble(model or ModelConfig(), train or UNLABELED_TRAIN, **settings)
    return ensemble(adata, labels_key=labels_key, seed=seed)


def _with_components(adata: AnnData, labels_key: str) -> AnnData:
    """Return cells whose column of labels has no more types than fits that see no label are to have components."""
    names, _ = check_labels(adata, labels_key)
    if len(names) <= _MOST_COMPONENTS:
        return adata
    obs = adata.obs.copy()
    some = [f"component {number}" for number in range(_MOST_COMPONENTS)]
    obs[labels_key] = pd.Categorical.from_codes(np.arange(adata.n_obs) % _MOST_COMPONENTS, some)
    return AnnData(adata.X, obs=obs, var=adata.var)


def _one(
    ensemble: Ensemble,
    adata: AnnData,
    labels_key: str,
    seed: int,
    norm: Literal["layer", "batch"],
    folder: Path,
    steps: int,
) -> tuple[SCANVI, History]:
    config = replace(ensemble.model, norm=norm, shares="equal")  # there is no label to learn shares beside
    train = replace(ensemble.train, seed=seed, objective="unlabeled")
    with (
        _ONE_AT_A_TIME,
        one_thread(),
        warnings.catch_warnings(),
        count_steps(folder, str(seed), steps) as after_step,
    ):
        warnings.simplefilter("ignore", ConfoundedBatchWarning)  # every fit would say it: `Ensemble.fit` does, once
        if ensemble.keep:
            return fit_or_load(
                adata,
                config,
                train,
                labels_key=labels_key,
                batch_key=ensemble.batch_key,
                folder=ensemble.folder,
                unfinished=ensemble.folder is not None,
                after_step=after_step,
            )
        model = SCANVI.from_anndata(adata, config, labels_key=labels_key, batch_key=ensemble.batch_key, seed=seed)
        return model, fit(model, adata, train, after_step=after_step)

"""A partly labelled AnnData in, the same AnnData with labels, probabilities and a latent space out, in one call.

Told in book/09_your_data.md. It is the recommended configuration of book/08_evaluation.md (`methods.recommended`)
with checks before it and doubts after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.batches import ConfoundedBatchWarning
from scanvi_tutorial.checks import InputError, check_cells, check_labels, confounding, doubts, listed
from scanvi_tutorial.config import UNLABELLED, ModelConfig, TrainConfig
from scanvi_tutorial.evaluation import Stack, fit_temperature, largest_class_rate, tempered
from scanvi_tutorial.genes import select_genes
from scanvi_tutorial.history import History
from scanvi_tutorial.inference import label_probabilities, latent
from scanvi_tutorial.markers import check_markers
from scanvi_tutorial.methods import ScANVI, plain_cells, stack_fits
from scanvi_tutorial.model import SCANVI
from scanvi_tutorial.query import save_calibrated, write_answer

__all__ = ["annotate"]

_MANY_SEEDS = 500  # from here on weights and a temperature are known well enough from fewer, shorter fits
_MANY_CELLS = 2_000  # from here on a fit takes longer than starting a process for it
_SURE, _RULED_OUT = 0.9, 0.02  # a label is called contradicted where another is that sure, and itself that improbable


def annotate(
    adata: AnnData,
    labels: str = "label",
    *,
    unlabelled: str | int = UNLABELLED,
    layer: str | None = None,
    batch: str | None = None,
    genes: int = 2_000,
    keep_labels: bool = True,
    model: str | Path | None = None,
    seed: int = 0,
    folds: int | None = None,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    jobs: int | None = None,
) -> None:
    """Name every cell of `adata`, learning from those that have a label; write the answer into `adata`.

    Written are, and nothing else changes (`X` stays as it is, genes are chosen internally):

    - `obs["scanvi_label"]`: the label of every cell, categorical.
    - `obs["scanvi_probability"]`: how probable that label is held to be.
    - `obsm["scanvi_probabilities"]`: a table (cells, labels) of all probabilities, rows summing to one.
    - `obsm["X_scanvi"]`: the latent state z2 of every cell, float32 (cells, latent), for maps and neighbors.
    - `uns["scanvi"]`: how it came about: `weights` and `temperature` of the stacked methods; `history`, a row an epoch
      of the fit behind `X_scanvi`; `held_out`, what was said of labels while they were hidden (`cells`, `given`,
      `probabilities`); `warnings`, sentences to read first; `parameters`, `genes`, `label_names`, `versions`.

    scANVI is fitted once on all labels, which gives the latent space and the model that may be saved, and once a fold
    without that fold's labels, which with two simpler methods gives the probabilities. From 500 labels on there are
    three folds instead of five, and among fewer than 20,000 cells a fit takes at most 1,000 steps instead of 2,000: the
    weights and the temperature are then well determined, and shorter fits cost less than a point of accuracy on the
    sorted cells of `facs`. Say `folds` and `train_config` to have it otherwise. Where no type has two labels, nothing
    can be hidden: one fit speaks alone, and a warning says so.

    Args:
        adata: Raw counts, (cells, genes), of all measured genes; at least two types labelled.
        labels: Column of `obs` with the labels. Missing values, "", -1 and "Unknown" mean none.
        unlabelled: A further name for "without a label".
        layer: Where the counts are, if not in `X`.
        batch: Column of `obs` with a batch to correct for; off unless asked.
        genes: How many genes the model sees: those detected in most cells, markers of `uns["markers"]` first.
        keep_labels: Whether a cell that has a label keeps it in `obs["scanvi_label"]`, whatever the model thinks.
        model: A folder to save the fitted model in, for `predict` on new cells.
        seed: Draws folds, weights and minibatches; equal seeds, jobs and threads give equal answers.
        folds: Into how many parts the labels are cut.
        model_config: `ModelConfig()` where it is None.
        train_config: As said above where it is None.
        jobs: Fits at once, each in a process of its own; None takes a process a core from 2,000 cells on.

    Raises:
        InputError: Where counts, labels, batches or names cannot be used; the message says what to do.
        PersistenceError: Where `model` is a folder that holds something else.

    Warns:
        ConfoundedBatchWarning: Where the batch of a labelled cell nearly gives its label away.
    """
    check_cells(adata)
    if genes < 1 or (folds is not None and folds < 2) or (jobs is not None and jobs < 1):
        raise InputError(
            f"At least one gene, two folds and one job are needed; got genes={genes}, folds={folds}, jobs={jobs}."
        )
    cells, notes = _chosen(plain_cells(adata, labels, layer=layer, unlabelled=unlabelled, batch=batch), adata, genes)
    names, codes = check_labels(cells, labels)
    notes += doubts(names, codes, genes=cells.n_vars)
    if batch is not None and (text := confounding(names, codes, cells.obs[batch].array)):
        notes.insert(0, text)
        warnings.warn(text, ConfoundedBatchWarning, stacklevel=2)
    seeds = int((codes >= 0).sum())
    if folds is None:
        folds = 3 if seeds >= _MANY_SEEDS else 5
    if train_config is None:
        short = seeds >= _MANY_SEEDS and cells.n_obs < 10 * _MANY_CELLS
        train_config = TrainConfig(max_steps=1_000) if short else TrainConfig()
    if jobs is None:
        jobs = min(joblib.cpu_count(), folds + 1) if cells.n_obs >= _MANY_CELLS else 1
    scanvi = ScANVI(model_config or ModelConfig(), train_config, batch=batch, keep=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConfoundedBatchWarning)  # every fit would say it
            answer, (fitted, history), left_out = _answer(scanvi, cells, labels, folds=folds, seed=seed, jobs=jobs)
    except FloatingPointError as error:
        raise InputError(f"The model could not be fitted to these counts. {error}") from error
    table, about, contradictions = _about(answer, history, names)
    about["warnings"] = [*contradictions, *notes, *left_out]
    about["genes"] = np.array(cells.var_names, dtype=object)
    given = {"labels": labels, "unlabelled": str(unlabelled), "layer": layer, "batch": batch, "seed": seed}
    given |= {"folds": folds, "keep_labels": keep_labels}
    about["parameters"] = _plain({**given, "model": asdict(scanvi.model), "train": asdict(train_config)})
    states = latent(fitted, cells)
    if model is not None:
        save_calibrated(fitted, model, about["model_temperature"])
    write_answer(adata, table, states, about=about, kept=codes if keep_labels else None)


def _chosen(cells: AnnData, source: AnnData, genes: int) -> tuple[AnnData, list[str]]:
    """Return the cells with the genes that the model is to see, and what is to be said of genes."""
    notes = []
    try:
        cells.uns["markers"] = check_markers(source.uns.get("markers"))
    except InputError:  # another tool's table of that name is none of our business
        notes.append('uns["markers"] is no marker table of this package and was passed over.')
    seen = cells.X.getnnz(axis=0) > 0
    if not seen.all():
        notes.append(f"{(~seen).sum()} of {len(seen)} genes have no count in any cell and were left out.")
        cells = cells[:, seen].copy()
    chosen = select_genes(cells, genes)
    silent = np.flatnonzero(chosen.X.getnnz(axis=1) == 0)
    if len(silent):
        raise InputError(
            f"{len(silent)} of {cells.n_obs} cells have no count in the {chosen.n_vars} genes that were chosen, the "
            f"first is {cells.obs_names[silent[0]]!r}. Choose more genes, or remove cells with very few counts: "
            "scanpy.pp.filter_cells(adata, min_counts=200)."
        )
    return chosen, notes


def _answer(
    scanvi: ScANVI, cells: AnnData, labels: str, *, folds: int, seed: int, jobs: int
) -> tuple[Stack | pd.DataFrame, tuple[SCANVI, History], list[str]]:
    """Return the stack, or the probabilities of one fit where no label can be hidden; a fit on all; what to say."""
    codes = check_labels(cells, labels)[1]
    if np.bincount(codes[codes >= 0]).max() > 1:
        return stack_fits(scanvi, cells, labels=labels, folds=folds, seed=seed, jobs=jobs, whole=True)
    fitted = scanvi.fit(cells, labels, seed)
    note = (
        "No type has two labelled cells, so no label could be hidden: these are the probabilities of one fit, and "
        "nobody has tested whether they are right as often as they say."
    )
    return label_probabilities(fitted[0], cells, seed=seed), fitted, [note]


def _about(
    answer: Stack | pd.DataFrame, history: History, names: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Return the probabilities, what `uns` says of how they came about, and what hidden labels make one doubt."""
    about: dict[str, Any] = {
        "history": history.frame.copy(),
        "best_epoch": history.best_epoch,
        "seconds_of_fit": history.seconds,
        "weights": {"scANVI": 1.0},
        "temperature": 1.0,
        "model_temperature": 1.0,
    }
    about["history"].attrs = {}
    if isinstance(answer, pd.DataFrame):
        empty = {"cells": np.empty(0, dtype=object), "given": np.empty(0, dtype=object)}
        return answer, {**about, "held_out": {**empty, "probabilities": np.empty((0, len(names)))}}, []
    part = answer.parts["scANVI"]
    parts = np.stack([answer.parts[name].held_out.to_numpy() for name in answer.weights.index])
    held_out = tempered(np.tensordot(answer.weights.to_numpy(), parts, 1), answer.temperature)
    about |= {
        "weights": {name: float(weight) for name, weight in answer.weights.items()},
        "temperature": answer.temperature,
        "model_temperature": fit_temperature(part.held_out, part.codes),
        "held_out": {
            "cells": np.array(part.held_out.index, dtype=object),
            "given": np.array(names, dtype=object)[part.codes],
            "probabilities": held_out,
        },
    }
    return answer.probabilities, about, _contradictions(names, part.codes, held_out, part.held_out.index)


def _contradictions(
    names: Sequence[str], codes: NDArray[np.integer], held_out: NDArray[np.float64], cells: pd.Index
) -> list[str]:
    """Say what hidden labels reveal: labels that cannot be read off counts, and single ones that look wrong."""
    said = []
    right = float((held_out.argmax(1) == codes).mean())
    chance = largest_class_rate(np.array(names, dtype=object)[codes])
    by_luck = 2 * np.sqrt(chance * (1 - chance) / len(codes))
    if right < chance + max(by_luck, 0.1 * (1 - chance)):
        said.append(
            f"Hidden labels were found again in {right:.0%} of {len(codes)} cells, and calling all of them by the "
            f"commonest label is right in {chance:.0%}: these labels can hardly be read off these counts. Look for "
            "labels that were shuffled or belong to other cells."
        )
    given = held_out[np.arange(len(codes)), codes]
    doubtful = (given < _RULED_OUT) & (held_out.max(1) > _SURE)
    if doubtful.any():
        examples = [f"{cell} ({names[code]})" for cell, code in zip(cells[doubtful], codes[doubtful], strict=True)]
        said.append(
            f"{doubtful.sum()} of {len(codes)} labels were ruled out while they were hidden: {listed(examples, 5)}. "
            "They may be wrong, or these cells unusual."
        )
    return said


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings as an `.h5ad` file can hold them: no None, and lists for tuples."""
    kept = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kept[name] = _plain(value)
        elif value is not None:
            kept[name] = list(value) if isinstance(value, tuple) else value
    return kept

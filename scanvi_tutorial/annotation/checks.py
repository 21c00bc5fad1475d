"""Checks of an annotation on hidden labels, and a list of doubtful labels (book/10_your_data.md)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scanvi_tutorial.annotation.combined import Answer, answer_from_states
from scanvi_tutorial.evaluation import (
    CrossFit,
    cross_fit,
    label_spreading,
    largest_class_rate,
    logistic_regression,
    neighbor_graph,
    scores,
)
from scanvi_tutorial.inputs.errors import listed
from scanvi_tutorial.inputs.labels import check_labels

_MOST_COMPARED = 5_000  # largest number of labels in a comparison with logistic regression
_ENOUGH = 20  # smallest number of hidden labels for a warning about them
_WITHOUT_FITS = "the same on principal components"


def said_of_hidden(
    answer: Answer,
    components: NDArray[np.float64] | None,
    cells: AnnData,
    key: str,
    seed: int,
) -> tuple[dict[str, Any], list[str]]:
    """Return predictions for hidden labels, by this annotation and by simpler methods, and warnings about them.

    Args:
        answer: The result of `answer_from_states`.
        components: Principal components, (cells, components), or None where there are none.
        cells: Raw counts in `X` and labels in `obs[key]`.
        key: Column of `obs` with the labels.
        seed: Draws folds and, of more than 5,000 labels, those that are used in a comparison.
    """
    names, codes = check_labels(cells, key)
    held_out = {
        "cells": np.array(answer.held_out.index, dtype=object),
        "given": np.array(names, dtype=object)[answer.codes],
        "probabilities": answer.held_out.to_numpy(),
    }
    if not len(answer.codes):
        note = (
            "No type has two labeled cells, so no label could be hidden, and the accuracy and calibration of these "
            "probabilities were not tested."
        )
        return {"held_out": held_out}, [note]
    hidden = partial(cross_fit, labels_key=key, seed=seed)
    labeled_rows = np.flatnonzero(codes >= 0)
    if len(labeled_rows) > _MOST_COMPARED:
        labeled_rows = np.sort(np.random.default_rng(seed).choice(labeled_rows, _MOST_COMPARED, replace=False))

    def without_fits() -> CrossFit:
        found = answer_from_states([components], None, cells, labels_key=key, seed=seed)
        return CrossFit(found.probabilities, found.held_out, found.codes, ())

    others = {
        "logistic regression": lambda: hidden(
            logistic_regression, cells[labeled_rows]
        ),  # it learns from labeled cells only
    }
    if components is not None:
        others |= {
            _WITHOUT_FITS: without_fits,
            "label spreading": lambda: hidden(partial(label_spreading, graph=neighbor_graph(components)), cells),
        }
    compared = {"this annotation": _summary(names, answer.held_out, answer.codes)}
    said = []
    for name, cross_fitted in others.items():
        with suppress(ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence; the accuracy on hidden labels is reported anyway
            part = cross_fitted()
            compared[name] = _summary(names, part.held_out, part.codes)
            if name == _WITHOUT_FITS:
                said = _worth_of_fits(answer, part)
    return {"held_out": held_out, "compared": compared}, [*_contradictions(names, answer), *said]


def _summary(names: Sequence[str], held_out: pd.DataFrame, codes: NDArray[np.integer]) -> dict[str, float]:
    found = scores(np.array(names, dtype=object)[codes], held_out)
    return found[["accuracy", "log_loss"]].to_dict()


def _worth_of_fits(answer: Answer, without: CrossFit) -> list[str]:
    """Return a warning if the same method without the fits is right for as many hidden labels."""
    ours, theirs = ((part.held_out.to_numpy().argmax(1) == part.codes).sum() for part in (answer, without))
    if len(answer.codes) < _ENOUGH or ours > theirs:
        return []
    return [
        f"The same method on principal components alone found {theirs} of {len(answer.codes)} hidden labels, and with "
        f"the fits {ours}: with these labels no benefit of the fits is visible."
    ]


def _contradictions(names: Sequence[str], answer: Answer) -> list[str]:
    """Return warnings if labeled cells differ from the others, or if labels cannot be predicted from counts."""
    said, codes = [], answer.codes
    if not answer.likeness.alike:
        said.append(f"{answer.likeness.in_words()} Only the label model was used.")
    right = float((answer.held_out.to_numpy().argmax(1) == codes).mean())
    chance = largest_class_rate(np.array(names, dtype=object)[codes])
    by_luck = 2 * np.sqrt(chance * (1 - chance) / len(codes))
    if len(codes) >= _ENOUGH and right < chance + max(by_luck, 0.1 * (1 - chance)):
        said.append(
            f"Hidden labels were found again in {right:.0%} of {len(codes)} cells, and calling all of them by the "
            f"most common label is right in {chance:.0%}: these labels can hardly be read off these counts. Look for "
            "labels that were shuffled or belong to other cells."
        )
    return said


def doubtful_labels(
    types: Sequence[str],
    codes: NDArray[np.integer],
    allowed: NDArray[np.bool_],
    of_labels: NDArray[np.float64],
    cells: pd.Index,
) -> tuple[pd.DataFrame, list[str]]:
    """Return the labels for which another type is more probable, the most doubtful first, and a warning about them.

    A coarse label is given as "A or B".

    Args:
        types: Names of the types.
        codes: Exact labels, (cells,), as positions among them; -1 for none.
        allowed: Which types each cell may be of, (cells, types).
        of_labels: p(type | states, label), (cells, types), of the label model.
        cells: Names of the cells.
    """
    given = np.where((codes >= 0)[:, None], np.eye(len(types), dtype=bool)[codes], allowed)
    best, p_given = of_labels.argmax(1), (of_labels * given).sum(1)
    rows = np.flatnonzero(~given[np.arange(len(codes)), best])
    rows = rows[np.argsort(p_given[rows], kind="stable")]
    table = pd.DataFrame(
        {
            "cell": np.array(cells[rows], dtype=object),
            "given": np.array([" or ".join(np.array(types)[own]) for own in given[rows]], dtype=object),
            "more_probable": np.array(types, dtype=object)[best[rows]],
            "probability": of_labels[rows].max(1),
        },
        index=[str(number) for number in range(len(rows))],
    )
    if not len(table):
        return table, []
    examples = [f"{cell} ({label})" for cell, label in zip(table["cell"], table["given"], strict=True)]
    return table, [
        f"{len(table)} labels are doubtful: {listed(examples, 5)}. They may be wrong, or these cells unusual. "
        'See uns["scanvi"]["doubtful_labels"].'
    ]

"""The recommended answer from states: label model and rules, pooled with learned exponents (book/12_labels.md).

The answer is p ∝ (label model)^a · (rules)^b. Both exponents are learned from hidden labels, if labeled cells are
similar to the other cells of their type. If they are not, hidden labels do not represent all cells; then b is zero, a
is held closer to its prior mean, and unlabeled cells have more weight in the label model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import t as student

from scanvi_tutorial.annotation.guarantee import Calibration
from scanvi_tutorial.annotation.label_model import LabelModel, Named, Parameters
from scanvi_tutorial.annotation.likeness import Likeness, compare_labeled
from scanvi_tutorial.annotation.rules import StateClassifier
from scanvi_tutorial.annotation.strangers import Strangeness
from scanvi_tutorial.evaluation import Components, cross_fit, fit_components, folds_of
from scanvi_tutorial.inputs.cells import allowed_of
from scanvi_tutorial.inputs.errors import InputError

_COMPONENTS = 0.3  # weight of principal components, relative to all fits
_LABEL_MODEL = {  # its settings if labeled cells are similar to the others, and if not
    True: {"unlabeled_weight": 0.05, "label_noise": 0.05},
    False: {"unlabeled_weight": 0.3, "label_noise": 0.1},
}
_EXPONENTS = (0.4, 0.4)  # prior means of the exponents of label model and rules
_SURPRISE = {True: 0.7, False: 0.15}  # standard deviation of a log exponent in the prior
_LEAST = 1e-6  # smaller probabilities are raised to this
_OF_CELLS = ("probabilities", "of_labels", "log_density")  # tables of the label model with a row per cell


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The recommended answer, and the results from which it was computed."""

    probabilities: pd.DataFrame  # (cells, types)
    held_out: pd.DataFrame  # (labels, types), predictions for hidden labels; empty if none could be hidden
    codes: NDArray[np.integer]  # (labels,), the labels that were hidden, as columns
    exponents: tuple[float, float]  # of label model and rules
    shares: pd.DataFrame  # (types, 4): share among labels; share of all cells, and an interval of 95 %
    of_labels: NDArray[np.float64]  # (cells, types), p(type | states, label) of the label model
    likeness: Likeness
    views: Sequence[ArrayLike]  # inputs of the label model, each (cells, dimensions)
    parameters: Parameters  # of the label model
    fold: NDArray[np.integer]  # (cells,), the fold in which each label was hidden, -1 for never
    by_fold: Sequence[NDArray[np.float64]]  # of each fold, predictions (cells, types) while its labels were hidden


def answer_from_states(
    states: Sequence[ArrayLike],
    components: ArrayLike | None,
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
) -> Answer:
    """Return the recommended answer.

    Args:
        states: States of all cells, one array (cells, latent) for each fit.
        components: A further view for the label model, (cells, components), or None.
        adata: Cells with labels, as `strip_to_inputs` returns them.
        labels_key: Column of `obs` with exact labels.
        seed: Draws folds.
    """
    types, codes, allowed = allowed_of(adata, labels_key)
    views, weights = [*states], [1.0] * len(states)
    if components is not None:
        views, weights = [*views, components], [*weights, _COMPONENTS * len(states)]
    fold = folds_of(codes, seed)
    model = LabelModel(views, weights, **_LABEL_MODEL[True])
    named, hidden, folds = _while_hidden(model, codes, allowed, fold, seed)
    totals = np.asarray(adata.X.sum(axis=1), dtype=np.float64).ravel()
    likeness = compare_labeled(np.column_stack([views[0], views[-1]]), totals, hidden, codes)
    if not likeness.alike:
        model = LabelModel(views, weights, **_LABEL_MODEL[False])
        named, hidden, folds = _while_hidden(model, codes, allowed, fold, seed)

    rules, tested = StateClassifier(states), fold >= 0
    of_hidden, rules_by_fold = np.empty((0, len(types))), ()
    if tested.any():
        crossed = cross_fit(rules, adata, labels_key=labels_key, seed=seed)
        of_hidden = crossed.held_out
        rules_by_fold = [table[types].to_numpy() for table in crossed.fits]
    held_out = np.stack([hidden.of_labels[tested], of_hidden])
    exponents = fit_exponents(held_out, codes[tested], alike=likeness.alike)
    by_fold = [
        pooled_tables(np.stack([said.probabilities, table]), exponents)
        for said, table in zip(folds, rules_by_fold, strict=True)
    ]
    parts = []
    for number, said in enumerate(folds):
        parts.append(_shares(said.of_labels, np.where(fold == number, -1, codes)))

    of_coarse = np.where(allowed.all(1)[:, None], 0.0, model.log_labels(allowed))
    by_rules = rules(adata, labels_key=labels_key)[types]
    whole = np.stack([named.probabilities, by_rules])
    logs = np.log(np.maximum([_pooled(whole, exponents), *whole], _LEAST))
    answer, *tables = softmax(logs + of_coarse, axis=-1)
    return Answer(
        pd.DataFrame(answer, adata.obs_names, types),
        pd.DataFrame(_pooled(held_out, exponents), adata.obs_names[tested], types),
        codes[tested],
        exponents,
        _table_of_shares(types, codes, answer, tables, parts),
        named.of_labels,
        likeness,
        views,
        named.parameters,
        fold,
        by_fold,
    )


def calibrated(
    answer: Answer, adata: AnnData, *, labels_key: str = "label", seed: int = 0
) -> tuple[Strangeness, NDArray[np.float64], Calibration]:
    """Return the strangeness score, its values for all cells, and the calibration on hidden labels.

    The strangeness of a labeled cell is computed with its label hidden. The predictions for hidden labels use the
    shares of the types among all cells, as the answer does; those in `held_out` use the shares among labels.

    Args:
        answer: The result of `answer_from_states`.
        adata: The same cells.
        labels_key: Column of `obs` with exact labels.
        seed: Draws the initial unnamed components.
    """
    _, codes, allowed = allowed_of(adata, labels_key)
    views, weights, tested = answer.views, answer.parameters.weights, answer.fold >= 0
    whole = answer.probabilities.to_numpy()
    strangeness = Strangeness.fit(views, weights, codes, allowed, whole, seed=seed)
    strange, said = strangeness(views, whole), np.zeros(whole.shape)
    for number, table in enumerate(answer.by_fold):
        own = answer.fold == number
        shown = Strangeness.fit(views, weights, np.where(own, -1, codes), allowed, table, seed=seed)
        strange[own] = shown([np.asarray(view)[own] for view in views], table[own])
        said[own] = table[own]
    return strangeness, strange, Calibration(said[tested], codes[tested], strange[tested])


def _while_hidden(
    model: LabelModel, codes: NDArray[np.integer], allowed: NDArray[np.bool_], fold: NDArray[np.integer], seed: int
) -> tuple[Named, Named, list[Named]]:
    """Return the label model's results with all labels, for each label while it was hidden, and for each fold.

    For a cell whose label was hidden, `of_labels` is p(y | z) with the shares of types among exact labels instead of
    those among other cells, because the exponents are learned from labeled cells.
    """
    named = model.fit(codes, allowed, seed=seed)
    hidden = replace(named, **{name: getattr(named, name).copy() for name in _OF_CELLS})
    among_labels = np.log(np.bincount(codes[codes >= 0], minlength=allowed.shape[1]) / (codes >= 0).sum())
    folds = []
    for number in range(fold.max() + 1):
        own = fold == number
        said = model.fit(np.where(own, -1, codes), allowed, seed=seed)
        hidden.probabilities[own], hidden.log_density[own] = said.probabilities[own], said.log_density[own]
        other_shares = among_labels - np.log(said.parameters.shares)
        hidden.of_labels[own] = softmax(np.log(np.maximum(said.probabilities[own], _LEAST)) + other_shares, 1)
        folds.append(said)
    return named, hidden, folds


def components_of(adata: AnnData) -> tuple[Components | None, NDArray[np.float64] | None]:
    """Return the fitted components and those of these cells, (cells, components); None where all cells are equal."""
    with suppress(InputError):
        return fit_components(adata)
    return None, None


def fit_exponents(
    tables: NDArray[np.float64], codes: NDArray[np.integer], *, alike: bool = True
) -> tuple[float, float]:
    """Return the exponents of label model and rules that maximize the posterior given hidden labels.

    Args:
        tables: Probabilities (2, labels, types) of label model and rules, while labels were hidden.
        codes: The labels, as columns.
        alike: Whether labeled cells are similar to the others; if not, the exponent of the rules is zero.
    """
    expected = np.log(_EXPONENTS if alike else _EXPONENTS[:1])
    logs = np.log(np.maximum(tables[: len(expected)], _LEAST))
    rows = np.arange(len(codes))

    def cost(log_exponents: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        exponents = np.exp(log_exponents)
        p = softmax(np.tensordot(exponents, logs, 1), 1)
        off = (log_exponents - expected) / _SURPRISE[alike]
        slope = np.array([(p * log).sum() - log[rows, codes].sum() for log in logs]) * exponents
        of_labels = np.log(np.maximum(p[rows, codes], np.finfo(float).tiny)).sum()
        return (off**2).sum() / 2 - of_labels, slope + off / _SURPRISE[alike]

    found = np.exp(minimize(cost, expected, jac=True, method="L-BFGS-B", bounds=[(-6, 2)] * len(expected)).x)
    return float(found[0]), float(found[1]) if alike else 0.0


def pooled_tables(tables: NDArray[np.float64], exponents: Sequence[float]) -> NDArray[np.float64]:
    """Return the answer, (cells, types), of label model and rules, (2, cells, types); all are above zero."""
    return softmax(np.log(np.maximum(_pooled(tables, exponents), _LEAST)), 1)


def _pooled(tables: NDArray[np.float64], exponents: Sequence[float]) -> NDArray[np.float64]:
    return softmax(np.tensordot(exponents, np.log(np.maximum(tables, _LEAST)), 1), 1)


def _shares(probabilities: NDArray[np.float64], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the share of each type among all cells, of which some have a label."""
    free = codes < 0
    labels = np.bincount(codes[~free], minlength=probabilities.shape[1])
    return (labels + probabilities[free].sum(0)) / len(codes)


def _table_of_shares(
    types: Sequence[str],
    codes: NDArray[np.integer],
    answer: NDArray[np.float64],
    tables: Sequence[NDArray[np.float64]],
    without_some: Sequence[NDArray[np.float64]],
) -> pd.DataFrame:
    """Return shares of the answer, with intervals.

    The intervals include three sources of uncertainty: the sampling of cells; the choice of labels, by a jackknife over
    folds; and the difference between label model and rules.
    """
    labels = np.bincount(codes[codes >= 0], minlength=len(types))
    shares = _shares(answer, codes)
    variance = shares * (1 - shares) / len(codes) + np.subtract(*(_shares(table, codes) for table in tables)) ** 2
    groups = max(len(without_some), 2)
    if len(without_some) > 1:
        variance += (groups - 1) * np.var(without_some, axis=0)
    reach = student.ppf(0.975, groups - 1) * np.sqrt(variance)
    low, high = np.clip(shares - reach, 0, 1), np.clip(shares + reach, 0, 1)
    columns = {"among_labels": labels / labels.sum(), "share": shares, "low": low, "high": high}
    return pd.DataFrame(columns, index=list(types))

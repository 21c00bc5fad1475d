"""How often sets hold the truth, and whether types that no label names are noticed; `make guarantee` (chapter 13).

A *task* is a data set with the seed labels of one draw. For sets, all types are labeled, and all cells without a label
are asked whether their set holds the truth. For strangers, one type has no label. The fits of five draws serve all,
since they know no label. Simpler methods get the same labels and the same conformal sets.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from grid import FIRST_DRAW, OPTIONS, accept, run
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances

import scanvi_tutorial as st
from scanvi_tutorial.annotation.combined import answer_from_states, calibrated
from scanvi_tutorial.annotation.guarantee import Calibration
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.evaluation import cross_fit, fit_on_seeds, linear_classifier, principal_components
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs.cells import Columns, strip_to_inputs
from scanvi_tutorial.inputs.labels import check_labels

RESULTS = Path(__file__).resolve().parent / "results" / "guarantee.json"
SETS = ("facs", "facs-t", "pbmc68k", "worm", "simulated")
WITH_STRANGERS = ("facs", "pbmc68k", "worm")
SIZES, SPLITS, DRAWS_OF_STRANGERS, DRAWS_OF_FITS = (10, 25), 200, 5, 5
ASKED = (0.8, 0.9, 0.95)
FEWEST = 20  # cells of a type that is left out
REJECT = 0.05
GENES = 2_000


@dataclass(frozen=True)
class Task:
    """A data set, how many labels each type gets, a draw of them, and the type that gets none."""

    dataset: str
    per_label: int
    draw: int
    left_out: str  # "" for none


class Drawn(NamedTuple):
    """Cells with the labels of a draw, and what is known of them."""

    shown: AnnData
    truth: NDArray[np.object_]  # (cells,)
    states: list[NDArray[np.float32]]  # of each fit, (cells, latent)
    components: NDArray[np.float64]  # (cells, components)


def tasks(splits: int = SPLITS, draws: int = DRAWS_OF_STRANGERS) -> list[Task]:
    """Return all tasks, draw by draw."""
    found = []
    for draw in range(max(splits, draws)):
        for size in SIZES:
            if draw < draws:
                found += [Task(name, size, draw, kind) for name in WITH_STRANGERS for kind in _types(name)]
            found += [Task(name, size, draw, "") for name in SETS if draw < splits]
    return found


@cache
def _types(dataset: str) -> list[str]:
    counts = st.load(dataset, **OPTIONS.get(dataset, {})).obs["truth"].value_counts(sort=False)
    return [str(name) for name, cells in counts.items() if cells >= FEWEST]


@cache
def _states(dataset: str, draw: int) -> tuple[AnnData, list[NDArray[np.float32]], NDArray[np.float64]]:
    """Return cells of all types, the states of each fit, and principal components."""
    cells = st.load(dataset, **OPTIONS.get(dataset, {}))
    cells = st.select_genes(st.seed_labels(cells, 10, "random", FIRST_DRAW), GENES)
    shown, _ = strip_to_inputs(cells, Columns())
    shown.obs["truth"] = cells.obs["truth"]
    states = [latent(model, shown) for model, _ in Ensemble().fit(shown, "label", FIRST_DRAW + draw)]
    return shown, states, principal_components(shown)


def work(task: Task) -> list[dict[str, Any]]:
    """Return a row for each method: coverage and size of its sets, or how well it notices the type left out."""
    torch.set_num_threads(1)
    cells, states, components = _states(task.dataset, task.draw % DRAWS_OF_FITS)
    cells = cells.copy()
    rng = np.random.default_rng([task.draw, task.per_label])
    truth, label = cells.obs["truth"].astype(str).to_numpy(), np.full(cells.n_obs, "Unknown", dtype=object)
    for name in sorted({*truth} - {task.left_out}):
        rows = np.flatnonzero(truth == name)
        label[rng.choice(rows, min(task.per_label, len(rows) // 2), replace=False)] = name
    cells.obs["label"] = pd.Categorical(label)
    shown, _ = strip_to_inputs(cells, Columns())
    found = _strangers if task.left_out else _sets
    return [asdict(task) | row for row in found(task, Drawn(shown, truth, states, components))]


def _sets(task: Task, drawn: Drawn) -> list[dict[str, Any]]:
    shown, truth, states, components = drawn
    names, codes = check_labels(shown, "label")
    right = pd.Index(names).get_indexer(truth)
    answer = answer_from_states(states, components, shown, seed=task.draw)
    tested = answer.fold >= 0
    said = sum((answer.fold == number)[:, None] * table for number, table in enumerate(answer.by_fold))
    ours = Calibration(said[tested], codes[tested], np.zeros(tested.sum()))
    rows = [_covered("recommended", answer.probabilities.to_numpy(), ours, right, codes)]

    for name, features in (("logistic regression", None), ("logistic regression on components", components)):

        def linear(adata: AnnData, *, labels_key: str = "label", seed: int = 0, of: Any = features) -> pd.DataFrame:
            return fit_on_seeds(linear_classifier(), adata, labels_key=labels_key, features=of)

        crossed, whole = cross_fit(linear, shown, seed=task.draw), linear(shown)[list(names)].to_numpy()
        theirs = Calibration(crossed.held_out.to_numpy(), crossed.codes, np.zeros(len(crossed.codes)))
        rows.append(_covered(name, whole, theirs, right, codes))
    return rows


def _covered(
    method: str,
    probabilities: NDArray[np.float64],
    calibration: Calibration,
    right: NDArray[np.integer],
    codes: NDArray[np.integer],
) -> dict[str, Any]:
    free = np.flatnonzero(codes < 0)
    p, right = probabilities[free], right[free]
    row: dict[str, Any] = {"method": method, "accuracy": float((p.argmax(1) == right).mean())}
    for asked in ASKED:
        sets = calibration.sets(p, asked)
        held = sets[np.arange(len(p)), right]
        row[f"coverage_{asked}"] = float(held.mean())
        row[f"size_{asked}"] = float(sets.sum(1).mean())
        row[f"by_type_{asked}"] = [
            round(float(held[right == kind].mean()), 4) if (right == kind).any() else None for kind in range(p.shape[1])
        ]
    return row


def _strangers(task: Task, drawn: Drawn) -> list[dict[str, Any]]:
    shown, truth, states, components = drawn
    _, codes = check_labels(shown, "label")
    free, strange = codes < 0, truth == task.left_out
    answer = answer_from_states(states, components, shown, seed=task.draw)
    strangeness, ranks, calibration = calibrated(answer, shown, seed=task.draw)
    p_known, p = calibration.p_known(ranks), answer.probabilities.to_numpy()
    by_fit = np.stack([fit_on_seeds(linear_classifier(), shown, features=z).to_numpy() for z in states])
    linear = fit_on_seeds(linear_classifier(), shown).to_numpy()
    signs = strangeness.signs(answer.views, p)
    found = {
        "recommended": ranks,
        "sign: improbable": signs[:, 0],
        "sign: unsure": signs[:, 1],
        "sign: crowd": signs[:, 2],
        "1 - max p of logistic regression": 1 - linear.max(1),
        "distance to the nearest label": euclidean_distances(components, components[codes >= 0]).min(1),
        "disagreement of the fits": by_fit.var(0).sum(1),
    }
    rows: list[dict[str, Any]] = [
        {"method": name, "auroc": float(roc_auc_score(strange[free], score[free]))} for name, score in found.items()
    ]
    rows[0] |= {
        "refused_known": float((p_known[free & ~strange] <= REJECT).mean()),
        "refused_strangers": float((p_known[free & strange] <= REJECT).mean()),
        "cells": int(strange.sum()),
    }
    return rows


def main() -> None:
    """Read the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes at once; OMP_NUM_THREADS=1 suits more than one")
    parser.add_argument("--splits", type=int, default=SPLITS, help="draws of labels for sets")
    parser.add_argument("--draws", type=int, default=DRAWS_OF_STRANGERS, help="draws of labels for strangers")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file, which is also gone on from")
    parser.add_argument("--accept", action="store_true", help="let the results stand for code that moved no number")
    asked = parser.parse_args()
    if asked.accept:
        accept(asked.out, Path(__file__))
        return
    table = run(tasks(asked.splits, asked.draws), asked.out, jobs=asked.jobs, of_task=work, file=Path(__file__))
    print(table.groupby(["dataset", "per_label", "method"]).mean(numeric_only=True).round(3).T.to_string())


if __name__ == "__main__":
    import guarantee  # by name, under which other processes find its functions

    guarantee.main()

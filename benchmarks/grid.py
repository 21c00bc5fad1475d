"""Every method on every draw: the results file that chapter 8 shows; `make grid`.

A *task* is a data set with the seed labels of one draw and some methods; one RNG seed a draw chooses the seed cells and
draws all weights. Finished tasks are kept in the results file, and a run that was cut short goes on from there; a file
made by other code or other versions is put aside as `grid.old.json`. The code is this file and the package
but for figures, pages and commands; comments and docstrings do not count.

    python benchmarks/grid.py --accept

is for after a change of that code that moves no number, such as another name for a function: it lets the file stand
for the code as it now is. It measures nothing and changes nothing else: date, versions and commit stay those of the
measurement. Before, hold a task or two against the rows of the file, on committed code:

    python benchmarks/grid.py --dataset facs-t --group single --draws 1 --out _build/again.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from cleanlab.classification import CleanLearning
from numpy.typing import NDArray
from provenance import PACKAGES, provenance, versions, write_json
from sklearn.metrics import roc_auc_score

import scanvi_tutorial as st
from scanvi_tutorial.annotation.combined import Answer, answer_from_states
from scanvi_tutorial.annotation.label_model import LabelModel
from scanvi_tutorial.annotation.methods import Ensemble, SingleFit
from scanvi_tutorial.annotation.rules import StateClassifier
from scanvi_tutorial.annotation.tasks import run_tasks
from scanvi_tutorial.config import UNLABELED_TRAIN, ModelConfig, TrainConfig
from scanvi_tutorial.data.simulated import bayes_probabilities
from scanvi_tutorial.evaluation import (
    BASELINES,
    fit_on_seeds,
    largest_class_scores,
    linear_classifier,
    pooled,
    principal_components,
    scored_cells,
    scores,
)
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs.cells import Columns, strip_to_inputs
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.markers import log_cp10k
from scanvi_tutorial.training.cache import code_digest

__all__ = ["Task", "accept", "run", "tasks", "work"]

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "grid.json"
GROUPS = ("baselines", "single", "recommended")
FURTHER = ("variants", "told")
DRAWS, SIZES, GENES = 5, (5, 10, 25, 50), 2_000
FIRST_DRAW = 40  # earlier ones were looked at while methods were made
CLAIMS = (  # what the book makes claims about; single fits are varied on the first two
    ("facs-t", "random", 10),
    ("pbmc68k", "random", 10),
    ("pbmc68k", "random", 5),
    ("facs-t", "markers", 10),
    ("simulated", "random", 10),
    ("facs", "random", 10),
    ("worm", "random", 10),
    ("steep", "random", 10),
)
AS_THEY_COME = (  # labels that are typical, wrong or coarse
    *((name, "typical", 10) for name in ("facs-t", "pbmc68k")),
    *((name, how, 25) for name in ("facs-t", "facs") for how in ("wrong", "neighbors")),
    ("facs", "random", 25),  # what these are held against
    ("facs", "coarse", 25),
)
OPTIONS: dict[str, dict[str, Any]] = {"simulated": {"cells": 5_000, "effect": 1.25}}  # its Bayes rate is about 0.9
STEEP = (0.70, 0.20, 0.07, 0.03)  # shares of the types of "steep", which are cells of "simulated"
WRONG = 0.2  # share of labels that are wrong


@dataclass(frozen=True, slots=True)
class FrozenLatent:
    """A classifier on a latent space that was learned without labels: U on all cells, then logistic regression."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    folder: str | Path | None = None

    def __call__(self, adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
        """Return probabilities (cells, labels)."""
        train = replace(self.train, seed=seed, objective="unlabeled")
        model, _ = st.fit_or_load(adata, self.model, train, labels_key=labels_key, folder=self.folder)
        return fit_on_seeds(linear_classifier(), adata, labels_key=labels_key, features=latent(model, adata))


_model, _train = ModelConfig(), TrainConfig()
VARIANTS: dict[str, SingleFit | FrozenLatent] = {
    "U everywhere": SingleFit(train=replace(_train, objective="everywhere")),
    "classifier on frozen latent": FrozenLatent(),
    "no KL warm-up": SingleFit(train=replace(_train, warmup=0.0)),
    "no thinning": SingleFit(train=replace(_train, min_depth=1.0)),
    "negative binomial": SingleFit(replace(_model, gene_likelihood="nb")),
    "Poisson": SingleFit(replace(_model, gene_likelihood="poisson")),
    "observed library": SingleFit(replace(_model, library="observed")),
    "LayerNorm": SingleFit(replace(_model, norm="layer")),
    "w = 200": SingleFit(replace(_model, label_weight=200.0)),
}
PRUNED = "logistic regression, cleanlab"
SHALLOW = "same rules on principal components"
WITHOUT_FITS = "the same on principal components"  # label model and rules, as recommended


@dataclass(frozen=True)
class Task:
    """A data set, seed cells of one draw, and a group of methods that are scored on them."""

    dataset: str
    how: str  # how seeds are found, as `seed_labels` does; "wrong", "neighbors" and "coarse" spoil random ones
    per_label: int
    draw: int
    group: str  # one of GROUPS and FURTHER


def tasks(draws: int = DRAWS) -> list[Task]:
    """Return all tasks, those that the book's claims rest on first."""
    sizes = [(name, how, n) for n in SIZES for how in ("random", "markers") for name in ("pbmc68k", "facs-t")]
    found = [Task(*claim, draw, group) for claim in CLAIMS for draw in _draws(draws) for group in GROUPS]
    found += [Task(*claim, draw, "variants") for claim in CLAIMS[:2] for draw in _draws(draws)]
    found += [Task(*claim, draw, "told") for claim in CLAIMS[:5] for draw in _draws(draws)]
    found += [
        Task(*size, draw, group) for size in (*sizes, *AS_THEY_COME) for draw in _draws(draws) for group in GROUPS
    ]
    return [task for task in dict.fromkeys(found) if not _spared(task)]


def _spared(task: Task) -> bool:
    """Whether a task would say little new for its time."""
    if task.how == "markers":  # these seeds are the same in every draw: a method draws its weights at most
        return task.draw >= FIRST_DRAW + {"baselines": 1, "single": 2}.get(task.group, 3)
    arm = (task.dataset, task.how, task.per_label)
    return task.group == "single" and task.dataset == "facs" and arm not in CLAIMS  # its fits are the longest


def _draws(count: int) -> range:
    return range(FIRST_DRAW, FIRST_DRAW + count)


@cache
def _load(dataset: str) -> AnnData:
    if dataset != "steep":
        return st.load(dataset, **OPTIONS.get(dataset, {}))
    whole = _load("simulated")
    codes, rng = whole.obs["truth"].cat.codes.to_numpy(), np.random.default_rng(0)
    total = int(min(np.bincount(codes) / STEEP))
    rows = [rng.choice(np.flatnonzero(codes == k), int(share * total), False) for k, share in enumerate(STEEP)]
    steep = whole[np.sort(np.concatenate(rows))].copy()
    steep.uns["simulation"]["shares"] = np.array(STEEP)  # which Bayes' rule asks for
    return steep


def cells_of(task: Task) -> AnnData:
    """Return the cells of a task with its seed labels and the genes that all methods see."""
    how = task.how if task.how in ("random", "markers", "typical") else "random"
    cells = st.select_genes(st.seed_labels(_load(task.dataset), task.per_label, how, task.draw), GENES)
    return cells if how == task.how else spoiled(cells, task.how, task.draw)


def spoiled(cells: AnnData, how: str, seed: int) -> AnnData:
    """Return the cells with some labels that are wrong, at random or by the closest type, or coarse.

    Half of the labels become coarse: the name of a pair of types that are close to each other.
    """
    rng, types = np.random.default_rng([seed, 1]), list(cells.obs["truth"].cat.categories)
    codes = cells.obs["label"].cat.codes.to_numpy(copy=True)
    labeled, gaps = np.flatnonzero(codes < len(types)), _gaps(cells)
    names = [*types, *[f"{types[a]} or {types[b]}" for a, b in _pairs(gaps)], "Unknown"]
    codes[codes == len(types)] = len(names) - 1
    if how == "coarse":
        cells.uns["coarse"] = {f"{types[a]} or {types[b]}": [types[a], types[b]] for a, b in _pairs(gaps)}
        parents = {code: len(types) + number for number, pair in enumerate(_pairs(gaps)) for code in pair}
        for row in rng.choice(labeled, len(labeled) // 2, replace=False):
            codes[row] = parents.get(codes[row], codes[row])
    else:
        for row in rng.choice(labeled, round(WRONG * len(labeled)), replace=False):
            others = np.delete(np.arange(len(types)), codes[row])
            codes[row] = gaps[codes[row]].argmin() if how == "neighbors" else rng.choice(others)
    cells.obs["label"] = pd.Categorical.from_codes(codes, names).remove_unused_categories()
    return cells


def _gaps(cells: AnnData) -> NDArray[np.float64]:
    """Return squared distances between mean principal components of the types, infinite to a type itself."""
    codes, z = cells.obs["truth"].cat.codes.to_numpy(), principal_components(cells)
    centers = np.stack([z[codes == kind].mean(0) for kind in range(codes.max() + 1)])
    gaps = np.square(centers[:, None] - centers).sum(-1)
    np.fill_diagonal(gaps, np.inf)
    return gaps


def _pairs(gaps: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return pairs of types, the closest first, each type in one pair at most."""
    gaps, found = gaps.copy(), []
    while np.isfinite(gaps).any():
        a, b = map(int, np.unravel_index(gaps.argmin(), gaps.shape))
        found.append((min(a, b), max(a, b)))
        gaps[[a, b]] = gaps[:, [a, b]] = np.inf
    return found


def work(task: Task) -> list[dict[str, Any]]:
    """Score the methods of a task; return a row for each, with its settings and measurements."""
    torch.set_num_threads(1)
    adata = cells_of(task)
    shown, _ = strip_to_inputs(adata, Columns(coarse=adata.uns.get("coarse")))
    shown.uns["markers"] = adata.uns.get("markers")
    with tempfile.TemporaryDirectory() as folder:  # a cache of its own: seconds are those of fits, not of files
        answers = _WORK[task.group](task, shown, Path(folder))
    if task.group == "baselines" and task.dataset in ("simulated", "steep"):
        answers.append(("Bayes", bayes_probabilities(adata), {}))
    rows = [
        asdict(task) | {"method": name} | scores(adata, said).to_dict() | _found_wrong(task, adata, more)
        for name, said, more in answers
    ]
    if task.group == "baselines":
        free = adata.obs["truth"][scored_cells(adata)]
        rows.append(asdict(task) | {"method": "largest class"} | largest_class_scores(free).to_dict())
    return rows


def _found_wrong(task: Task, adata: AnnData, more: dict[str, Any]) -> dict[str, Any]:
    """Replace `doubts` of the labels by how well they tell wrong ones from right ones."""
    doubts = more.pop("doubts", None)
    if doubts is None or task.how not in ("wrong", "neighbors"):
        return more
    labels, truth = (adata.obs[key].astype(str).to_numpy() for key in ("label", "truth"))
    labeled = labels != "Unknown"
    return more | {"auroc_of_wrong": float(roc_auc_score((labels != truth)[labeled], doubts[labeled]))}


Answered = tuple[str, pd.DataFrame, dict[str, Any]]  # method, its probabilities, what else is to be kept


def _baselines(task: Task, shown: AnnData, folder: Path) -> list[Answered]:
    methods = BASELINES | {SHALLOW: _shallow}
    found = [
        _timed(name, method, shown, task)
        for name, method in methods.items()
        if shown.uns["markers"] is not None or name != "marker score"
    ]
    return [*found, _without_label_issues(shown, task)]


def _without_label_issues(shown: AnnData, task: Task) -> Answered:
    """Ask logistic regression on the genes, without the labels that cleanlab takes for wrong."""
    names, codes = check_labels(shown, "label")
    x, labeled, started = log_cp10k(check_counts(shown)), codes >= 0, time.perf_counter()
    folds = int(np.clip(np.bincount(codes[labeled]).min(), 2, 5))
    how = {"n_jobs": 1, "min_examples_per_class": 0}
    cleaned = CleanLearning(linear_classifier(), seed=task.draw, cv_n_folds=folds, find_label_issues_kwargs=how)
    cleaned.fit(x[labeled], codes[labeled])
    seconds, doubts = round(time.perf_counter() - started, 2), np.zeros(shown.n_obs)
    doubts[labeled] = 1 - cleaned.get_label_issues()["label_quality"]
    said = pd.DataFrame(cleaned.predict_proba(x), shown.obs_names, list(names))
    return PRUNED, said, {"seconds": seconds, "doubts": doubts}


def _shallow(adata: AnnData, *, labels_key: str = "label", seed: int = 0) -> pd.DataFrame:
    """Ask the recommended rules about states that no network made."""
    return StateClassifier([principal_components(adata, seed=seed)])(adata, labels_key=labels_key)


def _single(task: Task, shown: AnnData, folder: Path) -> list[Answered]:
    averaged = _fitted("scANVI", SingleFit(folder=folder), shown, task)
    plug_in = SingleFit(samples=0, folder=folder)(shown, seed=task.draw)  # of the same fit
    return [averaged, ("scANVI, plug-in", plug_in, {})]


def _variants(task: Task, shown: AnnData, folder: Path) -> list[Answered]:
    return [_fitted(name, replace(method, folder=folder), shown, task) for name, method in VARIANTS.items()]


def _told(task: Task, shown: AnnData, folder: Path) -> list[Answered]:
    """Pool classifiers of fits that know the labels, alone and with the recommended answer."""
    told = [
        SingleFit(replace(_model, norm=norm), folder=folder)(shown, seed=seed)
        for seed in (task.draw, task.draw + 1_000)
        for norm in ("layer", "batch")
    ]
    both = pooled([Ensemble()(shown, seed=task.draw), pooled(told)])
    return [("four fits that know the labels", pooled(told), {}), ("recommended and these four", both, {})]


def _recommended(task: Task, shown: AnnData, folder: Path) -> list[Answered]:
    """Ask the ensemble, its parts, and the same without fits.

    Its fits know no label, so those of a draw serve all numbers of seeds: they are kept in the cache of the checkout.
    """
    fitted = Ensemble().fit(shown, "label", task.draw)
    states, components = [latent(model, shown) for model, _ in fitted], principal_components(shown)
    started = time.perf_counter()
    answer = answer_from_states(states, components, shown, seed=task.draw)
    seconds = time.perf_counter() - started + sum(history.seconds for _, history in fitted)
    rules = StateClassifier(states)
    about = {"seconds": round(seconds, 2), "fits": len(fitted), "exponents": answer.exponents}
    about |= {"auroc_of_labeled": answer.likeness.auroc, "alike": answer.likeness.alike}
    codes = check_labels(shown, "label")[1]
    about |= _hidden(answer) | {"doubts": 1 - answer.of_labels[np.arange(shown.n_obs), codes]}
    answers: list[Answered] = [
        ("recommended", answer.probabilities, about),
        ("rules on states", rules(shown), {}),
        ("label model on states", LabelModel(states)(shown), {}),
        ("label model on principal components", LabelModel([components])(shown), {}),
        (WITHOUT_FITS, answer_from_states([components], None, shown, seed=task.draw).probabilities, {}),
    ]
    if (task.dataset, task.how, task.per_label) not in CLAIMS:
        return answers
    norms = np.array([model.config.norm for model, _ in fitted])
    parts = {
        "four of its fits": range(min(4, len(fitted))),
        "its fits with LayerNorm": np.flatnonzero(norms == "layer"),
        "its fits with BatchNorm": np.flatnonzero(norms == "batch"),
    }
    for name, some in parts.items():
        own = answer_from_states([states[fit] for fit in some], components, shown, seed=task.draw)
        answers.append((f"recommended, {name}", own.probabilities, {}))
    alone = answer_from_states(states, None, shown, seed=task.draw)
    return [*answers, ("recommended, without principal components", alone.probabilities, {})]


def _hidden(answer: Answer) -> dict[str, float]:
    """Return how good the answer is by hidden labels."""
    found = scores(answer.held_out.columns.to_numpy()[answer.codes], answer.held_out)
    return {f"hidden_{name}": float(found[name]) for name in ("accuracy", "log_loss")}


_WORK = {
    "baselines": _baselines,
    "single": _single,
    "recommended": _recommended,
    "variants": _variants,
    "told": _told,
}


def _timed(name: str, method: Callable[..., pd.DataFrame], shown: AnnData, task: Task) -> Answered:
    started = time.perf_counter()
    said = method(shown, seed=task.draw)
    return name, said, {"seconds": round(time.perf_counter() - started, 2)}


def _fitted(name: str, method: SingleFit | FrozenLatent, shown: AnnData, task: Task) -> Answered:
    """Return the answer of a fit, and what the fit says of itself, where it is one of scANVI with labels."""
    _, said, more = _timed(name, method, shown, task)
    if isinstance(method, SingleFit):  # its fit is in the folder by now
        train = replace(method.train, seed=task.draw)
        _, history = st.fit_or_load(shown, method.model, train, folder=method.folder)
        best = history.frame.loc[history.best_epoch]
        more |= {"bound_held_out": float(best.bound_held_out), "best_epoch": history.best_epoch}
    return name, said, more


def run(
    chosen: list[Any],
    path: Path = RESULTS,
    *,
    jobs: int = 1,
    of_task: Callable[[Any], list[dict[str, Any]]] | None = None,
    file: Path = Path(__file__),
) -> pd.DataFrame:
    """Work through the tasks that `path` does not hold yet, `jobs` at a time; return all rows it then holds.

    `of_task`, here `work`, returns the rows of a task, a dataclass whose fields are in each of them; its code is in
    `file`.
    """
    kept = json.loads(path.read_text()) if path.is_file() else {}
    code, libraries = _code(file), _libraries(versions(PACKAGES))
    if kept and (kept["code"], _libraries(kept["versions"])) != (code, libraries):
        path.replace(path.with_suffix(".old.json"))
        print(f"{path.name} is of other code or versions: it is now {path.stem}.old.json.", flush=True)
        kept = {}
    rows = kept.pop("rows", [])
    done = {tuple(row[name] for name in asdict(chosen[0])) for row in rows}
    left = [task for task in chosen if tuple(asdict(task).values()) not in done]
    print(f"{len(chosen) - len(left)} of {len(chosen)} tasks are done already.", flush=True)
    trained = {"train": asdict(TrainConfig()), "train_unlabeled": asdict(UNLABELED_TRAIN)}
    settings = {"model": asdict(ModelConfig()), **trained, "genes": GENES, "options": OPTIONS}
    about = {"code": code} | provenance() | {"settings": settings}  # of the code that is about to run, once
    if kept:  # rows that are there keep what is said of them, and those to come are told apart by date and commit
        about = kept | {"continued": [*kept.get("continued", []), provenance()]}
    try:
        for count, (number, found) in enumerate(run_tasks(_named, [(of_task or work, task) for task in left], jobs), 1):
            rows += found
            write_json(path, about | {"rows": rows})
            print(f"{count}/{len(left)} {_name(left[number])}", flush=True)
    except Exception as error:
        raise RuntimeError(f"{error} The {len(rows)} rows before it are in {path.name}.") from error
    return pd.DataFrame(rows)


def _named(of_task: Callable[[Any], list[dict[str, Any]]], task: Any) -> list[dict[str, Any]]:
    """Return the rows of a task; where it fails, the error names it."""
    try:
        return of_task(task)
    except Exception as error:
        raise RuntimeError(f"{_name(task)} failed ({error}).") from error


def _name(task: Any) -> str:
    return " ".join(map(str, asdict(task).values()))


def show(table: pd.DataFrame) -> str:
    """Return the mean over draws of the most telling scores, a row for each arm and method."""
    arms = ["dataset", "how", "per_label", "method"]
    columns = ["accuracy", "balanced_accuracy", "log_loss", "calibration_error", "seconds"]
    found = table.groupby(arms, sort=False)[columns].mean()
    return found.assign(draws=table.groupby(arms, sort=False).size()).round(3).to_string()


def accept(path: Path = RESULTS, file: Path = Path(__file__)) -> None:
    """Let a results file stand for the code as it now is, whose numbers are those of the file (see above)."""
    write_json(path, json.loads(path.read_text()) | {"code": _code(file)})


def _code(file: Path = Path(__file__)) -> str:
    """Return a digest of a file and of the package but for figures, pages and commands: other code, other rows."""
    folders = ("annotation", "config.py", "data", "evaluation", "inference", "inputs", "model", "training")
    return code_digest(file, *(Path(st.__file__).with_name(folder) for folder in folders))


def _libraries(found: dict[str, str]) -> dict[str, str]:
    """Return versions without that of this package, whose code has a digest."""
    return {name: version for name, version in found.items() if name != "scanvi-tutorial"}


def main() -> None:
    """Read the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes at once; OMP_NUM_THREADS=1 suits more than one")
    parser.add_argument("--dataset", help="only this data set")
    parser.add_argument("--group", choices=[*GROUPS, *FURTHER], help="only these methods")
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws of seed cells and weights")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results file, which is also gone on from")
    parser.add_argument("--accept", action="store_true", help="let the results stand for code that moved no number")
    asked = parser.parse_args()
    if asked.accept:
        accept(asked.out)
        return
    chosen = [
        task
        for task in tasks(asked.draws)
        if asked.dataset in (None, task.dataset) and asked.group in (None, task.group)
    ]
    print(show(run(chosen, asked.out, jobs=asked.jobs)))


if __name__ == "__main__":
    import grid  # by name, under which other processes find its functions

    grid.main()

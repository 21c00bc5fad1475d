"""May fits without labels take half of the passes at a higher rate? `python benchmarks/schedule.py` (chapter 11).

Each seed draws labels, weights and minibatches anew, and both schedules get the same. Rows tell the mean bound on
held-out cells of the fits of an ensemble, the accuracy and the log-loss of the answer that is pooled from them, and the
sum of the seconds of the fits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import draw
from provenance import provenance, write_json

import scanvi_tutorial as st
from scanvi_tutorial.annotation.combined import answer_from_states, components_of
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.config import UNLABELED_TRAIN
from scanvi_tutorial.inference.predictions import latent

RESULTS = Path(__file__).resolve().parent / "results" / "schedule.json"
SETS, SEEDS, PER_LABEL = ("pbmc68k", "facs-t", "worm"), 5, 10
SCHEDULES = {"before": st.TrainConfig(objective="unlabeled"), "now": UNLABELED_TRAIN}


def rows(name: str, seed: int, jobs: int) -> Iterator[dict[str, Any]]:
    """Yield a row a schedule."""
    adata = draw(seed, dataset=name, per_label=PER_LABEL, how="random", genes=2_000)
    components = components_of(adata)[1]
    order = list(SCHEDULES)[:: 1 if seed % 2 else -1]  # a machine that slows down favors neither
    for schedule in order:
        train = SCHEDULES[schedule]
        fits = Ensemble(train=replace(train, device="cpu"), keep=False, jobs=jobs).fit(adata, "label", seed)
        states = [latent(model, adata) for model, _ in fits]
        answer = answer_from_states(states, components, adata, labels_key="label", seed=seed)
        found = st.evaluation.scores(adata, answer.probabilities)
        yield {
            "data": name,
            "seed": seed,
            "schedule": schedule,
            "fits": len(fits),
            "bound": float(np.mean([one.frame.loc[one.best_epoch, "bound_held_out"] for _, one in fits])),
            "accuracy": float(found["accuracy"]),
            "log_loss": float(found["log_loss"]),
            "epochs": float(np.mean([len(one) for _, one in fits])),
            "seconds": sum(one.seconds for _, one in fits),
        }


def main() -> None:
    """Measure, write after each draw, and print differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    about, found = provenance(), []
    for seed in range(100, 100 + asked.seeds):
        for name in asked.sets:
            found += (new := list(rows(name, seed, asked.jobs)))
            print(*new, sep="\n", flush=True)
            write_json(asked.out, about | {"rows": found})
    table = pd.DataFrame(found).pivot(index=["data", "seed"], columns="schedule")
    measures = ["bound", "accuracy", "log_loss"]
    changes = pd.DataFrame({what: table[what, "now"] - table[what, "before"] for what in measures})
    print(changes.groupby("data").agg(["mean", "sem"]).round(4).to_string())


if __name__ == "__main__":
    main()

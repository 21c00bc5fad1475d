"""Thousands of AnnData that nobody should make, annotated and mapped: what became of them, as a table.

    python benchmarks/hostile.py --examples 2000

Whatever comes is either answered, and the answer then keeps what `annotate` promises of it, or refused by an error of
this package. Anything else is counted as foreign, shown, and makes the exit code 1. Examples are drawn at random, so
each run tries others than the tests do; `--seed` repeats one.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from anndata import AnnData
from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hostile import annotated_or_refused, cells, mapped_or_refused, small_model

FOREIGN = "FOREIGN"


def main() -> int:
    """Run both ways in, print how often each outcome came, and return how many of them were foreign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=2_000, help="half of them annotated, half of them mapped")
    parser.add_argument("--seed", type=int, default=None)
    given_by_user = parser.parse_args()
    model = small_model()
    ways: dict[str, Callable[[AnnData, dict], str]] = {
        "annotate": lambda adata, options: annotated_or_refused(adata, dict(options)),
        "predict": lambda adata, options: mapped_or_refused(
            model, adata, coverage=options["coverage"], reject=options["reject"]
        ),
    }
    started = time.perf_counter()
    rows = []
    for name, way in ways.items():
        outcomes = outcomes_of(way, given_by_user.examples // 2, given_by_user.seed)
        rows += [(name, outcome, times) for outcome, times in outcomes.most_common()]
    table = pd.DataFrame(rows, columns=["call", "outcome", "examples"])
    foreign = int(table["examples"][table["outcome"].str.startswith(FOREIGN)].sum())
    print(table.to_string(index=False))
    print(
        f"{table['examples'].sum():,} examples in {time.perf_counter() - started:.0f} s; foreign tracebacks: {foreign}"
    )
    return foreign


def outcomes_of(way: Callable[[AnnData, dict], str], examples: int, number: int | None) -> Counter[str]:
    """Return how often each outcome came."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cells())
    def try_all(case: tuple[AnnData, dict]) -> None:
        try:
            outcome = way(*case)
        except Exception as error:  # to be counted, and the others to be tried
            outcome = f"{FOREIGN} {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:70]
            if outcome not in outcomes:
                traceback.print_exc()
                print(case)
        outcomes[outcome] += 1

    (try_all if number is None else seed(number)(try_all))()
    return outcomes


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))

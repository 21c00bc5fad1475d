"""Sets of names that hold the truth as often as asked, and p-values of being of any type (book/13_guarantee.md).

Both are conformal, by crepes: a cell is held against labeled cells while their labels were hidden. If one rule had
judged both, sets would hold the type at least as often as asked, in the mean over draws of labels, of cells like the
labeled ones of their type. Here labels are judged by rules that learned from four fifths of them: about as often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from crepes import ConformalClassifier
from numpy.typing import NDArray
from scipy.stats import binomtest

_ROUNDING = 1e-9  # 1 - 0.9 is a little less than 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What was said of labeled cells while their labels were hidden."""

    probabilities: NDArray[np.float64]  # (labels, types)
    codes: NDArray[np.integer]  # (labels,), the labels, as columns
    strangeness: NDArray[np.float64]  # (labels,)

    def categories(self, coverage: float) -> NDArray[np.int64]:
        """Return with which others each type is calibrated, (types,): the number of a type, by itself where it can be.

        A p-value from n labels is 1/(n + 1) at the least. So a type needs 1/(1 - coverage) - 1 labels to be left out
        of any set; those that have fewer are taken together, and with the next larger types, until there are as many.
        """
        labels, least = np.bincount(self.codes, minlength=self.probabilities.shape[1]), least_labels(coverage)
        together = labels < least
        for kind in np.argsort(labels, kind="stable"):
            if together.any() and labels[together].sum() < least:
                together[kind] = True
        return np.where(together, together.argmax(), np.arange(len(labels)))

    def p_values(self, probabilities: NDArray[np.float64], coverage: float) -> NDArray[np.float64]:
        """Return p-values (cells, types): of the labels a type is calibrated with, how many were no more probable."""
        bins = self.categories(coverage)
        if not len(self.codes):
            return np.ones(probabilities.shape)
        own = self.probabilities[np.arange(len(self.codes)), self.codes]
        conformal = ConformalClassifier().fit(1 - own, bins=bins[self.codes])
        columns = [
            conformal.predict_p(1 - p[:, None], bins=np.full(len(p), kind), smoothing=False)
            for kind, p in zip(bins, probabilities.T, strict=True)
        ]
        return np.hstack(columns)

    def sets(self, probabilities: NDArray[np.float64], coverage: float) -> NDArray[np.bool_]:
        """Return which types are in the set of each cell, (cells, types); the most probable always is."""
        return _sets(self.p_values(probabilities, coverage), probabilities, coverage)

    def p_known(self, strangeness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return p-values (cells,): how many labeled cells looked as strange as each cell, or stranger.

        They hold for cells of all labeled types in the mixture that was labeled; in a type whose cells look strange
        more are refused, and in others fewer.
        """
        if not len(self.codes):
            return np.ones(len(strangeness))
        return ConformalClassifier().fit(self.strangeness).predict_p(strangeness[:, None], smoothing=False)[:, 0]

    def of_hidden(self, coverage: float) -> NDArray[np.bool_]:
        """Return the sets of the labeled cells, (labels, types), each held against the other labels of its type."""
        p, bins = self.p_values(self.probabilities, coverage), self.categories(coverage)
        count = np.bincount(bins[self.codes], minlength=len(bins))[bins]  # of each type: labels it is calibrated with
        same = bins[self.codes][:, None] == bins
        own = self.probabilities[np.arange(len(self.codes)), self.codes]
        counted = own[:, None] <= self.probabilities  # a label is among those that it is held against, and is left out
        p = np.where(same, (p * (count + 1) - counted) / np.maximum(count, 1), p)
        return _sets(p, self.probabilities, coverage)

    def without(self, rows: NDArray[np.bool_]) -> Calibration:
        """Return the same without some labels, (labels,) of bool."""
        return Calibration(self.probabilities[~rows], self.codes[~rows], self.strangeness[~rows])

    def found(self, types: Sequence[str], coverage: float) -> pd.DataFrame:
        """Return the mean size of sets by type, and how often they held the hidden label, with a 95 % interval.

        Of a type that is calibrated by itself its own labels cannot tell that: sets are made to hold that many.
        """
        sets, bins = self.of_hidden(coverage), self.categories(coverage)
        rows = {}
        for kind, name in enumerate(types):
            own = self.codes == kind
            promised = (bins == bins[kind]).sum() == 1 and own.sum() >= least_labels(coverage)
            size = float(sets[own].sum(1).mean()) if own.any() else np.nan
            held = covered(sets[own, kind])
            if promised:
                held |= dict.fromkeys(("coverage", "low", "high"), np.nan)
            rows[name] = held | {"size": size, "promised": bool(promised)}
        return pd.DataFrame.from_dict(rows, orient="index")

    def found_in_batches(self, batches: NDArray[np.object_], coverage: float) -> pd.DataFrame:
        """Return how often sets held the label in each batch, (batches, 5), calibrated on labels of the others.

        The model has seen labels of the batch. A batch is left out where the others have too few labels.

        Args:
            batches: The batch of each labeled cell, (labels,).
            coverage: What was asked.
        """
        rows = {}
        for name in np.unique(batches.astype(str)):
            own = batches.astype(str) == name
            if (~own).sum() < least_labels(coverage):
                continue
            sets = self.without(own).sets(self.probabilities[own], coverage)
            rows[name] = covered(sets[np.arange(own.sum()), self.codes[own]]) | {"size": float(sets.sum(1).mean())}
        return pd.DataFrame.from_dict(rows, orient="index")


def least_labels(coverage: float) -> int:
    """Return how many labels a type needs for a set that can leave it out: 1/(1 - coverage) - 1."""
    return int(np.ceil(1 / (1 - coverage) - 1 - _ROUNDING))


def covered(held: NDArray[np.bool_]) -> dict[str, float]:
    """Return how many sets there are, the share that held the truth, and its 95 % interval (Clopper and Pearson)."""
    if not len(held):
        return {"labels": 0, "coverage": np.nan, "low": np.nan, "high": np.nan}
    reach = binomtest(int(held.sum()), len(held)).proportion_ci()
    return {"labels": len(held), "coverage": held.mean(), "low": reach.low, "high": reach.high}


def promise(calibration: Calibration, types: Sequence[str], coverage: float, *, alike: bool) -> str:
    """Say what is promised of the sets."""
    bins = calibration.categories(coverage)
    alone = [name for kind, name in enumerate(types) if (bins == bins[kind]).sum() == 1]
    enough = len(calibration.codes) >= least_labels(coverage)
    if not enough:
        return (
            f"{len(calibration.codes)} hidden labels are too few for sets that hold the type in {percent(coverage)} of "
            f"the cells, which take {least_labels(coverage)}: every set holds every name."
        )
    if len(alone) == len(types):
        text = f"Sets are made to hold the type of a cell in {percent(coverage)} of the cells of each type"
    else:
        rest = [name for name in types if name not in alone]
        text = (
            f"Sets are made to hold the type of a cell in {percent(coverage)} of the cells"
            + (f" of each of {len(alone)} types and" if alone else "")
            + f" of {', '.join(rest)} taken together as they were labeled, for {least_labels(coverage)} labels of a "
            "type are needed for a promise of its own"
        )
    if alike:
        return f"{text}, as far as cells are like the labeled ones of their type."
    return (
        f"{text} that are like the labeled ones. Most of the cells that were annotated with these labels are not, so "
        "that nothing is promised of them."
    )


def percent(share: float) -> str:
    """Return a share in percent, with all its digits."""
    return f"{100 * share:.10g}%"


def _sets(p: NDArray[np.float64], probabilities: NDArray[np.float64], coverage: float) -> NDArray[np.bool_]:
    sets = p > 1 - coverage + _ROUNDING
    sets[np.arange(len(p)), probabilities.argmax(1)] = True
    return sets

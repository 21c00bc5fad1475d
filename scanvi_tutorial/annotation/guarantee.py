"""Prediction sets with a required coverage, and p-values of belonging to any labeled type (book/13_guarantee.md).

Both are conformal and computed with crepes: the score of a cell is compared with the scores of labeled cells while
their labels were hidden. If one classifier had scored both, sets would contain the type at least as often as required,
on average over draws of labels, for cells exchangeable with the labeled cells of their type. Here labeled cells are
scored by classifiers trained on four fifths of the labels (cross-conformal), so coverage is only approximate.
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
    """Predictions for labeled cells while their labels were hidden, and conformal prediction with them."""

    probabilities: NDArray[np.float64]  # (labels, types)
    codes: NDArray[np.integer]  # (labels,), the labels, as columns
    strangeness: NDArray[np.float64]  # (labels,)

    def categories(self, coverage: float) -> NDArray[np.int64]:
        """Return the calibration group of each type, (types,); types with enough labels are calibrated separately.

        The smallest p-value from n labels is 1/(n + 1). So a type can be left out of a set only if it has
        1/(1 - coverage) - 1 labels. Types with fewer are pooled, together with the next larger types if necessary.
        """
        labels, least = np.bincount(self.codes, minlength=self.probabilities.shape[1]), least_labels(coverage)
        together = labels < least
        for kind in np.argsort(labels, kind="stable"):
            if together.any() and labels[together].sum() < least:
                together[kind] = True
        return np.where(together, together.argmax(), np.arange(len(labels)))

    def p_values(self, probabilities: NDArray[np.float64], coverage: float) -> NDArray[np.float64]:
        """Return conformal p-values (cells, types): the share of calibration labels that were no more probable."""
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
        """Return the prediction set of each cell, (cells, types) of bool; the most probable type is always included."""
        return _sets(self.p_values(probabilities, coverage), probabilities, coverage)

    def p_known(self, strangeness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return conformal p-values (cells,): the share of labeled cells that are at least as strange as each cell.

        They are valid for the mixture of types that was labeled. More cells are rejected in types whose cells are
        stranger than average, and fewer in the others.
        """
        if not len(self.codes):
            return np.ones(len(strangeness))
        return ConformalClassifier().fit(self.strangeness).predict_p(strangeness[:, None], smoothing=False)[:, 0]

    def of_hidden(self, coverage: float) -> NDArray[np.bool_]:
        """Return the sets of the labeled cells, (labels, types), each calibrated on the other labels of its type."""
        p, bins = self.p_values(self.probabilities, coverage), self.categories(coverage)
        count = np.bincount(bins[self.codes], minlength=len(bins))[
            bins
        ]  # of each type: number of its calibration labels
        same = bins[self.codes][:, None] == bins
        own = self.probabilities[np.arange(len(self.codes)), self.codes]
        counted = own[:, None] <= self.probabilities  # the label itself is among the calibration labels and is left out
        p = np.where(same, (p * (count + 1) - counted) / np.maximum(count, 1), p)
        return _sets(p, self.probabilities, coverage)

    def without(self, rows: NDArray[np.bool_]) -> Calibration:
        """Return the calibration without the labels in `rows`, (labels,) of bool."""
        return Calibration(self.probabilities[~rows], self.codes[~rows], self.strangeness[~rows])

    def found(self, types: Sequence[str], coverage: float) -> pd.DataFrame:
        """Return the mean size of sets by type, and their coverage of hidden labels with a 95 % interval.

        The coverage is missing for types that are calibrated separately, because the sets are constructed to contain
        that share of their labels.
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
        """Return the coverage of sets in each batch, (batches, 5), calibrated on labels of the other batches.

        The classifiers were trained with labels of the batch. A batch is left out if the others have too few labels.

        Args:
            batches: The batch of each labeled cell, (labels,).
            coverage: The required coverage.
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
    """Return how many labels a type needs so that sets can exclude it: 1/(1 - coverage) - 1."""
    return int(np.ceil(1 / (1 - coverage) - 1 - _ROUNDING))


def covered(held: NDArray[np.bool_]) -> dict[str, float]:
    """Return the number of sets, their coverage, and its 95 % interval (Clopper and Pearson)."""
    if not len(held):
        return {"labels": 0, "coverage": np.nan, "low": np.nan, "high": np.nan}
    reach = binomtest(int(held.sum()), len(held)).proportion_ci()
    return {"labels": len(held), "coverage": held.mean(), "low": reach.low, "high": reach.high}


def promise(calibration: Calibration, types: Sequence[str], coverage: float, *, alike: bool) -> str:
    """Return a sentence on the guarantee of the sets."""
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

"""A test whether labeled cells are similar to the other cells of their type (book/12_labels.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scanvi_tutorial.annotation.label_model import Named

_NOT_COMPARED = 0.5  # reported standard error where too few cells can be compared
_UNLIKE, _ERRORS = 0.57, 3.0  # an AUROC above this, and by three standard errors above 0.5, means dissimilar


@dataclass(frozen=True, slots=True)
class Likeness:
    """How labeled cells differ from the others of their type; each number is an AUROC within types, 0.5 if they do not.

    If a classifier cannot distinguish the two groups, results on hidden labels hold for all cells.
    """

    auroc: float  # of a classifier that looks at states, depth and density
    error: float  # standard error of an AUROC where there is no difference
    depth: float = 0.5  # of the total count: above 0.5 labeled cells are deeper
    density: float = 0.5  # of log p(z): above 0.5 they are more typical

    @property
    def alike(self) -> bool:
        """Whether labeled cells are similar to the others, so that results on hidden labels hold for all cells."""
        return not (self.auroc > _UNLIKE and self.auroc > 0.5 + _ERRORS * self.error)

    def in_words(self) -> str:
        """Return a sentence on whether results on hidden labels hold for all cells, and the direction of their bias."""
        if self.error >= _NOT_COMPARED:
            return "There are too few cells with or without a label to compare the two."
        pairs = f"a classifier distinguishes the two with an AUROC of {self.auroc:.2f}, where 0.5 is chance"
        if self.alike:
            return (
                f"No difference was found between labeled cells and the others of their type ({pairs}), so results on "
                "hidden labels should hold for all cells."
            )
        reach = 2 * self.error
        easier = {"deeper": self.depth > 0.5 + reach, "more typical": self.density > 0.5 + reach}
        more = " and ".join(name for name, holds in easier.items() if holds)
        how = (
            f"They are {more}, so the accuracy on hidden labels is probably higher than on the other cells"
            if more
            else "They are not deeper or more typical; the accuracy on hidden labels may be too high or too low"
        )
        return f"Labeled cells are not like the others of their type: {pairs}. {how}."


def compare_labeled(
    states: NDArray[np.float64], totals: NDArray[np.float64], named: Named, codes: NDArray[np.integer]
) -> Likeness:
    """Return how well logistic regression tells labeled cells from others that seem to be of the same type.

    It looks at states, total counts, density and probabilities; each cell is judged by a fit that had not seen it.

    Args:
        states: (cells, dimensions).
        totals: Total counts, (cells,).
        named: What the label model says of the cells.
        codes: Labels, (cells,), -1 for none.
    """
    labeled, types = codes >= 0, named.probabilities.argmax(1)
    if labeled.sum() < 10 or (~labeled).sum() < 10:
        return Likeness(0.5, _NOT_COMPARED)
    about = np.column_stack([states, np.log(totals + 1), named.log_density, named.probabilities])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    scores = cross_val_predict(classifier, about, labeled, cv=5, method="decision_function")
    found, variances, weights = [], [], []
    for kind in np.unique(types):
        own = types == kind
        some, others = labeled[own].sum(), (~labeled[own]).sum()
        if min(some, others) > 1:
            found.append([roc_auc_score(labeled[own], of[own]) for of in (scores, totals, named.log_density)])
            variances.append((some + others + 1) / (12 * some * others))
            weights.append(some)
    if not found:
        return Likeness(0.5, _NOT_COMPARED)
    weights = np.array(weights) / np.sum(weights)
    auroc, depth, density = map(float, weights @ np.array(found))
    return Likeness(auroc, float(np.sqrt(weights**2 @ variances)), depth, density)

"""The label model as Pyro programs (book/12_labels.md): the density that `annotation.label_model` maximizes."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from torch import Tensor


def label_program(
    views: Sequence[Float[Tensor, "cells dimensions"]],
    labels: Int[Tensor, " cells"] | None,
    *,
    weights: Sequence[float],
    shares: Float[Tensor, " types"],
    means: Sequence[Float[Tensor, "types dimensions"]],
    covariances: Sequence[Float[Tensor, "types dimensions dimensions"]],
    confusion: Float[Tensor, "types types"],
    tails: float = 5.0,
) -> None:
    """Observe states, and labels if given, of cells; the type of each cell is summed over.

    Args:
        views: States of the cells in each view.
        labels: The labels of the cells; None for unlabeled cells.
        weights: The weight of each view; they sum to one.
        shares: π for cells without a label, ρ for labeled cells.
        means: Mean state of each type, for each view.
        covariances: Covariance of each type, for each view.
        confusion: p(label | type), labels in columns and types in rows.
        tails: Degrees of freedom of Student's t.
    """
    with pyro.plate("cells", len(views[0])):
        y = pyro.sample("y", dist.Categorical(shares), infer={"enumerate": "parallel"})
        if labels is not None:
            pyro.sample("r", dist.Categorical(confusion[y]), obs=labels)
        for number, (weight, z) in enumerate(zip(weights, views, strict=True)):
            roots = torch.linalg.cholesky(covariances[number])
            law = dist.MultivariateStudentT(tails, means[number][y], roots[y])
            # all views describe the same cell, so their log-densities are averaged
            pyro.factor(f"z in view {number}", weight * law.log_prob(z))


def label_priors(
    *,
    weights: Sequence[float],
    shares: Float[Tensor, " types"],
    covariances: Sequence[Float[Tensor, "types dimensions dimensions"]],
    common: Sequence[Float[Tensor, "dimensions dimensions"]],
    cells_of_type: float,
    cells_of_common: float = 200.0,
) -> Float[Tensor, ""]:
    """Return the log-density of the priors of shares and covariances, up to a constant.

    Args:
        weights: The weight of each view.
        shares: π.
        covariances: Covariance of each type, for each view.
        common: For each view, the common covariance on which the prior is centered.
        cells_of_type: Pseudo-counts of each type in the prior of the shares.
        cells_of_common: Pseudo-counts in the prior of a covariance.
    """
    total = cells_of_type * shares.log().sum()
    for weight, own, center in zip(weights, covariances, common, strict=True):
        ratio = torch.linalg.solve(own, center.expand_as(own))
        distance = torch.logdet(own) + ratio.diagonal(dim1=-2, dim2=-1).sum(-1)
        total = total - weight * cells_of_common / 2 * distance.sum()
    return total

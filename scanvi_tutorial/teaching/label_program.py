"""The label model as Pyro programs (book/12_labels.md): what `annotation.label_model` maximizes, site by site."""

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
    """Observe states, and labels, of some cells; the type of each is summed over.

    Args:
        views: States of the cells in each view.
        labels: The labels of the cells; None where they have none.
        weights: What each view counts; they sum to one.
        shares: π among cells without a label, ρ among labeled ones.
        means: Of the states in each view.
        covariances: Likewise.
        confusion: How probable each label is (columns) for a cell of each type (rows).
        tails: Degrees of freedom of Student's t.
    """
    with pyro.plate("cells", len(views[0])):
        y = pyro.sample("y", dist.Categorical(shares), infer={"enumerate": "parallel"})
        if labels is not None:
            pyro.sample("r", dist.Categorical(confusion[y]), obs=labels)
        for number, (weight, z) in enumerate(zip(weights, views, strict=True)):
            roots = torch.linalg.cholesky(covariances[number])
            law = dist.MultivariateStudentT(tails, means[number][y], roots[y])
            # views show one and the same cell: a mean of log-densities
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
    """Return the log-density of the priors of shares and covariances, but for a constant.

    Args:
        weights: What each view counts.
        shares: π.
        covariances: Of each view.
        common: What those of a view are drawn to.
        cells_of_type: The cells of each type that the prior of the shares stands for.
        cells_of_common: Those that the prior of a covariance stands for.
    """
    total = cells_of_type * shares.log().sum()
    for weight, own, center in zip(weights, covariances, common, strict=True):
        ratio = torch.linalg.solve(own, center.expand_as(own))
        distance = torch.logdet(own) + ratio.diagonal(dim1=-2, dim2=-1).sum(-1)
        total = total - weight * cells_of_common / 2 * distance.sum()
    return total

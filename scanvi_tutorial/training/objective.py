"""The training loss, and the engine that computes it with Pyro.

Explained in book/05_training.md. In nats per cell, with f the labeled share of the cells,

    (1 − f) · mean of −U over unlabeled cells  +  f · mean of −L over labeled cells  +  w · mean cross-entropy.

Two engines compute the same terms: `PyroEngine` runs model and guide, `fast.FastEngine` uses explicit formulas.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, Protocol

import pyro
import torch
from jaxtyping import Float
from pyro.poutine.messenger import Messenger
from torch import Tensor

from scanvi_tutorial.config import Objective
from scanvi_tutorial.model.bound import bound_terms, estimator
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.minibatches import Half, Minibatch


class Engine(Protocol):
    """The interface of an object that computes the bound of a model."""

    model: SCANVI
    sparse: bool  #: whether counts have to be `SparseCounts`

    def bound(
        self, half: Half, kl_weight: float = 1.0, *, y_given: bool = True
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Return the mean bound, its KL terms weighted, and the mean cross-entropy of the labels, in nats per cell.

        The bound is L if the half has labels and `y_given` is true, else U. The cross-entropy is None without labels
        or with a label weight of zero.
        """

    def terms(self, half: Half) -> dict[str, Float[Tensor, " cells"]]:
        """Return the terms of U of every cell, or of L if the half has labels, as `bound_terms` does."""

    def logits(self, half: Half) -> Float[Tensor, "cells labels"]:
        """Return the classifier's logits at the posterior mean of z2."""


def loss_of(
    engine: Engine,
    minibatch: Minibatch,
    kl_weight: float = 1.0,
    objective: Objective = "labels",
) -> Tensor:
    """Return the loss of one minibatch, in nats per cell.

    With `objective="everywhere"`, U replaces L for labeled cells, so that their labels enter
    only through the cross-entropy; the paper's code and scvi-tools minimize this loss. With
    "unlabeled", every cell is in the unlabeled half, and the loss is the mean of −U.
    """
    model = engine.model
    fraction = 0.0 if objective == "unlabeled" else model.labeled_fraction
    loss = torch.zeros((), device=model.device)
    if minibatch.unlabeled is not None:
        bound, _ = engine.bound(minibatch.unlabeled, kl_weight)
        loss = loss - (1 - fraction) * bound
    if minibatch.labeled is not None:
        y_given = objective == "labels"
        bound, cross_entropy = engine.bound(minibatch.labeled, kl_weight, y_given=y_given)
        loss = loss - fraction * bound
        if cross_entropy is not None:
            loss = loss + model.config.label_weight * cross_entropy
    return loss


class KLWeight(Messenger):
    """Multiply the log-probabilities of all latent sites by `weight`.

    Because model and guide are scaled alike, the bound becomes log p(x | …) − weight · KL.
    The sum over y stays exact, because its weights q(y | z2) are not scaled.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


class PyroEngine:
    """Computes the bound from model and guide with Pyro; counts are dense."""

    sparse = False

    def __init__(self, model: SCANVI) -> None:
        self.model, self.elbo = model, estimator()

    def bound(
        self,
        half: Half,
        kl_weight: float = 1.0,
        *,
        y_given: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean bound and the mean cross-entropy; see `Engine`."""
        model, y = self.model.model, half.y if y_given else None
        if half.y is not None and not y_given:
            model = partial(_model_with_label_beside, self.model, half.y)
        with KLWeight(kl_weight), _LabelApart() as label, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")  # `run_epoch` raises an error
            cells = half.x, y, half.depth, half.batch
            loss = self.elbo.differentiable_loss(model, self.model.guide, *cells)
        return -loss / len(half.x), label.cross_entropy

    def terms(self, half: Half) -> dict[str, Tensor]:
        """Return the terms of U of every cell, or of L where the half has labels."""
        return bound_terms(self.model, half.x, half.y, half.batch)

    def logits(self, half: Half) -> Tensor:
        """Return the classifier's logits at the posterior mean of z2."""
        return self.model.classifier(self.model.z2l_encoder(half.x)[0])


class _LabelApart(Messenger):
    """Exclude the site "label" from Pyro's bound, and keep its mean cross-entropy."""

    cross_entropy: Tensor | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "label":
            msg["mask"] = False

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "label":
            self.cross_entropy = -msg["fn"].log_prob(msg["value"]).mean()


def _model_with_label_beside(
    model: SCANVI, labels: Tensor, x: Tensor, y: None, depth: Tensor | None, batch: Tensor | None
) -> None:
    """Run the model on cells without giving y, and add the label term for their labels."""
    z2 = model.model(x, y, depth, batch)
    if model.config.label_weight > 0:
        with pyro.plate("labeled", len(x)):
            model.label_term(z2, labels)

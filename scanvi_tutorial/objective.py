"""What a step of training minimizes: the bound through Pyro, with a weight on its KL terms, and the label term.

Explained in book/05_training.md. In nats per cell, with f the labelled share of the cells,

    (1 − f) · mean of −U over unlabelled cells  +  f · mean of −L over labelled cells  +  w · mean cross-entropy.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from scanvi_tutorial.batching import Minibatch
from scanvi_tutorial.model import SCANVI

__all__ = ["KLWeight", "estimator", "loss_of"]


class KLWeight(Messenger):
    """Multiply the log-probabilities of all latent sites by `weight`.

    Done in model and guide alike, Pyro adds up log p(x | …) − weight · KL. Sums over y
    stay exact: their weights are the probabilities themselves, which no scale touches.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"]:
            msg["scale"] = msg["scale"] * self.weight


def estimator() -> TraceEnum_ELBO:
    """Return Pyro's estimator of the bound, which sums over y wherever y is not given."""
    # labelled minibatches leave nothing to enumerate, which is no mistake of ours
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)


def loss_of(
    model: SCANVI,
    minibatch: Minibatch,
    elbo: ELBO,
    kl_weight: float = 1.0,
) -> Tensor:
    """Return the loss of one minibatch, in nats per cell."""
    share = model.labelled_fraction
    loss = torch.zeros((), device=model.device)
    with KLWeight(kl_weight):
        if minibatch.x is not None:
            x = minibatch.x
            unlabelled = elbo.differentiable_loss(model.model, model.guide, x)
            loss = loss + (1 - share) * unlabelled / len(x)
        if minibatch.x_labelled is not None:
            x, y = minibatch.x_labelled, minibatch.y
            labelled = elbo.differentiable_loss(model.model, model.guide, x, y)
            loss = loss + share * labelled / len(y)  # share · α = w
    return loss

"""What a step of training minimizes: the bound through Pyro, with a weight on its KL terms, and the label term.

Explained in book/05_training.md. In nats per cell, with f the labeled share of the cells,

    (1 − f) · mean of −U over unlabeled cells  +  f · mean of −L over labeled cells  +  w · mean cross-entropy.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from scanvi_tutorial.config import Objective
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.minibatches import Minibatch

__all__ = ["KLWeight", "loss_of"]


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


def loss_of(
    model: SCANVI,
    minibatch: Minibatch,
    elbo: ELBO,
    kl_weight: float = 1.0,
    objective: Objective = "labels",
) -> Tensor:
    """Return the loss of one minibatch, in nats per cell.

    With `objective="everywhere"` a labeled cell adds U in place of L, as if only the
    classifier knew its label: what the paper's code and scvi-tools minimize. With
    "unlabeled" every cell is in `minibatch.x`, and the loss is the mean of −U.
    """
    fraction = 0.0 if objective == "unlabeled" else model.labeled_fraction
    loss = torch.zeros((), device=model.device)
    with KLWeight(kl_weight):
        if minibatch.x is not None:
            x = minibatch.x
            seen = x, None, minibatch.share, minibatch.batch
            unlabeled = elbo.differentiable_loss(model.model, model.guide, *seen)
            loss = loss + (1 - fraction) * unlabeled / len(x)
        if minibatch.x_labeled is not None:
            x, y = minibatch.x_labeled, minibatch.y
            known = minibatch.share_labeled, minibatch.batch_labeled
            if objective == "labels":
                labeled = elbo.differentiable_loss(model.model, model.guide, x, y, *known)
            else:
                story = partial(_as_if_unlabeled, model, y)
                labeled = elbo.differentiable_loss(story, model.guide, x, None, *known)
            loss = loss + fraction * labeled / len(y)  # fraction · α = w
    return loss


def _as_if_unlabeled(
    model: SCANVI, labels: Tensor, x: Tensor, y: None, share: Tensor | None, batch: Tensor | None
) -> None:
    """Tell the story of cells whose type is summed over, with their labels beside it for the classifier."""
    z2 = model.model(x, y, share, batch)
    if model.config.label_weight > 0:
        with pyro.plate("labeled", len(x)):
            model.label_term(z2, labels)

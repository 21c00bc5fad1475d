"""The bound without Pyro, for training: the same terms, the same noise, a fraction of the time.

Pyro traces model and guide anew at every step and broadcasts every site; here the terms
are written out once, counts stay sparse, and the decoder's last layer is fused with the likelihood. Networks are called
and noise is drawn in the order in which Pyro does, so that both engines see the same dropout and the same draws.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanvi_tutorial.config import Objective
from scanvi_tutorial.inputs.arrays import SparseCounts
from scanvi_tutorial.model.networks import positive
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.fused import Workspace, count_log_likelihood
from scanvi_tutorial.training.minibatches import Minibatch
from scanvi_tutorial.training.sparse import sparse_linear, to_column_major

__all__ = ["FastBound"]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class FastBound:
    """The bound of `model`, over its own networks; counts are `SparseCounts`.

    It keeps memory between calls: ask for the gradient of one minibatch before calling it with the next.
    """

    def __init__(self, model: SCANVI) -> None:
        self.model, self.workspace = model, Workspace()
        to_column_major(model.z2l_encoder.heads.layers[0])
        # x_decoder: all but the last layer, which is fused with the likelihood
        self.hidden, self.last = model.x_decoder.heads.layers[:-1], model.x_decoder.heads.layers[-1]

    def loss(self, minibatch: Minibatch, kl_weight: float = 1.0, objective: Objective = "labels") -> Tensor:
        """Return what `objective.loss_of` does."""
        model = self.model
        fraction = 0.0 if objective == "unlabeled" else model.labeled_fraction
        weight = model.config.label_weight
        loss = torch.zeros((), device=model.device)
        if minibatch.x is not None:
            bound, _ = self.bound(minibatch.x, None, minibatch.share, minibatch.batch, kl_weight, "unlabeled")
            loss = loss - (1 - fraction) * bound
        if minibatch.x_labeled is not None:
            y = minibatch.y if objective == "labels" else None
            known = minibatch.share_labeled, minibatch.batch_labeled
            bound, z2 = self.bound(minibatch.x_labeled, y, *known, kl_weight, "labeled")
            loss = loss - fraction * bound
            if weight > 0:
                loss = loss + weight * nn.functional.cross_entropy(model.classifier(z2), minibatch.y)
        return loss

    def bound(
        self,
        x: SparseCounts,
        y: Float[Tensor, "cells labels"] | None = None,
        share: Float[Tensor, "cells 1"] | None = None,
        batch: Float[Tensor, "cells batches"] | None = None,
        kl_weight: float = 1.0,
        name: str = "",
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "cells latent"]]:
        """Return the mean of U (of L where `y` is given) with KL terms weighed, in nats, and the states drawn.

        `name` keeps the memory of two calls apart whose gradients are both wanted.
        """
        terms, z2, mean = self._terms(x, y, share, batch, name)
        known = 0.0 if y is None else terms["kl_y"].mean()  # a constant, and observed: no weight touches it
        free = terms["kl_l"] + terms["kl_z"] + (terms["kl_y"] if y is None else 0.0)
        return mean - kl_weight * free.mean() - known, z2

    def terms(
        self,
        x: SparseCounts,
        y: Float[Tensor, "cells labels"] | None = None,
        batch: Float[Tensor, "cells batches"] | None = None,
    ) -> dict[str, Float[Tensor, " cells"]]:
        """Return what `inference.bound_terms` does."""
        return self._terms(x, y, None, batch, "")[0]

    def logits(self, x: SparseCounts) -> Float[Tensor, "cells labels"]:
        """Ask the classifier at the posterior mean."""
        return self.model.classifier(self._encode(x)[0])

    def _terms(
        self, x: SparseCounts, y: Tensor | None, share: Tensor | None, batch: Tensor | None, name: str
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        model = self.model
        z2_loc, z2_scale, l_loc, l_scale = self._encode(x)
        eps = torch.randn_like(z2_loc)
        z2 = z2_loc + z2_scale * eps
        log_q_z2 = _standard(eps, z2_scale)
        if model.config.library == "latent":
            eps = torch.randn_like(l_loc)
            log_l = l_loc + l_scale * eps
            prior, scale = model.library_prior(batch)
            prior = prior if share is None else prior + share.log()
            standard = (log_l - prior) / scale
            # the 1 / l of both log-normal densities cancels
            kl_l = _standard(eps, l_scale) - _standard(standard, torch.ones_like(standard) * scale)
        else:
            log_l, kl_l = x.totals.clamp(min=1).log(), z2.new_zeros(len(x))
        labels = len(model.label_names)
        if y is None:
            log_q_y = model.classifier(z2).log_softmax(-1)
            every = torch.eye(labels, dtype=z2.dtype, device=z2.device)[:, None]
            kl_z1 = self._within_type(z2, every)  # (labels cells)
            q_y = log_q_y.exp()
            kl_z = log_q_z2 + (q_y.T * kl_z1).sum(0)
            kl_y = (q_y * (log_q_y + math.log(labels))).sum(-1)
        else:
            kl_z = log_q_z2 + self._within_type(z2, y)
            kl_y = z2.new_full((len(x),), math.log(labels))
        log_theta = model.capped_log_theta
        mean, each = count_log_likelihood(
            model.config.gene_likelihood,
            x,
            self.hidden(z2 if batch is None else torch.cat([z2, batch], -1)),
            self.last.weight,
            self.last.bias,
            log_l,
            log_theta,
            workspace=self.workspace,
            name=name,
        )
        return {"log_likelihood": each, "kl_l": kl_l, "kl_z": kl_z, "kl_y": kl_y}, z2, mean

    def _within_type(self, z2: Tensor, y: Tensor) -> Tensor:
        """Return log q(z1 | z2, y) − log p(z1) − log p(z2 | z1, y) at a draw of z1, (*enum cells)."""
        loc, scale = self.model.z1_encoder(z2, y)
        eps = torch.randn_like(loc)
        z1 = loc + scale * eps
        p_loc, p_scale = self.model.z2_decoder(z1, y)
        return _standard(eps, scale) - _standard(z1) - _standard((z2 - p_loc) / p_scale, p_scale)

    def _encode(self, x: SparseCounts) -> tuple[Tensor, ...]:
        """Return what `Z2LEncoder.forward` does."""
        encoder = self.model.z2l_encoder
        log_total = x.totals.clamp(min=1).log()
        factor = (encoder.log_typical_total - log_total).exp()
        values = (x.values * factor[:, 0].index_select(0, x.rows)).log1p()  # a zero stays one
        first, *rest = encoder.heads.layers
        out = sparse_linear(x, values, first.weight, first.bias)
        for layer in rest:
            out = layer(out)
        z2_loc, z2_scale, l_shift, l_scale = out.split(encoder.heads.widths, dim=-1)
        return z2_loc, positive(z2_scale), log_total + l_shift, positive(l_scale)


def _standard(eps: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the log-density of a normal draw, summed over the last axis, from its distance in standard deviations."""
    log = -0.5 * eps.square() - _HALF_LOG_TAU
    return (log if scale is None else log - scale.log()).sum(-1)

"""The bound by explicit formulas, for faster training: the same terms and the same noise as with Pyro.

Pyro traces model and guide again at every step and broadcasts every site. Here the terms are written as formulas,
counts stay sparse, and the decoder's last layer is fused with the likelihood. Networks are called and noise is drawn in
the same order as in Pyro, so that both engines use the same dropout and the same draws.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scanvi_tutorial.inputs.arrays import SparseCounts
from scanvi_tutorial.model.networks import Heads, positive
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.fused import Workspace, count_log_likelihood, sparse_linear, to_column_major
from scanvi_tutorial.training.minibatches import Half

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class FastEngine:
    """Computes the bound of `model` with the model's networks; counts are `SparseCounts`.

    Buffers are reused between calls: compute the gradient of one minibatch before the next call.
    """

    sparse = True

    def __init__(self, model: SCANVI) -> None:
        self.model, self.workspace = model, Workspace()
        to_column_major(model.z2l_encoder.first)
        # x_decoder: all but the last layer, which is fused with the likelihood
        self.hidden, self.last = model.x_decoder.heads.layers[:-1], model.x_decoder.heads.layers[-1]

    def bound(
        self, half: Half, kl_weight: float = 1.0, *, y_given: bool = True
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Return the mean bound and the mean cross-entropy; see `objective.Engine`.

        A half with labels and one without use separate buffers, so the gradients of both can be computed together.
        """
        y = half.y if y_given else None
        terms, observed, z2, mean = self._terms(half, y, name="unlabeled" if half.y is None else "labeled")
        free = terms["kl_l"] + terms["kl_z"] + (terms["kl_y"] + observed)  # observed sites get no KL weight
        bound = mean - kl_weight * free.mean() + observed.mean()
        for prior, value in self.model.priors().values():
            bound = bound + prior.log_prob(value).sum() / self.model.n_cells
        if half.y is None or self.model.config.label_weight == 0:
            return bound, None
        return bound, self.model.label_cross_entropy(self.model.classifier(z2), half.y).mean()

    def terms(self, half: Half) -> dict[str, Float[Tensor, " cells"]]:
        """Return the terms of U of every cell, or of L where the half has labels, as `bound_terms` does."""
        return self._terms(half, half.y)[0]

    def logits(self, half: Half) -> Float[Tensor, "cells labels"]:
        """Return the classifier's logits at the posterior mean of z2."""
        return self.model.classifier(self._encode(half.x)[0])

    def _terms(self, half: Half, y: Tensor | None, name: str = "") -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """Return terms and log p(label) of every cell, the states drawn, the mean log-likelihood with its gradient.

        Two calls whose gradients are both needed must have different `name`s, which select separate buffers.
        """
        model, x = self.model, half.x
        z2_loc, z2_scale, l_loc, l_scale = self._encode(x)
        eps = torch.randn_like(z2_loc)
        z2 = z2_loc + z2_scale * eps
        log_q_z2 = _standard(eps, z2_scale)
        if model.config.library == "latent":
            eps = torch.randn_like(l_loc)
            log_l = l_loc + l_scale * eps
            prior, scale = model.library_prior(half.batch)
            prior = prior if half.depth is None else prior + half.depth.log()
            standard = (log_l - prior) / scale
            # the 1 / l of both log-normal densities cancels
            kl_l = _standard(eps, l_scale) - _standard(standard, torch.ones_like(standard) * scale)
        else:
            log_l, kl_l = x.totals.clamp(min=1).log(), z2.new_zeros(len(x))
        if y is None or not model.exact:
            log_label = z2.new_zeros(()) if y is None else model.log_label(y)  # of every type
            log_q_y = (model.classifier(z2) + log_label).log_softmax(-1)
            every = torch.eye(len(model.label_names), dtype=z2.dtype, device=z2.device)[:, None]
            kl_z1 = self._within_type(z2, every)  # (labels cells)
            q_y = log_q_y.exp()
            kl_z = log_q_z2 + (q_y.T * kl_z1).sum(0)
            observed = (q_y * log_label).sum(-1)
            kl_y = (q_y * (log_q_y - model.log_shares)).sum(-1) - observed
        else:
            kl_z = log_q_z2 + self._within_type(z2, y)
            observed = (y * model.log_shares).sum(-1)
            kl_y = -observed
        log_theta = model.capped_log_theta
        mean, log_prob = count_log_likelihood(
            model.config.gene_likelihood,
            x,
            self.hidden(z2 if half.batch is None else torch.cat([z2, half.batch], -1)),
            self.last.weight,
            self.last.bias,
            log_l,
            log_theta,
            workspace=self.workspace,
            name=name,
        )
        return {"log_likelihood": log_prob, "kl_l": kl_l, "kl_z": kl_z, "kl_y": kl_y}, observed, z2, mean

    def _within_type(self, z2: Tensor, y: Tensor) -> Tensor:
        """Return log q(z1 | z2, y) − log p(z1) − log p(z2 | z1, y) at a draw of z1, (*enum cells)."""
        loc, scale = _loc_and_scale(self.model.z1_encoder.heads, z2, y)
        eps = torch.randn_like(loc)
        z1 = loc + scale * eps
        p_loc, p_scale = _loc_and_scale(self.model.z2_decoder.heads, z1, y)
        return _standard(eps, scale) - _standard(z1) - _standard((z2 - p_loc) / p_scale, p_scale)

    def _encode(self, x: SparseCounts) -> tuple[Tensor, ...]:
        """Return the same as `Z2LEncoder.forward`."""
        encoder = self.model.z2l_encoder
        log_total = x.totals.clamp(min=1).log()
        factor = (encoder.log_typical_total - log_total).exp()
        scaled = (x.values * factor[:, 0].index_select(0, x.rows)).log1p()  # zeros stay zero
        return encoder.read(sparse_linear(x, scaled, encoder.first.weight, encoder.first.bias), log_total)


def _loc_and_scale(heads: Heads, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, each (*enum cells latent), as the networks of z1 and z2 do.

    The first layer of z and y concatenated is the sum of a product with z and one with y. So the product with z is
    computed once per cell, not once per cell and type.
    """
    first, *others = heads.layers
    of_z, of_y = first.weight.split([z.shape[-1], y.shape[-1]], 1)
    hidden = z @ of_z.T + y @ of_y.T
    if first.bias is not None:
        hidden = hidden + first.bias
    flat = hidden.reshape(-1, hidden.shape[-1])
    for layer in others:
        flat = layer(flat)
    loc, scale = flat.reshape(*hidden.shape[:-1], -1).split(heads.widths, -1)
    return loc, positive(scale)


def _standard(eps: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return the log-density of a normal draw, summed over the last axis, from its distance in standard deviations."""
    log = -0.5 * eps.square() - _HALF_LOG_TAU
    return (log if scale is None else log - scale.log()).sum(-1)

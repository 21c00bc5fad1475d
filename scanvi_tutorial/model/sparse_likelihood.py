"""The same count distributions, paying for lgamma only where there are counts.

Twins of those in likelihood.py: the same parameters, the same log-probabilities and the same gradients. Most counts are
zero, and for a zero the negative binomial is short, with logit r = log m − log θ:

    log NB(0) = −θ log(1 + e^r)
    log NB(x) = log NB(0) + lgamma(x + θ) − lgamma(θ) − lgamma(x + 1) + x (r − log(1 + e^r))

The first line is worked out everywhere, the rest of the second where x > 0; the derivatives are written by hand.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Distribution
from torch.nn.functional import softplus

from scanvi_tutorial.model import likelihood

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial", "count_distribution"]


class Poisson(likelihood.Poisson):
    """The Poisson of likelihood.py, quicker at zeros, whose log-probability is −m."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.log_mean.shape)
        log_mean, value = self.log_mean.expand(shape), value.expand(shape)
        at = value.nonzero(as_tuple=True)
        x = value[at]
        return (-log_mean.exp()).index_put(at, x * log_mean[at] - torch.lgamma(x + 1), accumulate=True)


class NegativeBinomial(likelihood.NegativeBinomial):
    """The negative binomial of likelihood.py, quicker at zeros."""

    def __init__(self, log_mean: Tensor, log_inverse_dispersion: Tensor, *, validate_args: bool | None = None) -> None:
        self._log_theta = log_inverse_dispersion  # one a gene, before it is spread over cells
        super().__init__(log_mean, log_inverse_dispersion, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return _LogProb.apply(value, self.log_mean, self._log_theta, None)


class ZeroInflatedNegativeBinomial(likelihood.ZeroInflatedNegativeBinomial):
    """The zero-inflated negative binomial of likelihood.py, quicker at zeros."""

    def __init__(
        self,
        log_mean: Tensor,
        log_inverse_dispersion: Tensor,
        gate_logits: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._log_theta = log_inverse_dispersion
        super().__init__(log_mean, log_inverse_dispersion, gate_logits, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return _LogProb.apply(value, self.log_mean, self._log_theta, self.gate_logits)


def count_distribution(
    kind: str,
    log_mean: Float[Tensor, "..."],
    log_inverse_dispersion: Float[Tensor, " genes"] | None = None,
    gate_logits: Float[Tensor, "..."] | None = None,
    *,
    plain: bool = False,
) -> Distribution:
    """Return what `likelihood.count_distribution` does, in its quick form unless the `plain` one is asked for."""
    if kind == "nb" and not plain:
        return NegativeBinomial(log_mean, log_inverse_dispersion)
    if kind == "zinb" and not plain:
        return ZeroInflatedNegativeBinomial(log_mean, log_inverse_dispersion, gate_logits)
    if kind == "poisson" and not plain:
        return Poisson(log_mean)
    return likelihood.count_distribution(kind, log_mean, log_inverse_dispersion, gate_logits)


class _LogProb(torch.autograd.Function):
    """Log-probabilities of (zero-inflated) negative-binomial counts; `gate` is None without zero inflation."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Float[Tensor, "..."],
        log_mean: Float[Tensor, "..."],
        log_theta: Float[Tensor, "..."],
        gate: Float[Tensor, "..."] | None,
    ) -> Float[Tensor, "..."]:
        shape = torch.broadcast_shapes(value.shape, log_mean.shape, log_theta.shape)
        theta = log_theta.exp()
        logits = (log_mean - log_theta).expand(shape)
        failing = softplus(logits)  # log(1 + m / θ)
        zero = -theta * failing
        at = value.expand(shape).nonzero(as_tuple=True)
        x, theta_at = value.expand(shape)[at], theta.expand(shape)[at]
        choose = torch.lgamma(x + theta_at) - torch.lgamma(theta_at) - torch.lgamma(x + 1)
        there = zero[at] + choose + x * (logits[at] - failing[at])
        if gate is None:
            out = zero.clone()
        else:
            gate = gate.expand(shape)
            kept = softplus(gate)
            out = torch.logaddexp(gate, zero).sub_(kept)  # a zero was dropped, or it is the component's own
            there -= kept[at]
        out[at] = there
        ctx.save_for_backward(logits, failing, zero, x, theta, theta_at, gate, *at)
        ctx.shapes = log_mean.shape, log_theta.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, failing, zero, x, theta, theta_at, gate, *at = ctx.saved_tensors
        at = tuple(at)
        of_zero, grad_gate = grad, None  # the gradient that reaches log NB(0)
        if gate is not None:
            own = (zero - gate).sigmoid_()  # how likely a zero is the component's own
            own[at] = 1
            of_zero = grad * own
            grad_gate = grad * (1 - own - gate.sigmoid())
        success = logits.sigmoid()
        of_count = grad[at] * x * (1 - success[at])
        scaled = of_zero * theta
        grad_theta = scaled * (success - failing)
        grad_theta[at] += grad[at] * theta_at * (torch.digamma(x + theta_at) - torch.digamma(theta_at)) - of_count
        grad_mean = scaled.mul_(success).neg_()
        grad_mean[at] += of_count
        mean_shape, theta_shape = ctx.shapes
        return None, grad_mean.sum_to_size(mean_shape), grad_theta.sum_to_size(theta_shape), grad_gate

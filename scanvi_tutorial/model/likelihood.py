"""Distributions of counts, computed in log space so that they stay finite at every count and every logit.

Derived in book/04_model.md. Symbols (m is the mean of the negative-binomial component):

    log_mean               (cells, genes)  log m   log library size + log share of the gene
    log_inverse_dispersion (genes,)        log θ   variance of the component is m + m² / θ
    gate_logits            (cells, genes)  π       logit of a count being dropped to zero

Most counts are zero, and the log-probability of a zero is a short formula. We compute it for all entries, and add the
other terms only where the count is above zero, so the slow function lgamma is never computed for a zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid, softplus


class Poisson(TorchDistribution):
    """Counts whose variance equals their mean; the log of the mean is the parameter."""

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012 (torch's own convention)
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Float[Tensor, "*shape"], *, validate_args: bool | None = None) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Return m, in counts."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """Return m, in squared counts."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Return x log m − m − log x!, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        value, log_mean = broadcast_all(value, self.log_mean)
        counted = value > 0
        x = value[counted].to(log_mean.dtype)
        added = x * log_mean[counted] - torch.lgamma(x + 1)
        return torch.zeros_like(log_mean).masked_scatter(counted, added) - log_mean.exp()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (an immutable default)
        """Draw counts from torch's global generator."""
        return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> Distribution:
        """Return the same distribution over a larger batch shape."""
        return type(self)(self.log_mean.expand(batch_shape), validate_args=False)


class NegativeBinomial(TorchDistribution):
    """Overdispersed counts: a Poisson whose rate is gamma-distributed with shape θ and mean m."""

    arg_constraints = {  # noqa: RUF012
        "log_mean": constraints.real,
        "log_inverse_dispersion": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        log_mean: Float[Tensor, "..."],
        log_inverse_dispersion: Float[Tensor, "..."],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.log_mean, self.log_inverse_dispersion = log_mean, log_inverse_dispersion
        shape = torch.broadcast_shapes(log_mean.shape, log_inverse_dispersion.shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Return m, in counts."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """Return m + m² / θ, in squared counts."""
        return self.mean + (2 * self.log_mean - self.log_inverse_dispersion).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        log_zero, added = self.log_prob_parts(value)
        return log_zero + added

    def log_prob_parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return log NB(0) and the difference log NB(x) − log NB(0), which is zero where x is zero.

        With the logit r = log m − log θ,

            log NB(0) = −θ log(1 + e^r)
            log NB(x) = log NB(0) + lgamma(x + θ) − lgamma(θ) − lgamma(x + 1) + x log σ(r).
        """
        theta = self.log_inverse_dispersion.exp()  # one per gene, before broadcasting over cells
        value, logits = broadcast_all(value, self.log_mean - self.log_inverse_dispersion)
        counted = value > 0
        x = value[counted].to(logits.dtype)
        theta_x = theta.expand_as(value)[counted]
        logits_x = logits[counted]
        added = torch.lgamma(x + theta_x) - torch.lgamma(theta_x) - torch.lgamma(x + 1)
        added = added + x * logsigmoid(logits_x)
        return -theta * softplus(logits), torch.zeros_like(logits).masked_scatter(counted, added)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw counts from torch's global generator."""
        theta = self.log_inverse_dispersion.exp().expand(self._extended_shape(sample_shape))
        rate = torch.distributions.Gamma(theta, theta, validate_args=False).sample()  # mean one, variance 1 / θ
        return torch.poisson(rate * self.log_mean.exp())

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> Distribution:
        """Return the same distribution over a larger batch shape."""
        return type(self)(
            self.log_mean.expand(batch_shape), self.log_inverse_dispersion.expand(batch_shape), validate_args=False
        )


class ZeroInflatedNegativeBinomial(TorchDistribution):
    """A negative binomial whose counts are dropped to zero with probability σ(π)."""

    arg_constraints = {  # noqa: RUF012
        "log_mean": constraints.real,
        "log_inverse_dispersion": constraints.real,
        "gate_logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        log_mean: Float[Tensor, "..."],
        log_inverse_dispersion: Float[Tensor, "..."],
        gate_logits: Float[Tensor, "..."],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.gate_logits = gate_logits
        self.component = NegativeBinomial(log_mean, log_inverse_dispersion, validate_args=False)
        shape = torch.broadcast_shapes(self.component.batch_shape, gate_logits.shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def log_mean(self) -> Tensor:
        """Return log m, the mean *before* dropout."""
        return self.component.log_mean

    @property
    def log_inverse_dispersion(self) -> Tensor:
        """Return log θ."""
        return self.component.log_inverse_dispersion

    @property
    def mean(self) -> Tensor:
        """Return (1 − σ(π)) m, in counts."""
        return (logsigmoid(-self.gate_logits) + self.log_mean).exp()

    @property
    def variance(self) -> Tensor:
        """Return (1 − σ(π)) (m + m² / θ + σ(π) m²), in squared counts."""
        kept, dropped = torch.sigmoid(-self.gate_logits), torch.sigmoid(self.gate_logits)
        return kept * (self.component.variance + dropped * self.component.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats.

        A zero has two sources: dropout (zero inflation), or a zero of the negative binomial.
        """
        if self._validate_args:
            self._validate_sample(value)
        log_zero, added = self.component.log_prob_parts(value)
        dropped_or_zero = torch.logaddexp(self.gate_logits, log_zero)
        mixed = torch.where(value > 0, log_zero + added, dropped_or_zero)
        return mixed - softplus(self.gate_logits)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw counts from torch's global generator."""
        counts = self.component.sample(sample_shape)
        kept = torch.bernoulli(torch.sigmoid(-self.gate_logits).expand(counts.shape))
        return counts * kept

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> Distribution:
        """Return the same distribution over a larger batch shape."""
        parts = (self.log_mean, self.log_inverse_dispersion, self.gate_logits)
        return type(self)(*(part.expand(batch_shape) for part in parts), validate_args=False)


def count_distribution(
    kind: str,
    log_mean: Float[Tensor, "..."],
    log_inverse_dispersion: Float[Tensor, " genes"] | None = None,
    gate_logits: Float[Tensor, "..."] | None = None,
) -> Distribution:
    """Return the distribution called `kind` ("zinb", "nb" or "poisson"); parameters that it lacks are ignored."""
    if kind == "poisson":
        return Poisson(log_mean)
    if kind == "nb":
        return NegativeBinomial(log_mean, log_inverse_dispersion)
    if kind == "zinb":
        return ZeroInflatedNegativeBinomial(log_mean, log_inverse_dispersion, gate_logits)
    raise ValueError(f"gene_likelihood must be zinb, nb or poisson, got {kind!r}.")

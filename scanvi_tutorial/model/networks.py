"""The five networks of scANVI: normalized hidden layers, then a linear layer whose output is split into heads.

Built step by step in book/03_networks.md. `*enum` is the extra leading axis of one copy per label that Pyro adds
when it sums over y; it is absent otherwise.

    x   (cells, genes)          raw counts
    y   (*enum cells labels)    one-hot cell type
    z1  (*enum cells latent)    variation within a type
    z2  (*enum cells latent)    cell state
    b   (cells, batches)        one-hot batch, in a model with batches
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softplus

from scanvi_tutorial.config import ModelConfig

_LEAST_SCALE = 1e-4  # a standard deviation of zero would make a density infinite
_FIRST_GATE = -2.0  # initial dropout logit: about one count in eight


def fully_connected(
    dims: Sequence[int],
    *,
    norm: str = "batch",
    dropout_rate: float = 0.0,
) -> nn.Sequential:
    """Return a network of linear layers with widths `dims`.

    Normalization, ReLU and dropout follow every layer except the last. The last layer has no
    normalization, so that its output is not restricted to a standardized range.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(dims[:-1]):
        # a normalization layer subtracts any bias of the layer before it
        layers.append(nn.Linear(width_in, width_out, bias=norm == "none"))
        if norm != "none":
            kind = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
            layers.append(kind(width_out))
        layers.append(nn.ReLU())
        if dropout_rate:
            layers.append(nn.Dropout(dropout_rate))
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


def broadcast_inputs(*inputs: Tensor) -> list[Tensor]:
    """Expand tensors to common leading axes, so that they can be concatenated."""
    lead = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in inputs))
    return [tensor.expand(*lead, tensor.shape[-1]) for tensor in inputs]


def positive(raw: Tensor) -> Tensor:
    """Map any real number to a standard deviation."""
    return softplus(raw) + _LEAST_SCALE


class Heads(nn.Module):
    """Concatenate the inputs, apply `fully_connected` and split the output."""

    def __init__(
        self,
        width_in: int,
        hidden: Sequence[int],
        widths: Sequence[int],
        config: ModelConfig,
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        dims = [width_in, *hidden, sum(widths)]
        self.layers = fully_connected(dims, norm=config.norm, dropout_rate=config.dropout_rate)

    def forward(self, *inputs: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], ...]:
        """Return one tensor for each head, with shape (*enum cells width)."""
        joined = torch.cat(broadcast_inputs(*inputs), dim=-1)
        flat = joined.reshape(-1, joined.shape[-1])  # copies are treated as cells
        out = self.layers(flat).reshape(*joined.shape[:-1], -1)
        return out.split(self.widths, dim=-1)


class Z2Decoder(nn.Module):
    """Parameters of p(z2 | z1, y), the prior of the cell state given its type."""

    def __init__(self, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        latent = config.n_latent
        self.heads = Heads(latent + n_labels, config.label_hidden, [latent, latent], config)

    def forward(
        self,
        z1: Float[Tensor, "*#enum #cells latent"],
        y: Float[Tensor, "*#enum #cells labels"],
    ) -> tuple[Float[Tensor, "*enum cells latent"], Float[Tensor, "*enum cells latent"]]:
        """Return the mean and the standard deviation of z2."""
        loc, scale = self.heads(z1, y)
        return loc, positive(scale)


class XDecoder(nn.Module):
    """Parameters of p(x | z2, l, b): the share of each gene and its dropout logit.

    In a model with batches, this is the only network that takes the batch as an input.
    """

    def __init__(self, genes: int, config: ModelConfig, batches: int = 0) -> None:
        super().__init__()
        self.gated = config.gene_likelihood == "zinb"
        widths = [genes, genes] if self.gated else [genes]
        self.heads = Heads(config.n_latent + batches, config.gene_hidden, widths, config)

    def forward(
        self,
        z2: Float[Tensor, "*enum cells latent"],
        batch: Float[Tensor, "cells batches"] | None = None,
    ) -> tuple[
        Float[Tensor, "*enum cells genes"],
        Float[Tensor, "*enum cells genes"] | None,
    ]:
        """Return log shares, whose exponentials sum to one, and dropout logits.

        Without zero inflation, None is returned in place of the dropout logits.
        """
        v, *gate = self.heads(z2) if batch is None else self.heads(z2, batch)
        return log_softmax(v, dim=-1), gate[0] if gate else None

    @torch.no_grad()
    def start_shares_at(self, log_shares: Float[Tensor, " genes"]) -> None:
        """Initialize shares at those of the average cell, and dropout logits at a low value."""
        bias = self.heads.layers[-1].bias
        bias[: len(log_shares)] = log_shares
        bias[len(log_shares) :] = _FIRST_GATE


class Z2LEncoder(nn.Module):
    """Parameters of q(z2, l | x), the approximate posterior of state and library size.

    Counts are scaled to a common total, so that z2 depends on the shares of the genes and not
    directly on the sequencing depth. The depth affects the posterior width only through the
    granularity of the shares. The library size is the total count times a learned correction.
    """

    def __init__(
        self,
        genes: int,
        config: ModelConfig,
        library_loc: float = math.log(1_000),
    ) -> None:
        super().__init__()
        latent = config.n_latent
        self.log_typical_total = library_loc  # every cell is scaled to this log total count
        self.heads = Heads(genes, config.gene_hidden, [latent, latent, 1, 1], config)

    def forward(
        self, x: Float[Tensor, "cells genes"]
    ) -> tuple[
        Float[Tensor, "cells latent"],
        Float[Tensor, "cells latent"],
        Float[Tensor, "cells 1"],
        Float[Tensor, "cells 1"],
    ]:
        """Return mean and standard deviation of z2, then those of the log library size."""
        log_total = x.sum(-1, keepdim=True).clamp(min=1).log()
        typical = x * (self.log_typical_total - log_total).exp()
        # log1p, since counts span several orders of magnitude
        return self.read(self.first(typical.log1p()), log_total)

    @property
    def first(self) -> nn.Linear:
        """The first layer; the fast engine computes it without the zeros of the counts."""
        return self.heads.layers[0]

    def read(
        self,
        hidden: Float[Tensor, "cells hidden"],
        log_total: Float[Tensor, "cells 1"],
    ) -> tuple[Tensor, ...]:
        """Return the same as `forward`, given the output of the first layer."""
        for layer in self.heads.layers[1:]:
            hidden = layer(hidden)
        z2_loc, z2_scale, l_shift, l_scale = hidden.split(self.heads.widths, dim=-1)
        return z2_loc, positive(z2_scale), log_total + l_shift, positive(l_scale)

    @torch.no_grad()
    def start_library_at_total(self, scale: float) -> None:
        """Initialize q(l | x) at the total count, with log-scale standard deviation `scale`."""
        head, latent = self.heads.layers[-1], self.heads.widths[0]
        head.weight[2 * latent :].zero_()
        head.bias[2 * latent] = 0
        softplus_of_bias = torch.tensor(scale - _LEAST_SCALE, dtype=torch.float64)
        head.bias[2 * latent + 1] = softplus_of_bias.expm1().log()


class Z1Encoder(nn.Module):
    """Parameters of q(z1 | z2, y), the posterior of the variation within a type."""

    def __init__(self, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        latent = config.n_latent
        self.heads = Heads(latent + n_labels, config.label_hidden, [latent, latent], config)

    def forward(
        self,
        z2: Float[Tensor, "*#enum #cells latent"],
        y: Float[Tensor, "*#enum #cells labels"],
    ) -> tuple[Float[Tensor, "*enum cells latent"], Float[Tensor, "*enum cells latent"]]:
        """Return the mean and the standard deviation of z1."""
        loc, scale = self.heads(z2, y)
        return loc, positive(scale)


class Classifier(nn.Module):
    """Logits of q(y | z2), the classifier of cell types given the state."""

    def __init__(self, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        self.heads = Heads(config.n_latent, config.classifier_hidden, [n_labels], config)

    def forward(self, z2: Float[Tensor, "*enum cells latent"]) -> Float[Tensor, "*enum cells labels"]:
        """Return unnormalized log-probabilities of the types."""
        (logits,) = self.heads(z2)
        return logits

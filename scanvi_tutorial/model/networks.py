"""The five networks of scANVI: hidden layers with normalization, then a plain linear layer split into heads.

Built step by step in book/03_networks.md. `*enum` is the extra leading axis of one copy per label that Pyro adds
when it sums over y; it is absent otherwise.

    x   (cells, genes)          raw counts
    y   (*enum cells labels)    one-hot cell type
    z1  (*enum cells latent)    variation within a type
    z2  (*enum cells latent)    cell state
    b   (cells, batches)        one-hot batch, in a model that knows any
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
_FIRST_GATE = -2.0  # logit of dropping a count before anything is learned: about one in eight


def fully_connected(
    dims: Sequence[int],
    *,
    norm: str = "batch",
    dropout_rate: float = 0.0,
) -> nn.Sequential:
    """Return linear layers of widths `dims`, with hidden units in between.

    Normalization, ReLU and dropout follow every layer but the last.

    A last layer without normalization can return any number, for one cell as for many.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(dims[:-1]):
        # a bias before a normalization layer would be subtracted again at once
        layers.append(nn.Linear(width_in, width_out, bias=norm == "none"))
        if norm != "none":
            kind = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
            layers.append(kind(width_out))
        layers.append(nn.ReLU())
        if dropout_rate:
            layers.append(nn.Dropout(dropout_rate))
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


def broadcast_inputs(*inputs: Tensor) -> list[Tensor]:
    """Expand tensors to common leading axes, so that they can be joined along the last."""
    lead = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in inputs))
    return [tensor.expand(*lead, tensor.shape[-1]) for tensor in inputs]


def positive(raw: Tensor) -> Tensor:
    """Map any real number to a standard deviation."""
    return softplus(raw) + _LEAST_SCALE


class Heads(nn.Module):
    """Join the inputs, pass them through `fully_connected`, split the result."""

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
        """Return one tensor a head, each (*enum cells width)."""
        joined = torch.cat(broadcast_inputs(*inputs), dim=-1)
        flat = joined.reshape(-1, joined.shape[-1])  # copies of a cell count as cells
        out = self.layers(flat).reshape(*joined.shape[:-1], -1)
        return out.split(self.widths, dim=-1)


class Z2Decoder(nn.Module):
    """p(z2 | z1, y): where in state space a cell of this type lies."""

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
    """p(x | z2, l, b): the share of every gene, and how likely its count is dropped.

    Where the model knows `batches`, the batch of the cell enters here and no other network.
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

        Without zero inflation there are no dropout logits, and None in their place.
        """
        v, *gate = self.heads(z2) if batch is None else self.heads(z2, batch)
        return log_softmax(v, dim=-1), gate[0] if gate else None

    @torch.no_grad()
    def start_shares_at(self, log_shares: Float[Tensor, " genes"]) -> None:
        """Start with the shares of the average cell, and few counts dropped."""
        bias = self.heads.layers[-1].bias
        bias[: len(log_shares)] = log_shares
        bias[len(log_shares) :] = _FIRST_GATE


class Z2LEncoder(nn.Module):
    """q(z2, l | x): what the counts say about state and library size.

    State is read off the shares of the genes, so that depth alone does not move it. How
    wide the posterior should be, the layers only guess from how coarse the shares are.
    The library size is the total counted, times a correction.
    """

    def __init__(
        self,
        genes: int,
        config: ModelConfig,
        library_loc: float = math.log(1_000),
    ) -> None:
        super().__init__()
        latent = config.n_latent
        self.log_typical_total = library_loc  # which every cell is scaled to
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
        # log1p, since counts span decades
        return self.read(self.first(typical.log1p()), log_total)

    @property
    def first(self) -> nn.Linear:
        """The only layer that sees genes; the fast engine leaves out the zeros there."""
        return self.heads.layers[0]

    def read(
        self,
        hidden: Float[Tensor, "cells hidden"],
        log_total: Float[Tensor, "cells 1"],
    ) -> tuple[Tensor, ...]:
        """Return what `forward` does, from the output of the first layer."""
        for layer in self.heads.layers[1:]:
            hidden = layer(hidden)
        z2_loc, z2_scale, l_shift, l_scale = hidden.split(self.heads.widths, dim=-1)
        return z2_loc, positive(z2_scale), log_total + l_shift, positive(l_scale)

    @torch.no_grad()
    def start_library_at_total(self, scale: float) -> None:
        """Start with the total that was counted, give or take `scale` on the log scale."""
        head, latent = self.heads.layers[-1], self.heads.widths[0]
        head.weight[2 * latent :].zero_()
        head.bias[2 * latent] = 0
        softplus_of_bias = torch.tensor(scale - _LEAST_SCALE, dtype=torch.float64)
        head.bias[2 * latent + 1] = softplus_of_bias.expm1().log()


class Z1Encoder(nn.Module):
    """q(z1 | z2, y): what is left of the state once the type is known."""

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
    """q(y | z2): which type a state belongs to."""

    def __init__(self, n_labels: int, config: ModelConfig) -> None:
        super().__init__()
        self.heads = Heads(config.n_latent, config.classifier_hidden, [n_labels], config)

    def forward(self, z2: Float[Tensor, "*enum cells latent"]) -> Float[Tensor, "*enum cells labels"]:
        """Return unnormalized log-probabilities of the types."""
        (logits,) = self.heads(z2)
        return logits

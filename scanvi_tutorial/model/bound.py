"""The terms of the evidence lower bound, computed with Pyro, and the estimator that sums over y.

Derived in book/04_model.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine import Trace
from torch import Tensor

from scanvi_tutorial.model.scanvi import SCANVI

BOUND_TERMS = ("log_likelihood", "kl_l", "kl_z", "kl_y")


@contextmanager
def evaluating(model: SCANVI, seed: int = 0) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients, with noise from `seed`; then restore the former state."""
    was_training = model.training
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)


def traces(
    model: SCANVI,
    x: Float[Tensor, "cells genes"],
    y: Float[Tensor, "cells labels"] | None = None,
    batch: Float[Tensor, "cells batches"] | None = None,
) -> tuple[Trace, Trace]:
    """Return the traces of the guide, with y enumerated, and of the model on its draws, with log-probabilities."""
    guide = poutine.trace(poutine.enum(model.guide, first_available_dim=-2)).get_trace(x, y)
    model_trace = poutine.trace(poutine.replay(model.model, trace=guide)).get_trace(x, y, batch=batch)
    guide.compute_log_prob()
    model_trace.compute_log_prob()
    return guide, model_trace


def bound_terms(
    model: SCANVI,
    x: Float[Tensor, "cells genes"],
    y: Float[Tensor, "cells labels"] | None = None,
    batch: Float[Tensor, "cells batches"] | None = None,
) -> dict[str, Float[Tensor, " cells"]]:
    """Return the terms of the bound of every cell, in nats, from one draw of z1, z2 and l (chapter 4).

    The bound is `log_likelihood − kl_l − kl_z − kl_y`: U(x) without `y`, L(x, y) with it. Where labels are coarse or
    may be wrong, `kl_y` also contains −log p(label | y). The classifier's label term is not part of the bound. A model
    with batches needs `batch`, the one-hot batch of each cell.
    """
    guide, model_trace = traces(model, x, y, batch)
    free = "y" in guide.nodes
    q_y = guide.nodes["y"]["log_prob"].exp() if free else x.new_ones(1, len(x))  # (labels cells)

    def mean_over_y(log_prob: Tensor) -> Tensor:
        return (q_y * log_prob).sum(0)

    def log_p(site: str) -> Tensor:
        return mean_over_y(model_trace.nodes[site]["log_prob"])

    def log_q(site: str) -> Tensor:
        return mean_over_y(guide.nodes[site]["log_prob"]) if site in guide.nodes else x.new_zeros(len(x))

    of_label = log_p("r") if "r" in model_trace.nodes else 0.0
    return {
        "log_likelihood": log_p("x"),
        "kl_l": log_q("l") - log_p("l") if "l" in guide.nodes else x.new_zeros(len(x)),
        "kl_z": log_q("z2") - log_p("z2") + log_q("z1") - log_p("z1"),
        "kl_y": log_q("y") - log_p("y") - of_label,
    }


def bound_of(terms: Mapping[str, Any]) -> Any:
    """Return the bound, in nats, from its terms: tensors or arrays (cells,), or numbers."""
    return terms["log_likelihood"] - terms["kl_l"] - terms["kl_z"] - terms["kl_y"]


def estimator() -> TraceEnum_ELBO:
    """Return Pyro's estimator of the bound, which sums over y wherever y is not given."""
    # no site of a labeled minibatch is enumerated; Pyro would warn about that
    return TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)

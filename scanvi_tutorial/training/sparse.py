"""Counts of a minibatch without their zeros, and the one product that the encoder needs of them.

Used by the fast engine (fast.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scanvi_tutorial.inputs.arrays import SparseCounts

__all__ = ["sparse_linear", "to_column_major"]


def to_column_major(linear: torch.nn.Linear) -> None:
    """Lay the weights (outputs, genes) of a layer out gene by gene, so that a gene that is seen is one short read.

    Shape and values stay; a sparse product then runs over memory in order.
    """
    linear.weight.data = linear.weight.data.t().contiguous().t()


def sparse_linear(counts: SparseCounts, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b, (cells, outputs), for x with `values` (entries,) at the entries of `counts` and zeros elsewhere.

    `weight` is (outputs, genes). The gradient reaches weight and bias, not the values.
    """
    out = _Product.apply(values, weight, counts)
    return out if bias is None else out + bias


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, counts: SparseCounts) -> Tensor:
        ctx.save_for_backward(values)
        ctx.counts = counts
        # a bag of rows of Wᵀ, weighed and summed
        return torch.nn.functional.embedding_bag(
            counts.columns, weight.t(), counts.starts[:-1], mode="sum", per_sample_weights=values
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (values,), counts = ctx.saved_tensors, ctx.counts
        order = counts.order
        out = torch.nn.functional.embedding_bag(
            counts.rows[order], grad, counts.gene_starts, mode="sum", per_sample_weights=values[order]
        )
        return None, out.t(), None

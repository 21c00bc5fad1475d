"""Counts of a minibatch without their zeros, and the one product that the encoder needs of them.

Used by the fast engine (fast.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["SparseCounts", "genes_in_rows", "sparse_linear"]


@dataclass(frozen=True)
class SparseCounts:
    """Rows of a CSR matrix: entry k is `values[k]` in column `columns[k]` of row `rows[k]`."""

    values: Tensor  # (entries,), the counts, in the floating-point type of the model
    rows: Tensor  # (entries,) int64
    columns: Tensor  # (entries,) int64
    starts: Tensor  # (cells + 1,) int64: the entries of row i are starts[i] to starts[i + 1]
    genes: int
    order: Tensor  # (entries,) int64: the entries gene by gene, …
    gene_starts: Tensor  # (genes,) int64: … those of gene j from position gene_starts[j] on

    @classmethod
    def from_csr(cls, counts: csr_matrix) -> SparseCounts:
        """Take over a CSR matrix without explicit zeros."""
        entries = np.arange(counts.nnz, dtype=np.int64)
        by_gene = csr_matrix((entries, counts.indices, counts.indptr), counts.shape).tocsc()
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        rows, columns, starts, order, gene_starts = (
            torch.from_numpy(part.astype(np.int64, copy=False))
            for part in (rows, counts.indices, counts.indptr, by_gene.data, by_gene.indptr[:-1])
        )
        return cls(torch.from_numpy(counts.data), rows, columns, starts, counts.shape[1], order, gene_starts)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> SparseCounts:
        """Return the same counts on `device`, in the floating-point type `dtype`."""
        where = (part.to(device) for part in (self.rows, self.columns, self.starts))
        order, gene_starts = self.order.to(device), self.gene_starts.to(device)
        return type(self)(self.values.to(device, dtype), *where, self.genes, order, gene_starts)

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.starts) - 1

    @cached_property
    def totals(self) -> Tensor:
        """Total count of each cell, (cells, 1)."""
        return self.values.new_zeros(len(self)).index_add_(0, self.rows, self.values)[:, None]

    def dense(self) -> Tensor:
        """Return the counts as (cells, genes)."""
        out = self.values.new_zeros(len(self), self.genes)
        out[self.rows, self.columns] = self.values
        return out


def genes_in_rows(linear: torch.nn.Linear) -> None:
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

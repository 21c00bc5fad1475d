"""Compute log p(x | z2, l) and its gradients from the decoder's hidden units in one pass.

Used by the fast engine (fast.py). For a cell with logits a of the shares, m = l · softmax(a) and

    log NB(0) = −θ log(1 + m / θ)
    log NB(x) = log NB(0) + lgamma(x + θ) − lgamma(θ) − lgamma(x + 1) + x (log m − log(θ + m))

the first line is computed for all genes, the second only where x > 0. Derivatives in log m are turned into derivatives
in the logits by ∂/∂a = u − softmax(a) · Σ u, with u = ∂/∂ log m. Rows are processed in blocks that fit into the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from scanvi_tutorial.inputs.arrays import SparseCounts

_ENTRIES_AT_ONCE = 1 << 18  # entries of a buffer: one megabyte in float32


@dataclass
class Workspace:
    """Buffers that are reused at every step, because allocating them again takes longer than filling them."""

    buffers: dict[Any, Tensor] = field(default_factory=dict)

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialized tensor; asking again by the same name returns the same memory."""
        size = torch.Size(shape).numel()
        key = name, like.dtype, like.device
        if key not in self.buffers or self.buffers[key].numel() < size:
            self.buffers[key] = like.new_empty(size)
        return self.buffers[key][:size].view(shape)


def count_log_likelihood(
    kind: str,
    counts: SparseCounts,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    log_library: Tensor,
    log_theta: Tensor | None,
    *,
    workspace: Workspace | None = None,
    name: str = "",
) -> tuple[Tensor, Tensor]:
    """Return the mean over cells of log p(x | z2, l), in nats, with gradients, and log p of each cell without.

    Args:
        kind: "zinb", "nb" or "poisson".
        counts: The counts of n cells.
        hidden: Input of the decoder's last layer, (n, hidden).
        weight: Its weights, (genes, hidden), or (2 · genes, hidden) with the dropout logits in the second half.
        bias: Its bias.
        log_library: log l, (n, 1).
        log_theta: log θ, (genes,); None for the Poisson.
        workspace: Buffers to reuse; only the gradient of the last call with each `name` can then be computed.
        name: Distinguishes calls whose gradients are both needed.
    """
    theta = hidden.new_zeros(0) if log_theta is None else log_theta
    needs = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    mean, log_prob = _LogLikelihood.apply(
        hidden, weight, bias, log_library, theta, counts, kind, needs, workspace or Workspace(), name
    )
    return mean, log_prob


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        log_library: Tensor,
        log_theta: Tensor,
        counts: SparseCounts,
        kind: str,
        needs_grad: bool,
        workspace: Workspace,
        name: str,
    ) -> tuple[Tensor, Tensor]:
        cells, genes = len(counts), counts.genes
        raw = torch.addmm(bias, hidden, weight.t(), out=workspace.take("raw" + name, (cells, len(weight)), hidden))
        log_prob, grad_library = hidden.new_empty(cells), hidden.new_empty(cells, 1)
        count_term = _CountTerm(kind, log_theta, genes, needs_grad, workspace)
        at_once = max(1, _ENTRIES_AT_ONCE // genes)
        starts = counts.starts.tolist()
        for first in range(0, cells, at_once):
            last = min(first + at_once, cells)
            entries = slice(starts[first], starts[last])
            places = counts.rows[entries] - first, counts.columns[entries]
            rows = slice(first, last)
            log_prob[rows], grad_library[rows] = count_term(
                raw[rows], log_library[rows], *places, counts.values[entries]
            )
        if needs_grad:  # raw has been overwritten by its gradient
            ctx.save_for_backward(hidden, weight)
            ctx.grads = raw, grad_library, count_term.grad_theta
            ctx.cells = cells
        ctx.mark_non_differentiable(log_prob)
        return log_prob.mean(), log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        raw, grad_library, grad_theta = ctx.grads
        scale = grad / ctx.cells
        scaled = hidden * scale  # scale the smaller factor
        return (
            (raw @ weight).mul_(scale),
            raw.t() @ scaled,
            raw.sum(0).mul_(scale),
            grad_library * scale,
            grad_theta * scale,
            *[None] * 5,
        )


class _CountTerm:
    """The log-probabilities of some rows; overwrites the logits with the gradient of their sum."""

    def __init__(self, kind: str, log_theta: Tensor, genes: int, needs_grad: bool, workspace: Workspace) -> None:
        self.kind = kind
        self.genes = genes
        self.needs_grad = needs_grad
        self.workspace = workspace
        self.log_theta, self.grad_theta = log_theta, torch.zeros_like(log_theta)
        if kind != "poisson":
            self.theta = log_theta.exp()
            self.lgamma_theta, self.digamma_theta = torch.lgamma(self.theta), torch.digamma(self.theta)

    def __call__(
        self, raw: Tensor, log_library: Tensor, rows: Tensor, genes: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log p of each row and its derivative in log l; `rows` and `genes` locate the counts `x`."""
        logits, raw_places = raw[:, : self.genes], rows * raw.shape[1] + genes

        def take(name: str) -> Tensor:
            return self.workspace.take(name, logits.shape, raw)

        largest = logits.amax(1, keepdim=True)
        share = torch.sub(logits, largest, out=take("share")).exp_()
        total = share.sum(1, keepdim=True)
        share /= total
        shift = log_library - largest - total.log()
        log_mean = _entries(raw, raw_places) + shift[:, 0].index_select(0, rows)
        mean = torch.mul(share, log_library.exp(), out=take("mean"))
        if self.kind == "poisson":
            log_prob = -mean.sum(1)
            log_prob.index_add_(0, rows, x * log_mean - torch.lgamma(x + 1))
            slope = mean.neg_()
            slope.view(-1).index_add_(0, rows * self.genes + genes, x)
            return log_prob, softmax_backward(slope, share, out=logits) if self.needs_grad else log_prob[:, None]

        places = rows * self.genes + genes
        theta, log_theta = (values.index_select(0, genes) for values in (self.theta, self.log_theta))
        odds = torch.div(mean, self.theta, out=take("odds"))  # m / θ
        success = torch.add(odds, 1, out=take("success")).reciprocal_()  # θ / (θ + m)
        failing = odds.log1p_()
        added = torch.lgamma(x + theta) - self.lgamma_theta.index_select(0, genes) - torch.lgamma(x + 1)
        added += x * (log_mean - log_theta - _entries(failing, places))
        log_zero = failing.mul_(self.theta).neg_()  # log NB(0)
        p_not_dropped = None
        if self.kind == "zinb":
            added, log_prob_of_zeros, p_kept, p_not_dropped = self._inflated(
                raw[:, self.genes :], _entries(raw, raw_places + self.genes), log_zero, added, places
            )
            log_prob = log_prob_of_zeros.sum(1)
        else:
            log_prob = log_zero.sum(1)
        log_prob.index_add_(0, rows, added)
        if not self.needs_grad:
            return log_prob, log_prob[:, None]

        slope = mean.mul_(success).neg_()  # ∂ log NB(0) / ∂ log m
        of_count = x * _entries(success, places)
        slope_of_counts = _entries(slope, places) + of_count
        theta_slope = log_zero.sub_(slope)
        theta_slope_of_counts = torch.digamma(x + theta).sub_(self.digamma_theta.index_select(0, genes)).mul_(theta)
        theta_slope_of_counts += _entries(theta_slope, places) - of_count
        if p_not_dropped is not None:
            slope.mul_(p_not_dropped)
            theta_slope.mul_(p_not_dropped)
            torch.sub(p_kept, p_not_dropped, out=raw[:, self.genes :])  # (1 − p_not_dropped) − σ(π)
            raw.view(-1).index_copy_(0, raw_places + self.genes, _entries(p_kept, places) - 1)
        slope.view(-1).index_copy_(0, places, slope_of_counts)
        theta_slope.view(-1).index_copy_(0, places, theta_slope_of_counts)
        self.grad_theta += theta_slope.sum(0)
        return log_prob, softmax_backward(slope, share, out=logits)

    def _inflated(
        self, gate: Tensor, gate_of_counts: Tensor, log_zero: Tensor, added: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what a count adds to its zero, log p of a zero everywhere, 1 − σ(π), and P(a zero is no dropout)."""

        def take(name: str) -> Tensor:
            return self.workspace.take(name, log_zero.shape, log_zero)

        p_zero = torch.sigmoid(gate, out=take("p_zero"))  # σ(π), later σ(π) + (1 − σ(π)) NB(0)
        p_kept = torch.neg(p_zero, out=take("p_kept")).add_(1)
        p_not_dropped = torch.exp(log_zero, out=take("p_not_dropped")).mul_(p_kept)
        p_zero.add_(p_not_dropped).clamp_(min=torch.finfo(gate.dtype).tiny)
        p_not_dropped.div_(p_zero)
        log_p_zero = p_zero.log_()
        added = added + logsigmoid(-gate_of_counts) + _entries(log_zero, places) - _entries(log_p_zero, places)
        return added, log_p_zero, p_kept, p_not_dropped


def softmax_backward(
    slope: Tensor,
    share: Tensor,
    *,
    out: Tensor,
) -> Tensor:
    """Write the gradient in the logits of the shares, (cells, genes), to `out`.

    `slope` is the gradient in log m; `share` holds the shares and is overwritten. Returns
    the gradient in log l, (cells, 1).
    """
    total = slope.sum(1, keepdim=True)
    torch.sub(slope, share.mul_(total), out=out)
    return total


def _entries(table: Tensor, places: Tensor) -> Tensor:
    """Return entries of a contiguous table by their flat index, which is faster than by row and column."""
    return table.view(-1).index_select(0, places)


def to_column_major(linear: torch.nn.Linear) -> None:
    """Store the weights (outputs, genes) of a layer gene by gene, for contiguous access in a sparse product.

    Shape and values are unchanged.
    """
    linear.weight.data = linear.weight.data.t().contiguous().t()


def sparse_linear(counts: SparseCounts, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b, (cells, outputs), for x with `values` (entries,) at the entries of `counts` and zeros elsewhere.

    `weight` is (outputs, genes). The gradient reaches weight and bias, not the values.
    """
    out = _SparseProduct.apply(values, weight, counts)
    return out if bias is None else out + bias


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, counts: SparseCounts) -> Tensor:
        ctx.save_for_backward(values)
        ctx.counts = counts
        # a weighted sum of rows of Wᵀ
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

"""Cells as arrays, read off an AnnData once: counts (cells, genes), codes of labels and of batches.

Explained in book/05_training.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from scanvi_tutorial.inputs.batches import Batches
from scanvi_tutorial.inputs.cells import Columns
from scanvi_tutorial.inputs.coarse import allowed_types
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.inputs.genes import check_genes
from scanvi_tutorial.inputs.labels import check_labels


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Counts, label codes and batches of many cells, checked once.

    `counts` is CSR (cells, genes); `codes` is (cells,) with -1 for a cell without a label, and a coarse label has a
    code behind those of the types; `allowed` says which types each code allows; `batch_codes` is (cells,).
    """

    counts: csr_matrix
    codes: np.ndarray
    label_names: tuple[str, ...]
    allowed: np.ndarray | None = None  # (labels, types) of bool
    batches: Batches | None = None
    batch_codes: np.ndarray | None = None

    @classmethod
    def from_anndata(
        cls,
        adata: AnnData,
        *,
        genes: Sequence[str],
        columns: Columns,
        label_names: Sequence[str] | None = None,
        batches: Batches | None = None,
    ) -> Cells:
        """Check `adata` and read counts of `genes`, codes of `label_names` and of `batches` off it.

        Without `label_names` no label is looked at, and without `batches` no batch. Raises `InputError` where counts,
        genes, labels or batches cannot be used.
        """
        adata = check_genes(adata, genes)
        batch_codes = None if batches is None else batches.codes(adata)
        counts = check_counts(adata, columns.layer)
        if label_names is None:
            return cls(counts, np.full(adata.n_obs, -1), (), None, batches, batch_codes)
        labels_key = columns.labels_key
        names, codes = check_labels(adata, labels_key, unlabeled_category=columns.unlabeled_category, least=1)
        known = [*label_names, *columns.coarse]
        if new := [name for name in names if name not in known]:
            first = adata.obs_names[np.flatnonzero(codes == names.index(new[0]))[0]]
            raise InputError(
                f"adata.obs[{labels_key!r}] holds {listed(new)} (cell {first!r}), which the model does not know; it "
                f"was made for {listed(known)}. Make a new model with SCANVI.from_anndata, or leave those cells out."
            )
        ours = np.array([*map(known.index, names), -1])  # the last entry keeps -1 where it is
        allowed = allowed_types(known, ours[codes], columns.coarse)[2]
        return cls(counts, ours[codes], tuple(label_names), allowed, batches, batch_codes)

    def without_labels(self) -> Cells:
        """Return the same cells, none of which has a label."""
        return replace(self, codes=np.full_like(self.codes, -1))

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.codes)

    def x(self, rows: np.ndarray) -> Float[Tensor, "cells genes"]:
        """Return the counts of `rows`, dense."""
        return dense(self.counts, rows)

    def y(self, rows: np.ndarray) -> Float[Tensor, "cells labels"]:
        """Return the types that the labels of `rows` allow, one-hot where exact; all of them must be labeled."""
        return torch.from_numpy(self.allowed[self.codes[rows]]).float()

    def batch(self, rows: np.ndarray) -> Float[Tensor, "cells batches"] | None:
        """Return the batches of `rows`, one-hot; None where the model knows none."""
        return None if self.batches is None or not len(rows) else self.batches.one_hot(self.batch_codes[rows])


def dense(counts: csr_matrix, rows: np.ndarray) -> Float[Tensor, "cells genes"]:
    """Return some rows of a CSR matrix as a dense tensor."""
    return torch.from_numpy(counts[rows].toarray())


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut `rows` into pieces of `size` to twice that (one piece where they are fewer), so that none holds one cell.

    Normalization over a minibatch of one cell is undefined, and n = 1 modulo the size is bound to happen to somebody.
    """
    return np.array_split(rows, max(1, len(rows) // size))


@dataclass(frozen=True, eq=False)
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

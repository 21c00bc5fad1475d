"""Counts from a file larger than memory: read in blocks of cells, only the chosen genes are kept.

The first pass finds in how many cells each gene is detected, the second fills arrays whose size is known by then, so
that nothing is held twice. The arrays are in memory, or in files that the operating system reads as they are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.data.selection import best_genes
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.files import refuse_missing

_CELLS_AT_ONCE = 2_000


def read_selected(
    path: str | Path, n: int = 2_000, *, layer: str | None = None, folder: str | Path | None = None
) -> AnnData:
    """Return the cells of a file with `n` of its genes; the file itself may be larger than memory.

    The same as `select_genes(read_h5ad(path), n, layer=layer)`, with the counts in `X`, `obs`, `var` and `uns`.

    Args:
        path: An `.h5ad` file or a `.zarr` folder, its counts dense or CSR.
        n: Genes to keep: those detected in most cells, and the markers of `uns["markers"]`.
        layer: Where the counts are, if not in `X`.
        folder: A folder on a disk with room for 8 bytes a count above zero: the kept counts are written there, into
            files without a name, and read while they are in use, so that they too may be larger than memory. The room
            is free again when the cells are gone. A copy of the cells or a part of them is in memory, as all of them
            are where `folder` is None.

    Raises:
        InputError: Where the file cannot be read, is stored gene by gene, or holds no usable counts, where `n` is below
            one, or `folder` has not enough room.
    """
    if n < 1:
        raise InputError(f"At least one gene must be kept; got n={n}.")
    path = Path(path)
    with _opened(path) as store:
        obs, var = read_elem(store["obs"]), read_elem(store["var"])
        uns = read_elem(store["uns"]) if "uns" in store else {}
        counts = _on_disk(store, layer, path)
        detected = np.zeros(len(var), dtype=np.int64)
        for block, _ in _blocks(counts, obs, var, "checking counts"):
            detected += block.getnnz(axis=0)
        kept = best_genes(detected.astype(np.float64), var.index, uns.get("markers"), n)
        entries = int(detected[kept].sum())
        place = np.int32 if entries <= np.iinfo(np.int32).max else np.int64  # another than SciPy wants would be copied
        data, indices = _array(entries, np.float32, folder), _array(entries, place, folder)
        starts = np.zeros(len(obs) + 1, dtype=np.int64)
        for block, rows in _blocks(counts, obs, var, "reading counts"):
            part = block[:, kept]
            first = starts[rows.start]
            starts[rows.start + 1 : rows.stop + 1] = first + part.indptr[1:]
            data[first : first + part.nnz], indices[first : first + part.nnz] = part.data, part.indices
    matrix = sparse.csr_matrix((data, indices, starts), (len(obs), len(kept)))
    return AnnData(matrix, obs=obs, var=var.iloc[kept], uns=uns)


def _array(length: int, dtype: type, folder: str | Path | None) -> np.ndarray:
    """Return room for numbers: in memory, or in a file of `folder` that has no name and goes when the array goes."""
    if folder is None or not length:  # an empty file cannot be mapped
        return np.empty(length, dtype)
    size = length * np.dtype(dtype).itemsize
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:  # the mapping keeps it open
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would kill the process, later
            return np.memmap(file, dtype, "w+", shape=(length,))
    except OSError as error:
        raise InputError(
            f"{folder} cannot take {size / 1e9:.3g} GB of counts ({error}). Name a folder on a disk with more room."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a store for reading, and refuse one that is missing, of another kind or damaged."""
    refuse_missing(path)
    of_zarr = path.suffix == ".zarr"
    if not of_zarr and not h5py.is_hdf5(path):
        raise InputError(f"{path} is neither .h5ad (HDF5) nor .zarr. Save the cells with adata.write_h5ad(...).")
    try:
        with nullcontext(zarr.open_group(path, mode="r")) if of_zarr else h5py.File(path) as store:
            yield store
    except InputError:
        raise
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} could not be read ({error}): it is damaged or not written by AnnData. Write or fetch it again."
        ) from error


def _on_disk(store: Any, layer: str | None, path: Path) -> Any:
    """Return what gives rows of the counts when it is sliced."""
    place = "X" if layer is None else f"layers/{layer}"
    if place not in store:
        raise InputError(f"There are no counts in {place} of {path}. Name the layer that holds them.")
    counts = store[place]
    if isinstance(counts, h5py.Group | zarr.Group):
        counts = sparse_dataset(counts)
        if counts.format != "csr":
            raise InputError(
                f"{place} of {path} is stored gene by gene (CSC), and cells cannot be read from it in blocks. Convert "
                "it once: adata.X = adata.X.tocsr(); adata.write_h5ad(...)."
            )
    return counts


def _blocks(counts: Any, obs: pd.DataFrame, var: pd.DataFrame, what: str) -> Iterator[tuple[sparse.csr_matrix, slice]]:
    """Yield checked counts of some cells as CSR float32, and which cells they are."""
    for first in progress_bar(range(0, len(obs), _CELLS_AT_ONCE), what, unit="block"):
        rows = slice(first, min(first + _CELLS_AT_ONCE, len(obs)))
        cells = AnnData(sparse.csr_matrix(counts[rows]), obs=obs.iloc[rows, :0], var=var.iloc[:, :0])
        yield check_counts(cells), rows

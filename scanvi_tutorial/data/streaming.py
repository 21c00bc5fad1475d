"""Counts from a file larger than memory: read in blocks of cells or genes, only the chosen genes are kept.

The first pass checks the counts and finds in how many cells each gene is detected, the next fill arrays whose size is
known by then, so that nothing is held twice. The arrays are in memory, or in files that the operating system reads as
they are used.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import anndata
import h5py
import numpy as np
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.data.selection import best_genes
from scanvi_tutorial.inputs.counts import check_counts, csr_float32, first_fault, in_memory
from scanvi_tutorial.inputs.errors import InputError, InputWarning, listed, refuse_repeated, whole_number
from scanvi_tutorial.inputs.files import existing, home_path, opened, refuse_other_formats
from scanvi_tutorial.inputs.genes import gene_features, only_genes
from scanvi_tutorial.inputs.markers import check_markers

_CELLS_AT_ONCE = 2_000
_NUMBERS_AT_ONCE = 5_000_000  # of a store that is read gene by gene


def read_selected(
    path: str | Path, n: int = 2_000, *, layer: str | None = None, folder: str | Path | None = None
) -> AnnData:
    """Return the cells of a file with `n` of its genes; the file itself may be larger than memory.

    The same as `select_genes(read_h5ad(path), n, layer=layer)`, with the counts in `X`, `obs`, `var` and `uns`.

    Args:
        path: An `.h5ad` file or a `.zarr` folder, its counts dense, CSR or CSC; CSC takes longest.
        n: Genes to keep: those detected in most cells, and the markers of `uns["markers"]`.
        layer: Where the counts are, if not in `X`.
        folder: A folder on a disk with room for 8 bytes a count above zero: the kept counts are written there, into
            files without a name, and read while they are in use, so that they too may be larger than memory. The room
            is free again when the cells are gone. A copy of the cells or a part of them is in memory, as all of them
            are where `folder` is None.

    Raises:
        InputError: Where the file cannot be read or holds no usable counts, where `n` is below one, or `folder` has not
            enough room.
    """
    n = whole_number(n, "n", 1)
    path = existing(path)
    if path.suffix.lower() != ".zarr":
        refuse_other_formats(path)
    with opened(path) as store:
        tables = _tables_of(store)
        _, left_out = only_genes(tables)
        genes = np.flatnonzero(gene_features(tables.var))
        counts = _on_disk(store, layer, path)
        check_markers(tables.uns.get("markers"))  # before the file is read
        refuse_repeated(AnnData(var=tables.var.iloc[genes, :0]), "var")
        detected = _detected(store, tables, genes, counts, layer)
        kept = genes[best_genes(detected.astype(np.float64), tables.var_names[genes], tables.uns.get("markers"), n)]
        matrix = _filled(counts, kept, int(detected[np.isin(genes, kept)].sum()), folder)
    for text in left_out:  # where warnings are heard again
        warnings.warn(text, InputWarning, stacklevel=2)
    return AnnData(matrix, obs=tables.obs, var=tables.var.iloc[kept], uns=tables.uns)


def _on_disk(store: Any, layer: str | None, path: Path) -> Any:
    """Return the counts, still on disk."""
    place = "X" if layer is None else f"layers/{layer}"
    if (counts := _matrix_of(store, place)) is not None:
        return counts
    layers = list(store["layers"]) if "layers" in store else []
    remedy = f"pass one that holds raw counts, layer={layers[0]!r}" if layers else "put raw counts into adata.X"
    raise InputError(f"There are no counts in {place} of {path}. The layers are {listed(layers)}: {remedy}.")


def _parts(counts: Any, genes: np.ndarray, what: str) -> Iterator[tuple[Any, slice, slice]]:
    """Yield counts of some cells and some of `genes`, and which cells and which of `genes` they are."""
    cells = counts.shape[0]
    if _by_gene(counts):
        for some in progress_bar(_slices(len(genes), max(1, _NUMBERS_AT_ONCE // max(cells, 1))), what, unit="block"):
            yield _part_of(counts, (slice(None), genes[some])), slice(0, cells), some
    else:
        for rows in progress_bar(_slices(cells, _CELLS_AT_ONCE), what, unit="block"):
            part = _part_of(counts, rows)
            yield part if len(genes) == part.shape[1] else part[:, genes], rows, slice(0, len(genes))


def _slices(length: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, length)) for first in range(0, length, most)]


def _by_gene(matrix: Any) -> bool:
    return getattr(matrix, "format", "") == "csc"


def _detected(store: Any, tables: AnnData, genes: np.ndarray, counts: Any, layer: str | None) -> np.ndarray:
    """Check the counts, and return in how many cells each of the genes is detected."""
    detected, filled = np.zeros(len(genes), dtype=np.int64), np.zeros(tables.n_obs, dtype=bool)
    wrong = tables.n_obs  # the first cell with what is no count
    for part, rows, which in _parts(counts, genes, "checking counts"):
        part = in_memory(part)
        of_numbers = part.dtype.kind in "biuf"
        if not of_numbers or (fault := first_fault(part)):
            wrong = min(wrong, rows.start + fault[0] if of_numbers else 0)
            if _by_gene(counts):  # an earlier cell may be wrong in a later gene
                continue
            break
        found = csr_float32(part)
        detected[which] += found.getnnz(axis=0)
        filled[rows] |= found.getnnz(axis=1) > 0
    names = AnnData(obs=tables.obs.iloc[:, :0], var=tables.var.iloc[genes, :0])
    if wrong < tables.n_obs:
        check_counts(_whole(store, names, genes, slice(wrong, wrong + _CELLS_AT_ONCE)), layer)
    ends = np.r_[0, np.cumsum(filled)]  # one count in each cell that has any: enough to name those that have none
    names.X = sparse.csr_matrix((np.ones(ends[-1]), np.zeros(ends[-1], dtype=np.int32), ends), names.shape)
    if layer is not None:
        names.layers[layer] = names.X
    check_counts(names, layer)
    return detected


def _whole(store: Any, names: AnnData, genes: np.ndarray, rows: slice) -> AnnData:
    """Return some cells with their layers and `raw`, so that an error can say where else counts are."""
    cells = names[rows].copy()
    cells.X = _rows(store, "X", rows, genes)
    for layer in store.get("layers") or ():
        cells.layers[layer] = _rows(store, f"layers/{layer}", rows, genes)
    for place in ("raw/X", "raw.X"):  # the latter before anndata 0.7
        if (raw := _rows(store, place, rows)) is not None:
            cells.raw = AnnData(raw, obs=cells.obs)
    return cells


def _rows(store: Any, place: str, rows: slice, genes: np.ndarray | None = None) -> Any:
    """Return some cells of a matrix, or None where there is none."""
    if (matrix := _matrix_of(store, place)) is None:
        return None
    if not _by_gene(matrix):
        part = _part_of(matrix, rows)
    else:
        parts = _parts(matrix, np.arange(matrix.shape[1]), "looking for counts")
        part = sparse.hstack([sparse.csr_matrix(part)[rows] for part, _, _ in parts], format="csr")
    return part if genes is None else part[:, genes]


def _filled(counts: Any, kept: np.ndarray, entries: int, folder: str | Path | None) -> sparse.csr_matrix:
    """Return the counts of the genes that are kept."""
    place = np.int32 if entries <= np.iinfo(np.int32).max else np.int64  # another than SciPy wants would be copied
    data, indices = _array_in(folder, entries, np.float32), _array_in(folder, entries, place)
    starts = np.zeros(counts.shape[0] + 1, dtype=np.int64)
    if _by_gene(counts):
        for part, _, _ in _parts(counts, kept, "measuring cells"):
            starts[1:] += np.diff(csr_float32(in_memory(part)).indptr)
        np.cumsum(starts, out=starts)
    taken = np.zeros(counts.shape[0], dtype=np.int64)
    for part, rows, which in _parts(counts, kept, "reading counts"):
        found = csr_float32(in_memory(part))
        lengths = np.diff(found.indptr)
        if not _by_gene(counts):
            starts[rows.start + 1 : rows.stop + 1] = starts[rows.start] + found.indptr[1:]
        to = np.arange(found.nnz) + np.repeat(starts[:-1][rows] + taken[rows] - found.indptr[:-1], lengths)
        data[to], indices[to] = found.data, found.indices + which.start
        taken[rows] += lengths
    return sparse.csr_matrix((data, indices, starts), (counts.shape[0], len(kept)))


def _tables_of(store: Any) -> AnnData:
    """Return an AnnData of `obs`, `var` and `uns`, as anndata reads them from an open store."""
    if not isinstance(store["obs"], h5py.Dataset):
        parts = {name: read_elem(store[name]) for name in ("obs", "var", "uns") if name in store}
        return AnnData(**parts)
    with TemporaryDirectory() as place:  # before 0.7 the tables had their categories in `uns`; anndata puts them back
        with h5py.File(Path(place) / "tables.h5ad", "w") as tables:
            for name in ("obs", "var", "uns"):
                if name in store:
                    store.copy(name, tables)
        return anndata.read_h5ad(Path(place) / "tables.h5ad")


def _matrix_of(store: Any, place: str) -> Any:
    """Return what gives a part of a matrix when it is sliced, or None."""
    matrix = store.get(place)
    if hasattr(matrix, "keys"):  # a group of HDF5 or Zarr
        return sparse_dataset(matrix)
    return matrix if len(getattr(matrix, "shape", None) or ()) == 2 else None  # what is None is stored without a shape


def _part_of(matrix: Any, which: Any) -> Any:
    """Return a part of what `_matrix_of` gave."""
    part = matrix[which]
    if sparse.issparse(part):
        try:
            part.check_format()  # compiled code would crash on indices that point outside
        except ValueError as error:
            raise OSError(f"indices in {matrix.group.name} point outside the table: {error}") from None
    return part


def _array_in(folder: str | Path | None, length: int, dtype: type) -> np.ndarray:
    """Return room for numbers: in memory, or in a file of `folder` that has no name and goes when the array goes."""
    if folder is None or not length:  # an empty file cannot be mapped
        return np.empty(length, dtype)
    size = length * np.dtype(dtype).itemsize
    try:
        folder = home_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:  # the mapping keeps it open
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would kill the process, later
            return np.memmap(file, dtype, "w+", shape=(length,))
    except OSError as error:
        raise InputError(
            f"{folder} cannot take {size / 1e9:.3g} GB of counts ({error}). Name a folder on a disk with more room."
        ) from error

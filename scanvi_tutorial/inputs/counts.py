"""Checks of the count matrix: whole, finite, non-negative numbers, and no empty cell; in any storage format."""

from __future__ import annotations

import h5py
import numpy as np
from anndata import AnnData
from pandas.api.types import is_hashable
from scipy import sparse

from scanvi_tutorial.inputs.errors import InputError, listed, refuse_repeated

_FRACTION, _MISSING = "not a whole number", "missing"
_LARGEST = 2**24  # from here on float32, in which the model computes, skips whole numbers


def check_counts(adata: AnnData, layer: str | None = None) -> sparse.csr_matrix:
    """Return the raw counts of `adata` as CSR float32, (cells, genes), and leave `adata` as it is.

    Dense, CSC and integer matrices are converted, and those of a backed AnnData are read from disk; what is CSR float32
    already is returned without a copy.

    Args:
        adata: Cells and genes.
        layer: Name of the layer that holds the counts; None means `adata.X`.

    Raises:
        InputError: Where there is no such matrix, no cell or no gene, where gene names repeat, where a value is text,
            negative, fractional, missing, infinite or beyond 2²⁴ (the first such is named), or where a cell has no
            count at all.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None and (not is_hashable(layer) or layer not in adata.layers):
        raise InputError(f"There is no layer {layer!r}. {_layers(adata)}")
    matrix = in_memory(adata.X if layer is None else adata.layers[layer])
    if matrix is None:
        raw = " adata.raw has numbers: use adata.raw.to_adata()." if adata.raw is not None else ""
        raise InputError(f"{where} is empty: there are no counts in it.{raw} {_layers(adata)}")
    if not all(matrix.shape):
        raise InputError(
            f"{where} holds {matrix.shape[0]} cells × {matrix.shape[1]} genes, so there is nothing to learn from. "
            "Look at the filter that came before."
        )
    refuse_repeated(adata, "var")
    _refuse_damaged(matrix, where)
    if (dtype := _stored(matrix).dtype).kind not in "biuf":
        raise InputError(f"{where} holds {dtype}, not numbers. Convert it with .astype('float32').")
    if fault := first_fault(matrix):
        row, column, value, kind = fault
        text = f"{where} does not hold raw counts: cell {adata.obs_names[row]!r}, gene {adata.var_names[column]!r} is "
        if kind == _MISSING:
            remedy = "Where samples were joined, fill the gaps with anndata.concat(..., join='outer', fill_value=0)."
        elif kind == _FRACTION and _nearly_whole(matrix):
            remedy = (
                f"All values are whole but for rounding: {where} = {_rounded(matrix, where)} is all that is needed."
            )
        else:
            remedy = (
                "The model needs counts as they were measured, before any normalization. "
                f"{_where_counts_are(adata, layer)}"
            )
        raise InputError(f"{text}{value:.9g}, which is {kind}. {remedy}")
    counts = csr_float32(matrix)
    empty = np.flatnonzero(np.diff(counts.indptr) == 0)
    if len(empty):
        raise InputError(
            f"{len(empty)} of {counts.shape[0]} cells have no count in {where}, the first is "
            f"{adata.obs_names[empty[0]]!r}; nothing can be said of their library size. Remove them with "
            "scanpy.pp.filter_cells(adata, min_counts=1)."
        )
    return counts


def in_memory(matrix: object) -> object:
    """Return a matrix as SciPy or NumPy can hold it: off the disk of a backed AnnData, and of a dtype they know."""
    if isinstance(matrix, h5py.Dataset):
        matrix = matrix[()]
    elif hasattr(matrix, "compute"):  # of dask: cells by cells, for a dense whole may not fit
        parts = [matrix.blocks[part].compute() for part in range(matrix.numblocks[0])]
        matrix = sparse.vstack([sparse.csr_matrix(part) for part in parts], format="csr")
    elif hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    if matrix is None or sparse.issparse(matrix):
        return matrix
    matrix = np.asarray(matrix)
    native = matrix.dtype.newbyteorder("=")
    return matrix.astype(np.float32 if native == np.float16 else native, copy=False)  # half precision isn't for SciPy


def _refuse_damaged(matrix: object, where: str) -> None:
    """Refuse a sparse matrix whose indices point outside, at which compiled code would fail or crash."""
    if sparse.issparse(matrix) and matrix.format in ("csr", "csc"):
        try:
            matrix.check_format()
        except ValueError as error:
            raise InputError(
                f"{where} is damaged: its indices point outside the table ({error}). Write or fetch the file again."
            ) from error


def csr_float32(matrix: object) -> sparse.csr_matrix:
    """Return counts as CSR float32 without zeros or entries in two parts; what has that form already is not copied."""
    counts = sparse.csr_matrix(matrix, dtype=np.float32)  # no copy of what has that form already
    if not counts.has_canonical_format or not counts.data.all():
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def first_fault(matrix: object) -> tuple[int, int, float, str] | None:
    """Return row, column, value and kind of the first number that is no count, or None."""
    stored = _stored(matrix)
    if stored.dtype.kind == "b" or not stored.size:
        return None
    if float(stored.min()) >= 0 and float(stored.max()) <= _LARGEST and _whole(stored):  # false for what is no number
        return None
    start, places = 0, []
    for block in _blocks(stored):
        x = block.astype(np.float64)  # half precision cannot even hold the bound
        places.append(start + np.flatnonzero(~np.isfinite(x) | (x < 0) | (x > _LARGEST) | (x != np.trunc(x))))
        start += len(block)
    bad = np.concatenate(places)
    rows, columns = _rows_and_columns(matrix, bad)
    first = np.lexsort((columns, rows))[0]
    value = float(stored.ravel()[bad[first]])
    if np.isnan(value):
        kind = _MISSING
    elif not np.isfinite(value):
        kind = "not a finite number"
    elif value < 0:
        kind = "negative"
    elif value > _LARGEST:
        kind = f"more than {_LARGEST:,}, beyond which single molecules are lost to rounding"
    else:
        kind = _FRACTION
    return int(rows[first]), int(columns[first]), value, kind


def _blocks(numbers: np.ndarray, at_once: int = 1 << 20) -> list[np.ndarray]:
    """Return numbers in blocks: what is computed of the counts of many cells is not to be held at once."""
    return np.array_split(numbers.ravel(), -(-numbers.size // at_once))


def _rows_and_columns(matrix: object, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return in which rows and columns some of the stored numbers are."""
    if not sparse.issparse(matrix):
        return np.unravel_index(places, np.shape(matrix))
    if matrix.format not in ("csr", "csc"):
        entries = matrix.tocoo()
        return entries.row[places], entries.col[places]
    major, minor = np.searchsorted(matrix.indptr, places, side="right") - 1, matrix.indices[places]
    return (major, minor) if matrix.format == "csr" else (minor, major)


def _whole(numbers: np.ndarray) -> bool:
    return all((block == np.trunc(block)).all() for block in _blocks(numbers))


def _nearly_whole(matrix: object) -> bool:
    """Return whether nothing but the rounding of float32 keeps all values from being counts."""
    for block in _blocks(_stored(matrix)):
        x = block.astype(np.float64)
        whole = np.rint(x)
        if not (np.isfinite(x).all() and (whole >= 0).all() and (abs(x - whole) <= 1e-5 * np.maximum(x, 10)).all()):
            return False
    return True


def _rounded(matrix: object, where: str) -> str:
    return f"{where}.rint()" if sparse.issparse(matrix) else f"numpy.rint({where})"


def _where_counts_are(adata: AnnData, layer: str | None) -> str:
    places = {f"pass layer={name!r}": matrix for name, matrix in adata.layers.items() if name != layer}
    if layer is not None and adata.X is not None:
        places["leave out `layer` to use adata.X"] = adata.X
    if adata.raw is not None:
        places["use adata.raw.to_adata()"] = adata.raw.X
    for remedy, matrix in places.items():
        matrix = in_memory(matrix)
        if _stored(matrix).dtype.kind in "biuf" and first_fault(matrix) is None:
            return f"There are whole numbers elsewhere in this AnnData: {remedy}."
    return "Neither a layer nor adata.raw holds them here: go back to the file that came before normalization."


def _stored(matrix: object) -> np.ndarray:
    return matrix.data if sparse.issparse(matrix) else np.asarray(matrix)


def _layers(adata: AnnData) -> str:
    if not len(adata.layers):
        return "There are no layers here. Put raw counts into adata.X."
    return f"The layers are {listed(adata.layers)}. Name the one that holds raw counts, or put them into adata.X."

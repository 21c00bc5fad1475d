"""What a usable AnnData is: counts, labels, genes, file; errors about it say what to do.

Used from book/01_data.md onward. Symbols: x_cg, the count of gene g in cell c; `codes`, the label of a cell as a
number, -1 where nobody has told us.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.config import UNLABELLED

__all__ = ["NO_LABEL", "InputError", "check_counts", "check_genes", "check_labels", "label_name", "listed", "read_h5ad"]

NO_LABEL = ("", "-1", UNLABELLED)  # what says "without a label", beside a missing value
_OTHER_READERS = {  # how a file of another format becomes an AnnData
    "": "a 10x folder is read by scanpy.read_10x_mtx(folder)",
    ".h5": "10x's own .h5 is read by scanpy.read_10x_h5(path)",
    ".csv": "a table is read by anndata.io.read_csv(path)",
    ".tsv": "a table is read by anndata.io.read_text(path)",
    ".loom": "Loom is read by anndata.io.read_loom(path)",
    ".zarr": "Zarr is read by anndata.read_zarr(path)",
    ".gz": "unpack it first, with gunzip",
}


class InputError(ValueError):
    """Tell what is wrong with the data given, where, and what to do about it."""


def check_counts(adata: AnnData, layer: str | None = None) -> sparse.csr_matrix:
    """Return the raw counts of `adata` as CSR float32, (cells, genes), and leave `adata` as it is.

    Dense, CSC and integer matrices are converted; what is CSR float32 already is returned without a copy.

    Args:
        adata: Cells and genes.
        layer: Name of the layer that holds the counts; None means `adata.X`.

    Raises:
        InputError: Where there is no such matrix, no cell or no gene, where gene names repeat, where a value is text,
            negative, fractional, missing or infinite (the first such is named), or where a cell has no count at all.
    """
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None and layer not in adata.layers:
        raise InputError(f"There is no layer {layer!r}. {_layers(adata)}")
    if adata.isbacked:
        raise InputError(f"{where} is still on disk: this AnnData was opened in backed mode. Call adata.to_memory().")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise InputError(f"{where} is empty: there are no counts in it. {_layers(adata)}")
    if not all(matrix.shape):
        raise InputError(
            f"{where} holds {matrix.shape[0]} cells × {matrix.shape[1]} genes, so there is nothing to learn from. "
            "Look at the filter that came before."
        )
    _refuse_repeated_genes(adata)
    if (dtype := _stored(matrix).dtype).kind not in "biuf":
        raise InputError(f"{where} holds {dtype}, not numbers. Convert it with .astype('float32').")
    if fault := _first_fault(matrix):
        row, column, value, kind = fault
        raise InputError(
            f"{where} does not hold raw counts: cell {adata.obs_names[row]!r}, gene {adata.var_names[column]!r} is "
            f"{value:g}, which is {kind}. The model needs counts as they were measured, before any normalization. "
            f"{_where_counts_are(adata, layer)}"
        )
    counts = _csr_float32(matrix)
    empty = np.flatnonzero(np.diff(counts.indptr) == 0)
    if len(empty):
        raise InputError(
            f"{len(empty)} of {counts.shape[0]} cells have no count in {where}, the first is "
            f"{adata.obs_names[empty[0]]!r}; nothing can be said of their library size. Remove them with "
            "scanpy.pp.filter_cells(adata, min_counts=1)."
        )
    return counts


def check_labels(
    adata: AnnData, column: str = "label", *, unlabelled: str | int = UNLABELLED, least: int = 2
) -> tuple[list[str], np.ndarray]:
    """Return the names of the labels and the code of every cell's label, -1 for a cell without one.

    Missing values, -1, empty text, "Unknown" and the category `unlabelled` all mean "without a label". The order of a
    categorical is kept, other columns are sorted; categories that no cell has are dropped, for a class without an
    example cannot be learned and would only take probability from the others. (For `seed_labels` it is an error.)

    Args:
        adata: Cells and genes.
        column: The column of `adata.obs` with the labels: categorical, text or whole numbers.
        unlabelled: A further name for "without a label", if the column uses one.
        least: How many different labels there must be.

    Returns:
        Names (labels,) and codes (cells,), int64.

    Raises:
        InputError: Where the column is missing, does not use the name `unlabelled`, or holds fewer than `least` labels.
    """
    unlabelled = label_name(unlabelled)
    if column not in adata.obs:
        raise InputError(
            f"There is no column {column!r} in adata.obs{_did_you_mean(column, adata.obs.columns)} "
            f"The columns are {listed(adata.obs.columns)}. Name the one with labels, {unlabelled!r} meaning none."
        )
    values = adata.obs[column]
    names = values.map(label_name, na_action="ignore").astype(object)
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = list(dict.fromkeys(map(label_name, values.cat.categories)))
    else:
        known = sorted(set(names.dropna()), key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    if unlabelled not in [*known, UNLABELLED]:
        raise InputError(
            f"No cell has {unlabelled!r} in adata.obs[{column!r}], though it was given as the name of the cells "
            f"without a label{_did_you_mean(unlabelled, known)} The values are {listed(known)}."
        )
    names = names.where(~names.isin([*NO_LABEL, unlabelled]))
    used = set(names.dropna())
    order = [name for name in known if name in used]
    if len(order) < least:
        raise InputError(
            f"adata.obs[{column!r}] holds {len(order)} different labels ({listed(order)}), and at least {least} are "
            f"needed: {names.notna().sum()} of {len(names)} cells are labelled. Give a few cells of every type a label."
        )
    return order, pd.Categorical(names, categories=order).codes.astype(np.int64)


def check_genes(adata: AnnData, genes: Sequence[str]) -> AnnData:
    """Return `adata` with exactly `genes`, in that order: itself where they agree already, else a view.

    Genes that `adata` has beyond those are left out.

    Raises:
        InputError: Where some of `genes` are missing, or where gene names repeat.
    """
    wanted = pd.Index(genes)
    if adata.var_names.equals(wanted):
        return adata
    _refuse_repeated_genes(adata)
    missing = wanted.difference(adata.var_names, sort=False)
    if len(missing):
        raise InputError(
            f"{len(missing)} of the {len(wanted)} genes that the model was fitted on are not among the "
            f"{adata.n_vars} genes of these cells: {listed(missing)}. Check that both name genes in the same way "
            f"(these cells: {listed(adata.var_names, 3)}), or fit a model on the genes that both have."
        )
    return adata[:, wanted]


def read_h5ad(path: str | Path) -> AnnData:
    """Read an AnnData from an `.h5ad` file; raise `InputError` if the file is missing, of another kind or damaged."""
    path = Path(path)
    advice = _OTHER_READERS.get(path.suffix.lower(), "read it with the tool that made it")
    convert = f"This book reads AnnData files (.h5ad): {advice}, then save it with adata.write_h5ad(...)."
    if not path.exists():
        raise InputError(f"There is no file {path} (looked in {path.absolute().parent}). Check the spelling.")
    if path.is_dir() or path.suffix.lower() != ".h5ad":
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'not an .h5ad file, by its name'}. {convert}")
    if not h5py.is_hdf5(path):
        raise InputError(
            f"{path} is called .h5ad but is not HDF5 inside ({path.stat().st_size:,} bytes): a download cut short, a "
            "web page saved under that name, or a pointer that Git LFS left. Fetch it again."
        )
    try:
        return anndata.read_h5ad(path)
    except Exception as err:  # what anndata raises on a damaged file depends on where the damage is
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise InputError(
            f"{path} is HDF5 but could not be read as an AnnData ({reason}): it is damaged, or was not written by "
            "adata.write_h5ad(...). Write it again with a current anndata."
        ) from err


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return the first `most` names as text for an error message, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def label_name(value: object) -> str:
    """Return a label as text; a whole number is written the same whether it came as 1 or as 1.0."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def _csr_float32(matrix: object) -> sparse.csr_matrix:
    counts = sparse.csr_matrix(matrix, dtype=np.float32)  # no copy of what has that form already
    if not counts.has_canonical_format or not counts.data.all():
        counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
    return counts


def _first_fault(matrix: object) -> tuple[int, int, float, str] | None:
    """Return row, column, value and kind of the first number that is no count, or None."""
    stored = _stored(matrix)
    if stored.dtype.kind in ("b", "u") or not stored.size:
        return None
    if np.isfinite(stored.max()) and stored.min() >= 0 and (stored == np.trunc(stored)).all():
        return None
    entries = sparse.coo_matrix(matrix)
    bad = np.flatnonzero(~np.isfinite(entries.data) | (entries.data < 0) | (entries.data != np.trunc(entries.data)))
    first = bad[np.lexsort((entries.col[bad], entries.row[bad]))[0]]
    value = float(entries.data[first])
    kind = "not a finite number" if not np.isfinite(value) else "negative" if value < 0 else "not a whole number"
    return int(entries.row[first]), int(entries.col[first]), value, kind


def _where_counts_are(adata: AnnData, layer: str | None) -> str:
    places = {f"pass layer={name!r}": matrix for name, matrix in adata.layers.items() if name != layer}
    if layer is not None and adata.X is not None:
        places["leave out `layer` to use adata.X"] = adata.X
    if adata.raw is not None:
        places["use adata.raw.to_adata()"] = adata.raw.X
    for remedy, matrix in places.items():
        if _stored(matrix).dtype.kind in "biuf" and _first_fault(matrix) is None:
            return f"There are whole numbers elsewhere in this AnnData: {remedy}."
    return "Neither a layer nor adata.raw holds them here: go back to the file that came before normalization."


def _stored(matrix: object) -> np.ndarray:
    return matrix.data if sparse.issparse(matrix) else np.asarray(matrix)


def _layers(adata: AnnData) -> str:
    return f"The layers are {listed(adata.layers)}. Name the one that holds raw counts, or put them into adata.X."


def _refuse_repeated_genes(adata: AnnData) -> None:
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise InputError(
            f"{len(repeated)} gene names occur more than once: {listed(repeated)}. "
            "Make them unique with adata.var_names_make_unique()."
        )


def _did_you_mean(name: object, names: Iterable[object]) -> str:
    close = get_close_matches(str(name), [str(other) for other in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."

"""Cells of one or several files that may be larger than memory: read in blocks, only the chosen genes are kept.

The first pass checks the counts and finds in how many cells each gene is detected, the next fill arrays whose size is
known by then, so that nothing is held twice. The arrays are in memory, or in files that the operating system reads as
they are used (book/14_scale.md).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.data.selection import best_genes
from scanvi_tutorial.inputs.counts import check_counts, csr_float32, first_fault, in_memory
from scanvi_tutorial.inputs.errors import InputError, InputWarning, listed, refuse_repeated, whole_number
from scanvi_tutorial.inputs.files import existing, home_path, opened, refuse_other_formats
from scanvi_tutorial.inputs.genes import LEAST_OVERLAP, gene_features, only_genes
from scanvi_tutorial.inputs.markers import check_markers

_CELLS_AT_ONCE = 2_000
_NUMBERS_AT_ONCE = 5_000_000  # of a store that is read gene by gene
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, eq=False)
class _File:
    """A file, and what is read of it."""

    path: Path
    tables: AnnData  # obs, var, uns
    genes: np.ndarray  # positions of the genes that all files have, in the order of the first
    layer: str | None
    begins: str  # how errors about its cells begin: with its name, where there are several

    @contextmanager
    def counts(self) -> Iterator[tuple[Any, Any]]:
        """Yield the open store, and its counts, still on disk."""
        with opened(self.path) as store:
            try:
                yield store, _on_disk(store, self.layer, self.path)
            except InputError as error:
                raise InputError(f"{self.begins}{error}") from error


def open_cells(
    paths: Paths,
    n: int = 2_000,
    *,
    layer: str | None = None,
    folder: str | Path | None = None,
) -> AnnData:
    """Return the cells of files as one table, with `n` of their genes; all counts together may be larger than memory.

    Of one file it is the same as `select_genes(read_h5ad(path), n, layer=layer)`, with the counts in `X`, `obs`, `var`
    and `uns`. Of several, it is their cells one file after the other: genes that all have, all columns of `obs`, and
    `obs["file"]`, which can serve as a batch; `var` and `uns` are those of the first.

    Args:
        paths: An `.h5ad` file, a `.zarr` folder, a folder of such, or a list of them. Counts may be dense, CSR or CSC;
            CSC takes longest.
        n: Genes to keep: those detected in most cells, and the markers of `uns["markers"]`.
        layer: Where the counts are, if not in `X`.
        folder: A folder on a disk with room for 8 bytes a count above zero: the kept counts are written there, once for
            these files and genes, and read while they are in use, so that they too may be larger than memory. Other
            processes that see the folder read the same. Remove it when the cells are no longer needed. A copy of the
            cells or a part of them is in memory, as all of them are where `folder` is None.

    Raises:
        InputError: Where a file cannot be read or holds no usable counts, where files share fewer than half of the
            genes of the first, where `n` is below one, or `folder` has not enough room.
    """
    n = whole_number(n, "n", 1)
    found = files_of(paths)
    files, notes = _aligned([_read(path, layer, f"{path}: " if len(found) > 1 else "") for path in found])
    obs, first = _joined(files), files[0].tables
    check_markers(first.uns.get("markers"))  # before the counts are read
    place = None if folder is None else _place(home_path(folder), files, n)
    if place is None or not place.is_dir():
        detected = sum(map(_detected, files))
        names = first.var_names[files[0].genes]
        kept = best_genes(detected.astype(np.float64), names, first.uns.get("markers"), n)
        if place is None:
            matrix = _filled(files, kept, int(detected[kept].sum()), None)
        else:
            _keep(place, files, kept, int(detected[kept].sum()))
    if place is not None:
        kept = np.load(place / "genes.npy")
        parts = tuple(np.load(place / f"{name}.npy", mmap_mode="r") for name in _PARTS)
        matrix = sparse.csr_matrix(parts, (len(obs), len(kept)))
    for text in notes:  # where warnings are heard again
        warnings.warn(text, InputWarning, stacklevel=2)
    return AnnData(matrix, obs=obs, var=first.var.iloc[files[0].genes[kept]], uns=first.uns)


def files_of(paths: Paths) -> list[Path]:
    """Return the files that `paths` name, those of a folder in the order of their names.

    Raises `InputError` where there is none, or one of another format.
    """
    found = []
    for path in map(existing, [paths] if isinstance(paths, str | Path) else paths):
        if path.is_dir() and path.suffix.lower() != ".zarr":
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in (".h5ad", ".zarr"))
            if not inside:
                raise InputError(f"There is no .h5ad or .zarr in the folder {path}. Name the files, or another folder.")
            found += inside
        else:
            found.append(path)
    if not found:
        raise InputError("There is no file in an empty list. Name one at least.")
    for path in found:
        if path.suffix.lower() != ".zarr":
            refuse_other_formats(path)
    if len(set(found)) < len(found):
        raise InputError(f"{listed(map(str, found))}: one file is named twice. Name each once.")
    return found


def _read(path: Path, layer: str | None, begins: str) -> _File:
    with opened(path) as store:
        tables = _tables_of(store)
        _on_disk(store, layer, path)
    try:
        only_genes(tables)  # refuses what has none
        genes = np.flatnonzero(gene_features(tables.var))
        refuse_repeated(AnnData(var=tables.var.iloc[genes, :0]), "var")
    except InputError as error:
        raise InputError(f"{begins}{error}") from error
    return _File(path, tables, genes, layer, begins)


def _aligned(files: list[_File]) -> tuple[list[_File], list[str]]:
    """Return the files with the genes that all of them have, and what to say of the others."""
    notes = [text for file in files for text in only_genes(file.tables)[1]]
    names = [pd.Index(file.tables.var_names[file.genes]) for file in files]
    shared = names[0]
    for path, own in zip([file.path for file in files[1:]], names[1:], strict=True):
        shared = shared[shared.isin(own)]
        if len(shared) < LEAST_OVERLAP * len(names[0]):
            raise InputError(
                f"{path} and those before it share {len(shared)} of the {len(names[0])} genes of {files[0].path}, by "
                "their names. Give all files the same kind of gene names, symbols or Ensembl numbers."
            )
    every = len(set().union(*names))
    if every > len(shared):
        notes.append(f"{every - len(shared)} of {every} genes are not in all of the {len(files)} files: left out.")
    pairs = zip(files, names, strict=True)
    return [replace(file, genes=file.genes[own.get_indexer(shared)]) for file, own in pairs], notes


def _joined(files: Sequence[_File]) -> pd.DataFrame:
    """Return `obs` of all files, whose cells are named by file too where names of two files would be the same."""
    if len(files) == 1:
        return files[0].tables.obs
    names = [file.path.stem for file in files]
    if len(set(names)) < len(names):
        names = [str(file.path) for file in files]
    parts = [AnnData(obs=file.tables.obs) for file in files]
    repeated = pd.Index(np.concatenate([part.obs_names for part in parts])).has_duplicates
    joined = anndata.concat(
        dict(zip(names, parts, strict=True)), join="outer", label="file", index_unique="-" if repeated else None
    ).obs
    if any("file" in part.obs for part in parts):  # theirs goes first
        joined["file"] = anndata.concat(parts, join="outer").obs["file"].array
    return joined


_PARTS = ("data", "indices", "starts")


def _place(folder: Path, files: Sequence[_File], n: int) -> Path:
    """Return where the counts of these files are kept, as they are now."""
    digest = hashlib.sha256(repr((n, [file.layer for file in files])).encode())
    for file in files:
        inside = sorted(file.path.rglob("*")) if file.path.is_dir() else [file.path]
        for part in inside:
            about = part.stat()
            digest.update(f"{part.absolute()} {about.st_size} {about.st_mtime_ns}\n".encode())
    return folder / f"counts-{digest.hexdigest()[:24]}"


def _keep(place: Path, files: Sequence[_File], kept: np.ndarray, entries: int) -> None:
    """Write the counts beside their place, which they take when they are whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix="part-", dir=place.parent))
    except OSError as error:
        raise _no_room(place.parent, entries, error) from error
    try:
        np.save(beside / "starts.npy", _filled(files, kept, entries, beside).indptr)
        np.save(beside / "genes.npy", kept)
        beside.chmod(0o755)  # others may read it
        try:
            beside.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


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
            own = genes[some]
            rise = np.argsort(own)  # as positions have to
            part = _part_of(counts, (slice(None), own[rise]))
            yield part if (np.diff(own) > 0).all() else part[:, np.argsort(rise)], slice(0, cells), some
    else:
        for rows in progress_bar(_slices(cells, _CELLS_AT_ONCE), what, unit="block"):
            part = _part_of(counts, rows)
            whole = np.array_equal(genes, np.arange(part.shape[1]))
            yield part if whole else part[:, genes], rows, slice(0, len(genes))


def _slices(length: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, length)) for first in range(0, length, most)]


def _by_gene(matrix: Any) -> bool:
    return getattr(matrix, "format", "") == "csc"


def _detected(file: _File) -> np.ndarray:
    """Check the counts of a file, and return in how many cells each of the genes is detected."""
    with file.counts() as (store, counts):
        return _checked(store, file.tables, file.genes, counts, file.layer)


def _checked(store: Any, tables: AnnData, genes: np.ndarray, counts: Any, layer: str | None) -> np.ndarray:
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


def _filled(files: Sequence[_File], kept: np.ndarray, entries: int, folder: Path | None) -> sparse.csr_matrix:
    """Return the counts of the genes that are kept."""
    cells = sum(file.tables.n_obs for file in files)
    place = np.int32 if entries <= np.iinfo(np.int32).max else np.int64  # another than SciPy wants would be copied
    data, indices = (_array_in(folder, *of, entries) for of in (("data", np.float32), ("indices", place)))
    starts, first = np.zeros(cells + 1, dtype=np.int64), 0
    for file in files:
        with file.counts() as (_, counts):
            _fill(counts, file.genes[kept], data, indices, starts[first : first + file.tables.n_obs + 1])
        first += file.tables.n_obs
    for array in (data, indices):
        if isinstance(array, np.memmap):
            array.flush()  # so that other machines find it
    return sparse.csr_matrix((data, indices, starts), (cells, len(kept)))


def _fill(counts: Any, genes: np.ndarray, data: np.ndarray, indices: np.ndarray, starts: np.ndarray) -> None:
    """Write the counts of a file where they begin in `data` and `indices`: at the first of its `starts`."""
    if _by_gene(counts):
        for part, _, _ in _parts(counts, genes, "measuring cells"):
            starts[1:] += np.diff(csr_float32(in_memory(part)).indptr)
        np.cumsum(starts, out=starts)
    taken = np.zeros(counts.shape[0], dtype=np.int64)
    for part, rows, which in _parts(counts, genes, "reading counts"):
        found = csr_float32(in_memory(part))
        lengths = np.diff(found.indptr)
        if not _by_gene(counts):
            starts[rows.start + 1 : rows.stop + 1] = starts[rows.start] + found.indptr[1:]
        to = np.arange(found.nnz) + np.repeat(starts[:-1][rows] + taken[rows] - found.indptr[:-1], lengths)
        data[to], indices[to] = found.data, found.indices + which.start
        taken[rows] += lengths


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


def _array_in(folder: Path | None, name: str, dtype: type, length: int) -> np.ndarray:
    """Return room for numbers: in memory, or in a file of `folder`."""
    if folder is None or not length:  # an empty file cannot be mapped
        array = np.empty(length, dtype)
        if folder is not None:
            np.save(folder / f"{name}.npy", array)
        return array
    try:
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (length,))
        if hasattr(os, "posix_fallocate"):
            with (folder / f"{name}.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, array.nbytes)  # else a full disk would kill the process, later
    except OSError as error:
        raise _no_room(folder.parent, length, error) from error
    return array


def _no_room(folder: Path, entries: int, error: OSError) -> InputError:
    return InputError(
        f"{folder} cannot take {8 * entries / 1e9:.3g} GB of counts ({error}). Name a folder on a disk with more room."
    )

"""Atomic writing of files, and early checks whether an AnnData can be written."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from anndata import AnnData
from anndata.io import read_elem, write_elem
from scipy import sparse

from scanvi_tutorial.inputs.errors import InputError, first_line, warn_of

_A_DAY = 86_400  # seconds
_PLACE = re.compile(r"ing key (.+) of <class .*> (?:to|from) (.+)$")  # in the notes of anndata's errors


def names_in_file(names: Iterable[str]) -> list[str]:
    """Return names that HDF5 and zarr take as they are, each once: "|" for "/", which is a folder there."""
    found: list[str] = []
    for name in names:
        base = name.replace("/", "|").replace("\0", "|")
        base = f"label {base}" if base == "_index" or base.startswith("__") or not base.strip(".") else base
        while base in found:
            base += "'"
        found.append(base)
    return found


@contextmanager
def nullable_strings_too() -> Iterator[None]:
    """Write text that may be missing in the type of its own that pandas 3 reads it in, and no warning about it."""
    with anndata.settings.override(allow_write_nullable_strings=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make_writable(adata: AnnData) -> None:
    """Rename what anndata reads and does not write, where nothing is lost, with an `InputWarning`, and refuse the rest.

    Raises `InputError` as `refuse_unwritable` does.
    """
    tables = {"adata.obs": adata.obs, "adata.var": adata.var}
    if adata.raw is not None:
        tables["adata.raw.var"] = adata.raw.var
    notes = []
    for where, table in tables.items():
        if "_index" in table:  # left by SeuratDisk
            name = next(name for name in ("index", "old_index", secrets.token_hex(4)) if name not in table)
            table.rename(columns={"_index": name}, inplace=True)
            notes.append(f"{where}['_index'], a name that files keep for themselves, is written as {where}[{name!r}].")
        if (name := table.index.name) in table.columns and list(table[name]) != list(table.index):
            table.index.name = None
            notes.append(f"{where}.index.name was {name!r}, as is a column with other values: the index has none now.")
    warn_of(notes)
    refuse_unwritable(adata)


def refuse_unwritable(adata: AnnData) -> None:
    """Raise `InputError` where anndata cannot write a part of `adata` to a file and read it; the part is named.

    Tables are written to a file in memory, and of matrices the first rows, for what fails is a name or a type.
    """
    for name in ("obs", "var", "uns", "obsm", "varm", "layers"):
        _try_to_write(f"adata.{name}", name, getattr(adata, name))
    if adata.raw is not None:
        _try_to_write("adata.raw.var", "var", adata.raw.var)
        _try_to_write("adata.raw.varm", "varm", adata.raw.varm)


def _try_to_write(where: str, name: str, part: Any) -> None:
    try:
        with nullable_strings_too(), h5py.File("in memory", "w", driver="core", backing_store=False) as file:
            write_elem(file, name, _first_rows(part))
            read_elem(file[name])  # names that differ in Python can be one in a file
    except MemoryError:
        raise
    except Exception as error:  # what anndata raises depends on the part
        for note in getattr(error, "__notes__", ()):
            if found := _PLACE.search(note):
                keys = f"{found[2]}/{found[1].strip(chr(39))}".strip("/").split("/")[1:]
                where += "".join(f"[{key!r}]" for key in (keys[:1] if name in ("obs", "var") else keys))
        where = where.replace("['_index']", ".index")
        if name in ("obs", "var") and not where.endswith(name):
            remedy = f"{where} = {where}.astype(str)"
        else:
            remedy = f"del {where}"
        raise InputError(
            f"{where} cannot be kept in an .h5ad file ({first_line(error)}). Mend the file once in Python: adata = "
            f"anndata.read_h5ad(...); {remedy}; adata.write_h5ad(...)."
        ) from error


def _first_rows(part: Any) -> Any:
    """Return a dictionary with no more than two rows of each matrix in it."""
    if isinstance(part, Mapping):
        return {key: _first_rows(value) for key, value in part.items()}
    return part[:2] if (isinstance(part, np.ndarray) and part.ndim) or sparse.issparse(part) else part


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield another file to write to, which takes the place of `path` at the end; an error leaves `path` as it was.

    That file lies beside `path` under a hidden name. If a kill leaves it there, a later write to the same folder
    removes it, but only after a day: until then another process may be writing it.
    """
    path = path.resolve()  # a link stays one, and its target is written
    for left in path.parent.glob(".*.scanvi-part*"):
        with suppress(OSError):  # another process removed it first, or it is another user's
            if time.time() - left.stat().st_mtime > _A_DAY:
                left.unlink()
    part = path.with_name(f".{secrets.token_hex(4)}.scanvi-part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # lest the disk put the renaming before the writing
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

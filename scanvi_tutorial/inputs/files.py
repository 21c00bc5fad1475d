"""Files: reading `.h5ad`, opening it and Zarr, and errors about files that cannot be read."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import anndata
import h5py
import zarr
from anndata import AnnData

from scanvi_tutorial.inputs.errors import InputError

_NO_LOCK = {errno.EAGAIN, errno.EDEADLK, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_KEY = re.compile(r"reading key '(.*)' of ")  # anndata notes with an error which element it was reading
_OTHER_READERS = {  # how a file of another format becomes an AnnData
    "": "a 10x folder is read by scanpy.read_10x_mtx(folder)",
    ".h5": "10x's own .h5 is read by scanpy.read_10x_h5(path)",
    ".csv": "a table is read by anndata.io.read_csv(path)",
    ".tsv": "a table is read by anndata.io.read_text(path)",
    ".loom": "Loom is read by anndata.io.read_loom(path)",
    ".zarr": "Zarr is read by anndata.read_zarr(path)",
    ".h5mu": "MuData is read by mudata.read_h5mu(path), and .mod['rna'] is its AnnData of genes",
}
_OTHER_STORES = {  # what lies in a file under the name of another format
    "matrix": _OTHER_READERS[".h5"],
    "mod": _OTHER_READERS[".h5mu"],
}


def read_h5ad(path: str | Path) -> AnnData:
    """Read an AnnData from an `.h5ad` file; raise `InputError` about the cause if the file cannot be read."""
    path = existing(path)
    refuse_other_formats(path)
    with opened(path):
        return anndata.read_h5ad(path)


def home_path(path: str | Path) -> Path:
    """Return a path with `~` written out; a file may be called ~something where nobody has that name."""
    if not isinstance(path, str | PathLike):
        raise InputError(f"The path of a file is needed here, and this is of type {type(path).__name__}.")
    if "://" in str(path):
        raise InputError(f"{path} is an address, and files are read from disk. Download it first.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def existing(path: str | Path) -> Path:
    """Return a path with `~` written out; raise `InputError` where there is no such file or folder."""
    path = home_path(path)
    try:
        path.stat()
    except PermissionError as error:
        raise InputError(_cause(path, error)) from error
    except OSError as error:
        raise InputError(
            f"There is no file {path} (looked in {path.absolute().parent}). Check the spelling."
        ) from error
    return path


def refuse_other_formats(path: Path) -> None:
    """Raise `InputError` where a path is not that of an `.h5ad` file, and name what reads it."""
    suffix = path.suffix.lower()
    if path.is_dir() or suffix != ".h5ad":
        reader = _OTHER_READERS.get(suffix, "read it with the tool that made it")
        remedy = f"{reader}, then save it with adata.write_h5ad(...)"
        if suffix == ".gz":
            remedy = "unpack it with gunzip"
        elif path.is_file() and h5py.is_hdf5(path):
            with h5py.File(path) as file:
                remedy = "this is one, so call it .h5ad" if "obs" in file and "mod" not in file else remedy
        kind = "a folder" if path.is_dir() else "not an .h5ad file, by its name"
        raise InputError(f"{path} is {kind}. This book reads AnnData files (.h5ad): {remedy}.")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield an open `.h5ad` file or `.zarr` folder; where it, or a part of it, cannot be read, say why.

    Warnings are silent meanwhile: AnnData gives some about every old file, and those are no errors.
    """
    of_zarr = path.suffix.lower() == ".zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with nullcontext(zarr.open_group(path, mode="r")) if of_zarr else h5py.File(path) as store:
                for part, reader in _OTHER_STORES.items():
                    if part in store and "X" not in store:
                        raise InputError(f"{path} is no AnnData inside, but another kind of file: {reader}.")
                yield store
        except InputError:
            raise
        except Exception as error:  # what anndata raises depends on where the fault is
            raise InputError(_cause(path, error)) from error


def _cause(path: Path, error: Exception) -> str:
    """Return what kept a file from being read, and what to do about that."""
    key = next((found[1] for note in getattr(error, "__notes__", []) if (found := _KEY.search(note))), None)
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    reason = (text.strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if isinstance(error, OSError) and ("lock file" in text or error.errno in _NO_LOCK or "already open for" in text):
        return (
            f"{path} is locked ({reason}): another program has it open for writing, or its disk knows no locks. Close "
            "it there, or set HDF5_USE_FILE_LOCKING=FALSE before Python starts."
        )
    if isinstance(error, PermissionError):
        return f"{path} may not be read by you ({reason}). Ask its owner for permission to read it and its folder."
    if isinstance(error, MemoryError):
        return f"{path} does not fit into memory ({reason}). Read it with st.open_cells(path, folder=...)."
    if path.suffix.lower() != ".zarr" and not h5py.is_hdf5(path):
        with path.open("rb") as file:
            if file.read(2) in (b"\x1f\x8b", b"PK"):
                return f"{path} is a gzip or zip file inside. Unpack it, and read what is in it."
        return (
            f"{path} is called .h5ad but is not HDF5 inside ({path.stat().st_size:,} bytes): a download cut short, a "
            "web page saved under that name, or a pointer that Git LFS left. Fetch it again."
        )
    if _not_decompressed(text):
        return (
            f"{path} is compressed by a filter that HDF5 lacks here ({reason}). Install hdf5plugin and import it "
            "before reading, or write the file again with compression='gzip'."
        )
    if _damaged(error, text):
        return f"{path} is damaged ({reason}). Fetch it again, or write it again from where it came."
    return (
        f"anndata {version('anndata')} cannot read {path} as an AnnData ({reason}{f', in {key}' if key else ''}). "
        "Another program or a newer anndata may have written it: read it with that one, or update anndata."
    )


def _not_decompressed(text: str) -> bool:
    return ("not registered" in text and "filter" in text) or "plugin" in text


def _damaged(error: Exception, text: str) -> bool:
    """Return whether HDF5 or a disk failed, not the one who looked for something that is not there."""
    if isinstance(error, KeyError):  # h5py raises it both for a name that is not there and for one that is broken
        return "nable to" in text and "doesn't exist" not in text
    return isinstance(error, OSError | RuntimeError) and not isinstance(
        error, FileNotFoundError | NotADirectoryError | NotImplementedError
    )

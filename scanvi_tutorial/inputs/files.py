"""Files: reading `.h5ad`, errors about files that cannot be read, writing all of a file or nothing."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anndata
import h5py
from anndata import AnnData

from scanvi_tutorial.inputs.errors import InputError

_A_DAY = 86_400  # seconds
_OTHER_READERS = {  # how a file of another format becomes an AnnData
    "": "a 10x folder is read by scanpy.read_10x_mtx(folder)",
    ".h5": "10x's own .h5 is read by scanpy.read_10x_h5(path)",
    ".csv": "a table is read by anndata.io.read_csv(path)",
    ".tsv": "a table is read by anndata.io.read_text(path)",
    ".loom": "Loom is read by anndata.io.read_loom(path)",
    ".zarr": "Zarr is read by anndata.read_zarr(path)",
    ".gz": "unpack it first, with gunzip",
}


def read_h5ad(path: str | Path) -> AnnData:
    """Read an AnnData from an `.h5ad` file; raise `InputError` if the file is missing, of another kind or damaged."""
    path = Path(path)
    advice = _OTHER_READERS.get(path.suffix.lower(), "read it with the tool that made it")
    convert = f"This book reads AnnData files (.h5ad): {advice}, then save it with adata.write_h5ad(...)."
    refuse_missing(path)
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


def refuse_missing(path: Path) -> None:
    """Raise `InputError` where there is no such file or folder."""
    if not path.exists():
        raise InputError(f"There is no file {path} (looked in {path.absolute().parent}). Check the spelling.")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield another file to write to, which takes the place of `path` at the end; an error leaves `path` as it was.

    That file lies beside `path` under a hidden name. If a kill leaves it there, a later write to the same folder
    removes it, but only after a day: until then another process may be writing it.
    """
    for left in path.absolute().parent.glob(".*.scanvi-part*"):
        with suppress(OSError):  # another process removed it first, or it is another user's
            if time.time() - left.stat().st_mtime > _A_DAY:
                left.unlink()
    part = path.with_name(f".{secrets.token_hex(4)}.scanvi-part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # lest the disk put the renaming before the writing
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

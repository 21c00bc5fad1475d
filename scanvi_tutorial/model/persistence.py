"""Keep named tensors and metadata in a folder: safetensors beside JSON, never pickle.

Used from book/05_training.md. Loading runs no code from the files. A folder holds

    tensors-<digest>.safetensors     the tensors, in a file that is never written over
    metadata.json                    all else, and name and SHA-256 digest of the file of tensors

Each file is written under another name and renamed, `metadata.json` last: until then the folder holds what it held,
from then on the new. So a save that ends at any moment, be it by SIGKILL, leaves the old whole or the new; what it
may leave besides is removed by the next one.

**Schema** of `metadata.json`, and what is done with it: 2 is written and read. 1 (`tensors.safetensors`, no digest, no
batches) is read; saving again makes it 2. A schema once read stays so until a major release. What is newer than this
version knows is refused: nobody can know today what its keys will mean.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from scanvi_tutorial.inputs.files import write_atomically

__all__ = [
    "SCHEMA",
    "PersistenceError",
    "holds",
    "read_folder",
    "refusing",
    "remove_folder",
    "versions",
    "write_folder",
]

SCHEMA = 2  # raised whenever an older reader would misread a newer folder
Kind = Literal["model", "checkpoint"]
_FORMAT, _METADATA, _FIRST_TENSORS = "scanvi_tutorial", "metadata.json", "tensors.safetensors"  # the last in schema 1
_OURS = (_METADATA, _FIRST_TENSORS, f"tensors-{'[0-9a-f]' * 16}.safetensors", ".*.scanvi-part")
_REMEDY = {"model": "Save the model again.", "checkpoint": "Delete the folder, and the fit begins anew."}
_SOURCE = {
    "model": "annotate (with --model on the command line), train and model.save leave one.",
    "checkpoint": "fit leaves one while it runs.",
}
_PACKAGES = ("scanvi-tutorial", "torch", "pyro-ppl", "numpy", "scipy", "anndata", "safetensors")


class PersistenceError(ValueError):
    """A folder holds nothing that this version can read, or something that it must not touch."""


def write_folder(
    folder: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], *, kind: Kind = "model"
) -> Path:
    """Write `tensors` and `metadata` (of JSON types) to `folder`, replacing what it held, and return its path.

    Processes that save to one folder at once take turns. Raises `PersistenceError` where `folder` exists and is not one
    of ours.
    """
    folder = Path(folder).absolute()
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = f"tensors-{digest[:16]}.safetensors"
    about = {"format": _FORMAT, "schema": SCHEMA, "kind": kind, "tensors": {"file": file, "sha256": digest}}
    about["versions"] = versions()
    text = json.dumps(about | dict(metadata) | about, indent=1, allow_nan=False)
    try:
        with _lock(folder):
            _refuse_foreign(folder, kind)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / file, data)
            write_atomically(folder / _METADATA, text.encode() + b"\n")  # from here on the folder holds the new
            _remove_files(folder, keep={_METADATA, file})
    except OSError as error:
        raise PersistenceError(
            f"{folder} cannot be written ({error.strerror or error}). Name another folder."
        ) from error
    return folder


def holds(folder: str | Path, *, kind: Kind = "model") -> bool:
    """Return whether anything was saved to `folder`, whole or not, and newer or not.

    Raises `PersistenceError` where `folder` holds something that is not ours to replace.
    """
    _refuse_foreign(Path(folder), kind)
    return (Path(folder) / _METADATA).exists()


def read_folder(folder: str | Path, *, kind: Kind = "model") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the metadata that `write_folder` was given.

    Raises `PersistenceError` where a file is missing, damaged, of a newer schema or of something else.
    """
    folder, data, why = Path(folder), None, ""
    for _ in range(10):  # somebody may save between the two reads, and again
        about = _read_metadata(folder, kind)
        try:
            data = (folder / about["tensors"]["file"]).read_bytes()
            break
        except OSError as error:
            why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    if data is None:
        raise PersistenceError(f"{folder} holds no saved {kind}: {about['tensors']['file']} {why}. {_REMEDY[kind]}")
    tensors, digest = about.pop("tensors"), hashlib.sha256(data).hexdigest()
    damaged = f"{folder / tensors['file']} is damaged"
    if tensors["sha256"] not in (digest, None):
        raise PersistenceError(f"{damaged}: its content is not what {_METADATA} says. {_REMEDY[kind]}")
    for key in ("format", "kind", "schema", "versions"):
        about.pop(key, None)
    with refusing(damaged, _REMEDY[kind]):
        return load(data), about


def remove_folder(folder: str | Path) -> None:
    """Remove what `write_folder` wrote to `folder`, and the folder itself if nothing else is in it."""
    folder = Path(folder).absolute()
    with _lock(folder):
        if folder.is_dir() and any(_is_ours(folder, kind) for kind in _REMEDY):
            (folder / _METADATA).unlink(missing_ok=True)  # first, so that nothing half removed passes for whole
            _remove_files(folder, keep=set())
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def refusing(what: str, remedy: str = "Train it again.") -> Iterator[None]:
    """Turn whatever malformed content makes of the code in the block into `PersistenceError`."""
    try:
        yield
    except PersistenceError:  # which says more
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OverflowError, SafetensorError) as error:
        raise PersistenceError(f"{what} ({error}). {remedy}") from error


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _read_metadata(folder: Path, kind: Kind) -> dict[str, Any]:
    path = folder / _METADATA
    try:
        text = path.read_bytes()
    except OSError as error:
        if isinstance(error, PermissionError):
            raise PersistenceError(f"{path} cannot be read ({error.strerror}). Ask its owner for leave.") from error
        why = f"{_METADATA} is missing" if folder.is_dir() else f"there is no such folder in {folder.absolute().parent}"
        raise PersistenceError(f"{folder} holds no saved {kind}: {why}. {_SOURCE[kind]}") from error
    with refusing(f"{path} is damaged", _REMEDY[kind]):
        about = json.loads(text)
        schema = about["schema"]
        if schema == 1:
            about |= {"kind": "model", "tensors": {"file": _FIRST_TENSORS, "sha256": None}}
        found, file, digest = about["kind"], Path(about["tensors"]["file"]), about["tensors"]["sha256"]
        if schema == SCHEMA and not isinstance(digest, str):
            raise ValueError("there is no digest of the tensors")
    if schema not in (1, SCHEMA):
        raise PersistenceError(
            f"{folder} was written with schema {schema!r}, and this version reads 1 to {SCHEMA}. "
            "Load it with the version of scanvi_tutorial that wrote it, or train again."
        )
    if found != kind or str(file) != file.name:
        raise PersistenceError(f"{folder} holds no saved {kind}, but a {found} in {file}. Name another folder.")
    return about


def _is_ours(folder: Path, kind: Kind) -> bool:
    """Return whether a `kind` may be written to `folder`: there is nothing yet, or nothing but what we wrote."""
    if not folder.is_dir():
        return not folder.exists()
    try:
        about = json.loads((folder / _METADATA).read_bytes())
        if isinstance(about, dict) and about.get("format") != _FORMAT and about.get("schema") != 1:
            return False  # somebody else's file of that name
        first = about["schema"] == 1 and (folder / _FIRST_TENSORS).is_file()
        return kind == "model" if first else about["format"] == _FORMAT and about["kind"] == kind
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged; files of our names may be replaced
        return all(any(path.match(name) for name in _OURS) for path in folder.iterdir())


def _refuse_foreign(folder: Path, kind: Kind) -> None:
    if not _is_ours(folder, kind):
        raise PersistenceError(
            f"{folder} exists and holds no saved {kind}, so it is left as it is. Choose another folder, or empty it."
        )


def _remove_files(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and any(path.match(name) for name in _OURS):
            path.unlink(missing_ok=True)


def _lock(folder: Path) -> FileLock:
    """Return a lock for saves to `folder`; it lies elsewhere, so that nothing is left beside the folder."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"scanvi_tutorial-{name}.lock", mode=0o666)  # others save there, too

"""Save named tensors and their metadata in one safetensors file, without pickle.

Used from book/05_training.md on. The header holds JSON text with kind, schema, versions and the metadata `about`.
A save that is interrupted leaves the old file unchanged, because the new file is renamed only when it is complete.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from scanvi_tutorial.inputs.files import home_path
from scanvi_tutorial.inputs.writing import write_atomically

SCHEMA = 1  # increased whenever an older version would misread a newer file
Kind = Literal["model", "checkpoint", "annotation"]
_HEADER = "scanvi_tutorial"  # the key of our text in the header
_PACKAGES = ("scanvi-tutorial", "torch", "pyro-ppl", "numpy", "scipy", "anndata", "safetensors")


class PersistenceError(ValueError):
    """A file that this version cannot read, or must not replace."""


def write_file(
    path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, kind: Kind = "model"
) -> Path:
    """Write `tensors` and `about` (of JSON types) to `path`, in place of an older `kind` there, and return the path.

    Raises `PersistenceError` as `is_saved` does, and where the file cannot be written.
    """
    path = home_path(path)
    is_saved(path, kind=kind)
    header = json.dumps({"schema": SCHEMA, "kind": kind, "versions": versions(), "about": dict(about)})
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {_HEADER: header})
    try:
        with write_atomically(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise PersistenceError(f"{path} cannot be written ({error.strerror or error}). Name another file.") from error
    return path


def read_file(path: str | Path, *, kind: Kind = "model") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the `about` that `write_file` was given.

    Raises `PersistenceError` where the file is missing, damaged, of another kind or schema, or of another program.
    """
    path = home_path(path)
    if not path.exists():
        raise PersistenceError(f"There is no file {path} (looked in {path.absolute().parent}). Check the spelling.")
    try:
        data = path.read_bytes()  # once, since safe_open reads it twice and the file may be replaced in between
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(header["__metadata__"][_HEADER])
        schema = found["schema"]
        saved_kind = found["kind"]
        about = found["about"]
    except OSError as error:
        raise PersistenceError(f"{path} cannot be read ({error.strerror or error}). Name another file.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise PersistenceError(
            f"{path} is there and is no saved {kind}, or a damaged one. Annotations are saved by annotate with a model "
            "file, and single fits by train or SCANVI.save. Name another file."
        ) from error
    if schema != SCHEMA:
        raise PersistenceError(
            f"{path} was written with schema {schema!r}, and this version of scanvi_tutorial reads {SCHEMA}. "
            "Load it with the version that wrote it, or name another file."
        )
    if saved_kind != kind:
        fit, whole = "a single fit, as train and SCANVI.save keep it", "an annotation, as annotate keeps it"
        said = {"model": fit, "annotation": whole, "checkpoint": "the checkpoint of a fit"}
        raise PersistenceError(
            f"{path} is {said.get(saved_kind, saved_kind)}, and not {said[kind]}. Name another file."
        )
    return tensors, about


def is_saved(path: str | Path, *, kind: Kind = "model") -> bool:
    """Return whether `path` is a saved `kind`: False where no file exists yet and one can be saved.

    Raises `PersistenceError` where another kind of file exists, which must not be replaced, or the folder is missing.
    """
    path = home_path(path)
    if not path.absolute().parent.is_dir():
        raise PersistenceError(f"There is no folder {path.absolute().parent} to write {path.name} to. Make it.")
    return path.exists() and bool(read_file(path, kind=kind))


@contextmanager
def as_persistence_error(what: str, remedy: str) -> Iterator[None]:
    """Turn any error that malformed content raises in the block into a `PersistenceError`."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise PersistenceError(f"{what} ({error}). {remedy}") from error


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

"""Keep named tensors and metadata in a folder: safetensors beside JSON, never pickle.

Used from book/05_training.md. Loading runs no code from the files. A folder is written beside its place and renamed,
so an interrupted save leaves the old one whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["SCHEMA", "PersistenceError", "read_folder", "write_folder"]

SCHEMA = 1  # raised whenever an older reader would misread a newer folder
_TENSORS, _METADATA = "tensors.safetensors", "metadata.json"


class PersistenceError(ValueError):
    """A folder holds no model that this version can read."""


def write_folder(folder: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write `tensors` and `metadata` (of JSON types) to `folder`, replacing what it held.

    Raises `PersistenceError` where `folder` exists and is not one of ours.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / _METADATA).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise PersistenceError(
            f"{folder} exists and holds no saved model, so it is left as it is. Choose another folder, or empty it."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        fresh = Path(beside) / "fresh"
        fresh.mkdir()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / _TENSORS)
        (fresh / _METADATA).write_text(json.dumps({"schema": SCHEMA, **metadata}, indent=1, allow_nan=False) + "\n")
        if folder.exists():
            folder.replace(Path(beside) / "old")
        fresh.replace(folder)
    return folder


def read_folder(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the metadata of `folder`.

    Raises `PersistenceError` where a file is missing, damaged or of a newer schema.
    """
    folder = Path(folder)
    for name in (_METADATA, _TENSORS):
        if not (folder / name).is_file():
            raise PersistenceError(f"{folder} holds no saved model: {name} is missing. Save one there with model.save.")
    try:
        metadata = json.loads((folder / _METADATA).read_text())
        schema = metadata.pop("schema")
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise PersistenceError(f"{folder / _METADATA} is damaged ({error}). Save the model again.") from error
    if schema != SCHEMA:
        raise PersistenceError(
            f"{folder} was written with schema {schema}, and this version reads {SCHEMA}. "
            "Load it with the version of scanvi_tutorial that wrote it, or train again."
        )
    try:
        return load_file(folder / _TENSORS), metadata
    except SafetensorError as error:
        raise PersistenceError(f"{folder / _TENSORS} is damaged ({error}). Save the model again.") from error

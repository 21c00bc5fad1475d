"""Keep named tensors and metadata in a folder: safetensors beside JSON, never pickle.

Used from book/05_training.md. Loading runs no code from the files. A folder is written beside its place and renamed,
so an interrupted save leaves the old one whole; a process killed between the two renames leaves it in a hidden folder
beside its place.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
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

    Processes that save to one folder at once take turns. Raises `PersistenceError` where `folder` exists and is not one
    of ours.
    """
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # the lock lies elsewhere, so that nothing is left beside the folder
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"scanvi_tutorial-{name}.lock"):
        if folder.exists() and not (folder / _METADATA).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise PersistenceError(
                f"{folder} exists and holds no saved model, so it is left as it is. Choose another folder, or empty it."
            )
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            fresh, old = Path(beside) / "fresh", Path(beside) / "old"
            fresh.mkdir()
            kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(kept, fresh / _TENSORS)
            about = json.dumps({"schema": SCHEMA, **metadata}, indent=1, allow_nan=False)
            (fresh / _METADATA).write_text(about + "\n")
            if folder.exists():
                folder.rename(old)
            try:
                fresh.rename(folder)
            except BaseException:
                if old.exists():
                    old.rename(folder)
                raise
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

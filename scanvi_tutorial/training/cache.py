"""Fitted models that chapters share: fit once, load ever after.

Used from book/05_training.md on. An entry is found by what it was made from (the code that fits, configurations, data),
so no chapter depends on another having run, and none is shown a model of older code. Code of figures, reports and
scores is no part of a fit.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pyro
import torch
from anndata import AnnData

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.inputs.writing import write_atomically
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.history import History
from scanvi_tutorial.training.loop import fit

_PACKAGE = Path(__file__).parents[1]
_CODE_OF_A_FIT = ("config.py", "inputs", "model", "training")  # by the import contracts, nothing else has a part in it


@usual_settings()
def fit_or_load(
    adata: AnnData,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    *,
    labels_key: str = "label",
    batch_key: str | None = None,
    folder: str | Path | None = None,
    unfinished: bool = False,
    after_step: Callable[[], object] | None = None,
) -> tuple[SCANVI, History]:
    """Return a fitted model of `adata` and its history, from the cache where the same fit was done before.

    The seed of `train_config` draws the initial weights too. A fit with `objective="unlabeled"` is found again
    whichever cells are labeled, if the names of the types are the same. Processes that want the same fit at once each
    make it, and the last to end keeps its own, which is equal.

    Args:
        adata: Raw counts in `X`, (cells, genes).
        model_config: `ModelConfig()` where it is None.
        train_config: `TrainConfig()` where it is None.
        labels_key: Column of `obs` with the cell types.
        batch_key: Column of `obs` with the batches, if the model is to tell them apart.
        folder: Where fitted models are kept; `cache_folder()` where it is None.
        unfinished: Whether a fit that is cut off is kept too, and goes on the next time; not for a fit that two
            processes may make at once.
        after_step: Called after each step of a fit that is made; see `fit`.

    Raises:
        InputError: Where counts, labels or batches cannot be used.
    """
    model_config, train_config = model_config or ModelConfig(), train_config or TrainConfig()
    folder = cache_folder() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(adata, labels_key, batch_key, model_config, train_config)
    saved, table = folder / f"{key}.safetensors", folder / f"{key}.json"
    try:
        model, history = SCANVI.load(saved), History(**json.loads(table.read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # nothing there, or nothing whole
        saved.unlink(missing_ok=True)
    else:
        model.labeled_fraction = float((check_labels(adata, labels_key)[1] >= 0).mean())  # of these cells
        return model, history
    model = SCANVI.from_anndata(adata, model_config, labels_key=labels_key, batch_key=batch_key, seed=train_config.seed)
    checkpoint = folder / f"{key}.checkpoint" if unfinished else None
    history = fit(model, adata, train_config, checkpoint=checkpoint, after_step=after_step)
    with write_atomically(table) as part:
        part.write_text(json.dumps(asdict(history)))
    model.save(saved)
    return model, history


def cache_folder() -> Path:
    """Return `_build/models` in a checkout of the book, else a folder of the user's cache."""
    root = _PACKAGE.parent
    if (root / "_toc.yml").is_file() and (root / "book").is_dir():
        return root / "_build" / "models"
    return Path(pooch.os_cache("scanvi_tutorial")) / "models"


def code_digest(*paths: Path) -> str:
    """Return a digest of Python files, and of those below folders, as code: comments and docstrings do not count."""
    digest = hashlib.sha256()
    for file in sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        digest.update(f"{file.name}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()[:24]


@cache  # the code of a process stays
def _code_of_a_fit() -> str:
    return code_digest(*(_PACKAGE / part for part in _CODE_OF_A_FIT))


def _key(
    adata: AnnData, labels_key: str, batch_key: str | None, model_config: ModelConfig, train_config: TrainConfig
) -> str:
    digest = hashlib.sha256(f"{torch.__version__} {pyro.__version__} {torch.get_num_threads()}".encode())
    digest.update(_code_of_a_fit().encode())
    digest.update(
        json.dumps([asdict(model_config), asdict(train_config), labels_key, batch_key], sort_keys=True).encode()
    )
    counts = check_counts(adata)
    for part in (counts.indptr, counts.indices, counts.data):
        digest.update(np.ascontiguousarray(part))
    digest.update(repr(counts.shape).encode())
    digest.update("\0".join(adata.var_names).encode())
    looked_at = [labels_key, batch_key]
    if train_config.objective == "unlabeled":  # such a fit is the same whichever cells have which label
        digest.update("\0".join(check_labels(adata, labels_key)[0]).encode())
        looked_at.remove(labels_key)
    for column in looked_at:
        if column not in adata.obs:
            continue
        digest.update(pd.util.hash_pandas_object(adata.obs[column], index=False, categorize=True).to_numpy().tobytes())
        if isinstance(adata.obs[column].dtype, pd.CategoricalDtype):
            digest.update("\0".join(map(str, adata.obs[column].cat.categories)).encode())
    return digest.hexdigest()[:24]

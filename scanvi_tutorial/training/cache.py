"""A cache of fitted models that several chapters use: each fit is made once and loaded afterward.

Used from book/05_training.md on. The key of an entry is a hash of the code that fits, the configurations and the data.
So no chapter depends on another having run, and no chapter loads a model of older code. Code of figures, reports and
scores does not enter the hash.
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
_CODE_OF_A_FIT = ("config.py", "inputs", "model", "training")  # the import contracts allow a fit to use only these


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
    """Return a fitted model of `adata` and its history, from the cache if the same fit was made before.

    The seed of `train_config` also draws the initial weights. The key of a fit with `objective="unlabeled"` does not
    depend on which cells are labeled, only on the names of the types. If several processes ask for the same fit at
    once, each makes it, and the last one to finish replaces the (equal) entries of the others.

    Args:
        adata: Raw counts in `X`, (cells, genes).
        model_config: `ModelConfig()` where it is None.
        train_config: `TrainConfig()` where it is None.
        labels_key: Column of `obs` with the cell types.
        batch_key: Column of `obs` with the batches, for a model with batches.
        folder: The folder of fitted models; `cache_folder()` where it is None.
        unfinished: Whether an interrupted fit is kept and continued by the next call; not for a fit that two
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
    except (OSError, ValueError, KeyError, TypeError):  # no entry, or a damaged one
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
    """Return `_build/models` in a checkout of the book, else a folder in the user's cache."""
    root = _PACKAGE.parent
    if (root / "_toc.yml").is_file() and (root / "book").is_dir():
        return root / "_build" / "models"
    return Path(pooch.os_cache("scanvi_tutorial")) / "models"


def code_digest(*paths: Path) -> str:
    """Return a digest of the code of Python files and folders; comments and docstrings do not change it."""
    digest = hashlib.sha256()
    for file in sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        digest.update(f"{file.name}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()[:24]


@cache  # the code does not change while a process runs
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
    if train_config.objective == "unlabeled":  # such a fit does not depend on the labels of cells
        digest.update("\0".join(check_labels(adata, labels_key)[0]).encode())
        looked_at.remove(labels_key)
    for column in looked_at:
        if column not in adata.obs:
            continue
        digest.update(pd.util.hash_pandas_object(adata.obs[column], index=False, categorize=True).to_numpy().tobytes())
        if isinstance(adata.obs[column].dtype, pd.CategoricalDtype):
            digest.update("\0".join(map(str, adata.obs[column].cat.categories)).encode())
    return digest.hexdigest()[:24]

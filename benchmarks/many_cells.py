"""Simulated counts as large and as sparse as those of Pyro's tutorial, written to disk in blocks.

The story of `st.load("simulated")`, with more of everything: 21,932 genes, of which a cell shows 541 on average, as the
20,000 cells of the tutorial do, and markers that are a small part of them. No array of cells × genes is ever made.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem
from scipy import sparse

import scanvi_tutorial as st
from scanvi_tutorial.data.simulated import type_shares

__all__ = ["CELLS", "GENES", "made"]

CELLS, GENES = 20_000, 21_932  # of Pyro's tutorial
TYPES, PER_LABEL, MARKER_SHARE = 4, 50, 0.02  # each type has markers of its own
LIBRARY, BASELINE_SCALE, EFFECT = (np.log(1_150.0), 0.35), 2.75, 1.0
CELLS_AT_ONCE = 500


def made(folder: Path, cells: int = CELLS, genes: int = GENES, *, seed: int = 0) -> Path:
    """Return the path of such a file, which is written unless it is there."""
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]  # cells of another simulator are other cells
    path = folder / f"simulated-{cells}x{genes}-{seed}-{made_by}.h5ad"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = [f"type {letter}" for letter in "ABCD"]
    shares = _shares(rng, genes)
    theta = rng.lognormal(np.log(3.0), 0.4, size=genes).astype(np.float32)
    truth = rng.choice(TYPES, size=cells, p=type_shares(TYPES))
    obs = pd.DataFrame({"truth": pd.Categorical.from_codes(truth, names)}, index=[f"cell{i}" for i in range(cells)])
    beside = path.with_suffix(".part")
    first = _block(rng, shares, theta, truth[:CELLS_AT_ONCE])
    seeded = AnnData(sparse.csr_matrix((cells, 1), dtype=np.float32), obs=obs)
    obs["label"] = st.seed_labels(seeded, PER_LABEL, "random", seed).obs["label"]
    AnnData(first, obs=obs[:CELLS_AT_ONCE], var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)])).write(beside)
    with h5py.File(beside, "a") as file:
        del file["obs"]
        write_elem(file, "obs", obs)
        matrix = anndata.io.sparse_dataset(file["X"])
        for start in range(CELLS_AT_ONCE, cells, CELLS_AT_ONCE):
            matrix.append(_block(rng, shares, theta, truth[start : start + CELLS_AT_ONCE]))
    beside.replace(path)
    return path


def _shares(rng: np.random.Generator, genes: int) -> np.ndarray:
    """Return the share of every gene in every type, float32 (types, genes)."""
    log = np.tile(rng.normal(0, BASELINE_SCALE, size=genes), (TYPES, 1))
    markers = rng.permutation(genes)[: TYPES * round(MARKER_SHARE * genes)].reshape(TYPES, -1)
    for code, own in enumerate(markers):
        log[code, own] += EFFECT * rng.uniform(0.5, 1.5, size=len(own))
    shares = np.exp(log)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def _block(rng: np.random.Generator, shares: np.ndarray, theta: np.ndarray, truth: np.ndarray) -> sparse.csr_matrix:
    """Return negative binomial counts of some cells."""
    library = rng.lognormal(*LIBRARY, size=(len(truth), 1)).astype(np.float32)
    rate = rng.standard_gamma(theta, size=(len(truth), len(theta)), dtype=np.float32)
    rate *= shares[truth] * (library / theta)
    return sparse.csr_matrix(rng.poisson(rate), dtype=np.float32)

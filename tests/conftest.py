"""Fixtures that several test files share: a few cells, a small model."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata import AnnData

from scanvi_tutorial.config import ModelConfig
from scanvi_tutorial.model.scanvi import SCANVI

LABELS = ["B", "NK", "T"]


@pytest.fixture
def tiny():
    """Return a function that makes counts (cells, 9) of three types, every third cell of a type labeled."""

    def make(cells: int = 30, seed: int = 0, labeled: int = 3) -> AnnData:
        rng = np.random.default_rng(seed)
        profiles = rng.gamma(1.0, 3.0, (3, 9)) + 0.2
        truth = rng.permutation(np.arange(cells) % 3)
        counts = rng.poisson(profiles[truth])
        counts[:, 0] += 1  # no cell is empty
        label = np.where(np.arange(cells) % labeled == 0, np.array(LABELS)[truth], "Unknown")
        return AnnData(
            scipy.sparse.csr_matrix(counts.astype(np.float32)),
            obs=pd.DataFrame(
                {
                    "truth": pd.Categorical.from_codes(truth, LABELS),
                    "label": pd.Categorical(label, categories=[*LABELS, "Unknown"]),
                },
                index=[f"cell{i}" for i in range(cells)],
            ),
            var=pd.DataFrame(index=[f"gene{g}" for g in range(9)]),
        )

    return make


@pytest.fixture
def small_config():
    """Return sizes that train in a blink, without dropout, whose noise an oracle cannot follow."""
    return ModelConfig(n_latent=2, gene_hidden=(8,), label_hidden=(6,), classifier_hidden=(5,), dropout_rate=0.0)


@pytest.fixture
def small_model(tiny, small_config):
    """Return an untrained model of `tiny()`."""
    return SCANVI.from_anndata(tiny(), small_config)

"""Cells of three types that any method should tell apart, and tables of probabilities over those types."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

TYPES = ["T", "B", "NK"]  # on purpose not in alphabetical order: scikit-learn sorts, we don't


def three_types(seeds=5):
    """Return 90 cells of three types that differ by six genes each; the first few of each type are seeds."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 30)
    rate = np.ones((3, 24))
    for k in range(3):
        rate[k, 6 * k : 6 * k + 6] = 9
    counts = rng.poisson(rate[truth])
    label = np.where(np.arange(90) % 30 < seeds, np.array(TYPES)[truth], "Unknown")
    obs = pd.DataFrame(
        {
            "truth": pd.Categorical.from_codes(truth, TYPES),
            "label": pd.Categorical(label, categories=[*TYPES, "Unknown"]),
        },
        index=[f"cell{i}" for i in range(90)],
    )
    markers = {name: {"positive": [f"g{g}" for g in range(6 * k, 6 * k + 6)]} for k, name in enumerate(TYPES)}
    return AnnData(
        sp.csr_matrix(counts, dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=[f"g{i}" for i in range(24)]),
        uns={"markers": markers},
    )


def table(rows, columns=TYPES):
    """Return a table of probabilities, a row a cell."""
    return pd.DataFrame(rows, columns=columns, index=[f"cell{i}" for i in range(len(rows))])

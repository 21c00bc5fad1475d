"""What tests of ensembles and of methods share."""

import pytest

from scanvi_tutorial.data import load
from scanvi_tutorial.data.seeds import seed_labels


@pytest.fixture(scope="module")
def adata():
    """Return simulated cells with ten seeds of each type, drawn at random; no test changes them."""
    return seed_labels(load("simulated"), per_label=10, how="random", seed=0)

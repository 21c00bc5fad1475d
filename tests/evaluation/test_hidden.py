"""Labels that are hidden, against a method whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scanvi_tutorial.evaluation import cross_fit
from scanvi_tutorial.inputs import InputError


def cells(codes, names=("B", "NK", "T")):
    """Return an AnnData whose label column holds `codes`, -1 for none."""
    obs = pd.DataFrame({"label": pd.Categorical.from_codes(codes, list(names))})
    obs.index = [f"cell{i}" for i in range(len(codes))]
    return AnnData(np.ones((len(codes), 4), dtype=np.float32), obs=obs)


def echo(adata, *, labels_key="label", seed=0):
    """A method that knows the label it is shown, and says equal probabilities otherwise."""
    names = list(adata.obs[labels_key].cat.categories)
    codes = adata.obs[labels_key].cat.codes.to_numpy()
    table = np.full((adata.n_obs, len(names)), 1 / len(names))
    table[codes >= 0] = np.eye(len(names))[codes[codes >= 0]]
    return pd.DataFrame(table, adata.obs_names, names)


def test_no_seed_is_judged_by_a_fit_that_saw_its_label():
    adata = cells(np.array([0] * 10 + [1] * 7 + [2] * 5 + [-1] * 8))
    held_out = cross_fit(echo, adata).held_out
    assert list(held_out.index) == [f"cell{i}" for i in range(22)]
    np.testing.assert_allclose(held_out, 1 / 3)


def test_every_fit_but_one_knows_a_seed_and_the_mean_says_so():
    adata = cells(np.array([0, 1, 2] * 5))
    part = cross_fit(echo, adata)
    assert len(part.fits) == 5
    own = part.probabilities.to_numpy()[np.arange(15), adata.obs["label"].cat.codes]
    np.testing.assert_allclose(own, (4 + 1 / 3) / 5)


def test_a_single_seed_is_never_hidden_and_a_type_never_lost():
    adata = cells(np.array([0, 1, 1, 1, 2, 2]))
    part = cross_fit(lambda a, **k: echo(a, **k) if a.obs["label"].cat.codes.max() == 2 else 1 / 0, adata)
    assert "cell0" not in part.held_out.index
    assert len(part.held_out) == 5


def test_the_given_cells_are_left_as_they_were():
    adata = cells(np.array([0, 1, 2, -1] * 4))
    before = adata.obs["label"].copy()
    cross_fit(echo, adata)
    pd.testing.assert_series_equal(adata.obs["label"], before)


def test_every_fit_has_a_seed_of_its_own():
    asked = []
    for seed in (0, 1):
        cross_fit(lambda a, seed, **k: asked.append(seed) or echo(a, **k), cells(np.array([0, 1, 2] * 5)), seed=seed)
    assert len(set(asked)) == 10


@pytest.mark.filterwarnings("ignore:Observation names")
def test_cells_of_one_name_are_told_apart():
    adata = cells(np.array([0, 1, 2, -1] * 5))
    adata.obs_names = ["cell"] * adata.n_obs
    assert cross_fit(echo, adata).probabilities.shape == (20, 3)


def test_an_answer_without_all_cells_or_labels_is_refused():
    adata = cells(np.array([0, 1, 2, 0, 1, 2]))
    for spoil in (lambda table: table.iloc[::-1], lambda table: table[["B", "T"]]):
        with pytest.raises(InputError, match="one row for each cell"):
            cross_fit(lambda a, spoil=spoil, **k: spoil(echo(a, **k)), adata)


def test_nothing_to_hide_is_refused():
    with pytest.raises(InputError, match="two seed cells"):
        cross_fit(echo, cells(np.array([0, 1, 2, -1, -1])))

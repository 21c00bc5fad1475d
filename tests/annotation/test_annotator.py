"""All that was learned, in one file: read back to the bit, the same answer for the same cells, and reasons for it."""

import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.guarantee import Calibration
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.annotation.reasons import evidence
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.inputs import InputError, InputWarning
from scanvi_tutorial.model.persistence import PersistenceError

SMALL = ModelConfig(n_latent=4, gene_hidden=(16,), label_hidden=(8,), classifier_hidden=(8,))
SHORT = TrainConfig(max_epochs=30, batch_size=64)
ASKED = {"coverage": 0.8, "reject": 0.1}
COARSE = {"A or B": ["type A", "type B"]}
CALIBRATION = ["probabilities", "codes", "strangeness"]
WRITTEN = ["scanvi_label", "scanvi_probability", "scanvi_p_known", "scanvi_set", "scanvi_set_size", "scanvi_coarse"]


def cells(seed=0):
    """Return simulated cells whose obs["kind"] names the type of some, and of one more that it is A or B."""
    adata = load("simulated", cells=240, genes=40, effect=4.0, seed=seed)
    del adata.obs["label"], adata.uns["markers"], adata.uns["seeds"]
    truth = adata.obs["truth"].astype(str)
    adata.obs["kind"] = truth.where(truth.groupby(truth).cumcount() < 12)
    adata.obs.loc[adata.obs_names[adata.obs["kind"].isna() & (truth == "type A")][0], "kind"] = "A or B"
    return adata


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a file of what was learned, and the cells as they were annotated; no test changes them."""
    path, adata = tmp_path_factory.mktemp("learned") / "model", cells()
    annotate(adata, "kind", coarse=COARSE, model=path, fits=2, model_config=SMALL, train_config=SHORT, **ASKED)
    return path, adata


@pytest.fixture(scope="module")
def predicted(learned):
    """Return the same cells without a label, named by what was learned."""
    adata = cells()
    del adata.obs["kind"]
    predict(learned[0], adata, **ASKED)
    return adata


def test_what_was_saved_is_read_back_to_the_bit(learned, tmp_path):
    annotator = Annotator.load(learned[0])
    annotator.save(tmp_path / "again")
    first, second = (load_file(path) for path in (learned[0], tmp_path / "again"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert (tmp_path / "again").read_bytes() == learned[0].read_bytes()
    about = learned[1].uns["scanvi"]
    assert list(annotator.label_names) == list(about["label_names"])
    assert annotator.genes == list(about["genes"])
    assert dict(annotator.coarse) == COARSE
    assert len(annotator.fits) == 2
    assert len(annotator.calibration.codes) == 48


def test_numbers_lose_no_digit_in_the_file(learned, tmp_path):
    rng, annotator = np.random.default_rng(0), Annotator.load(learned[0])
    calibration = Calibration(rng.random((9, 4)), rng.integers(4, size=9), rng.random(9))
    parameters = replace(annotator.parameters, shares=rng.random(4), means=[rng.random((4, 3)) for _ in range(3)])
    exponents = (1 / 3, rng.random())
    changed = replace(annotator, calibration=calibration, parameters=parameters, exponents=exponents)
    again = Annotator.load(changed.save(tmp_path / "changed"))
    assert tuple(again.exponents) == exponents
    pairs = [(getattr(again.calibration, name), getattr(calibration, name)) for name in CALIBRATION]
    pairs += [(again.parameters.shares, parameters.shares), *zip(again.parameters.means, parameters.means, strict=True)]
    for read, saved in pairs:
        assert read.dtype == saved.dtype
        np.testing.assert_array_equal(read, saved)


def test_columns_are_those_that_are_promised_and_agree_with_each_other(learned):
    obs, p = learned[1].obs, learned[1].obsm["scanvi_probabilities"]
    assert list(obs.columns[-6:]) == WRITTEN
    names = [set(text.split(" or ")) for text in obs["scanvi_set"].astype(str)]
    assert [len(own) for own in names] == obs["scanvi_set_size"].tolist()
    told = obs["kind"].isin(learned[1].uns["scanvi"]["label_names"])
    assert (obs["scanvi_set"][told].astype(str) == obs["kind"][told]).all()
    refused = obs["scanvi_label"] == "none of these"
    np.testing.assert_array_equal(refused, (obs["scanvi_p_known"] <= 0.1) & ~told)
    assert obs["scanvi_probability"].isna().equals(refused)
    free = ~told & ~refused
    assert all(label in own for label, own in zip(obs["scanvi_label"][free], np.array(names)[free], strict=True))
    first = [text.split(" or ")[0] for text in obs["scanvi_set"][~told].astype(str)]
    assert first == p[~told].idxmax(axis=1).tolist()
    coarse = obs["scanvi_coarse"].astype(str)
    for own, name in zip(names, coarse, strict=True):
        expected = next(iter(own)) if len(own) == 1 else "A or B" if own == {"type A", "type B"} else ""
        assert name == expected
    assert learned[1].uns["scanvi"]["guarantee"]["refused"] == refused.sum()
    assert set(learned[1].uns["scanvi"]["strangers"]["cell"]) == set(obs.index[refused])


def test_sets_of_cells_without_a_label_hold_the_truth_as_often_as_asked(learned):
    obs = learned[1].obs[learned[1].obs["kind"].isna()]
    held = [
        truth in text.split(" or ") for truth, text in zip(obs["truth"], obs["scanvi_set"].astype(str), strict=True)
    ]
    assert np.mean(held) > 0.8


def test_without_being_asked_there_are_no_sets_and_no_cell_is_refused(learned, predicted):
    adata = predicted.copy()
    predict(learned[0], adata)
    assert set(WRITTEN) & set(adata.obs) == {"scanvi_label", "scanvi_probability", "scanvi_p_known"}
    assert adata.obs["scanvi_probability"].notna().all()
    assert "strangers" not in adata.uns["scanvi"]


def test_the_same_cells_are_named_alike_and_are_known_as_well(learned, predicted):
    free = learned[1].obs["kind"].isna()
    ours, theirs = (adata.obsm["scanvi_probabilities"][free].idxmax(axis=1) for adata in (learned[1], predicted))
    assert (ours == theirs).mean() >= 0.99
    ours, theirs = (adata.obs["scanvi_p_known"][free] for adata in (learned[1], predicted))
    assert spearmanr(ours, theirs).statistic > 0.95
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    np.testing.assert_array_equal(predicted.obsm["X_scanvi"], learned[1].obsm["X_scanvi"])


def test_the_file_and_what_is_read_from_it_say_the_same(learned, predicted):
    adata = cells()
    predict(Annotator.load(learned[0]), adata, **ASKED)
    pd.testing.assert_frame_equal(adata.obs[WRITTEN], predicted.obs[WRITTEN])


def test_a_file_of_one_fit_is_refused_and_a_file_that_lacks_a_part_too(learned, tmp_path):
    Annotator.load(learned[0]).fits[0].save(tmp_path / "fit")
    for use in (Annotator.load, lambda path: predict(path, cells()), lambda path: evidence(path, cells(), [0])):
        with pytest.raises(PersistenceError, match="a single fit"):
            use(tmp_path / "fit")
    data = learned[0].read_bytes()
    (tmp_path / "cut").write_bytes(data[:-100])
    with pytest.raises(PersistenceError, match="no saved annotation"):
        Annotator.load(tmp_path / "cut")
    (tmp_path / "other").write_bytes(data.replace(b"exponents", b"exponentz", 1))
    with pytest.raises(PersistenceError, match="holds no annotation"):
        Annotator.load(tmp_path / "other")


@pytest.mark.parametrize("block", [10_000, 100])
def test_cells_on_disk_are_named_as_those_in_memory(learned, predicted, tmp_path, monkeypatch, block):
    monkeypatch.setattr("scanvi_tutorial.annotation.new_cells._CELLS_AT_ONCE", block)
    cells().write_h5ad(tmp_path / "cells.h5ad")
    before = (tmp_path / "cells.h5ad").read_bytes()
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    predict(learned[0], adata, **ASKED)
    for name in WRITTEN[:1] + WRITTEN[3:]:
        assert (adata.obs[name].astype(str) == predicted.obs[name].astype(str)).all()
    for name in WRITTEN[1:3]:
        np.testing.assert_allclose(adata.obs[name], predicted.obs[name], atol=1e-6)
    np.testing.assert_allclose(adata.obsm["X_scanvi"], predicted.obsm["X_scanvi"], atol=1e-5)
    adata.file.close()
    assert (tmp_path / "cells.h5ad").read_bytes() == before


def test_what_is_said_of_one_cell_is_what_is_said_of_it_among_many(learned, predicted):
    for row in (0, 57, 239):
        one = cells()[[row]].copy()
        predict(learned[0], one, **ASKED)
        table = predicted.obsm["scanvi_probabilities"].iloc[[row]]
        np.testing.assert_allclose(one.obsm["scanvi_probabilities"], table, atol=1e-6)
        assert one.obs["scanvi_p_known"].iloc[0] == pytest.approx(predicted.obs["scanvi_p_known"].iloc[row], abs=1e-6)
        for name in ("scanvi_label", "scanvi_set", "scanvi_coarse"):
            assert one.obs[name].iloc[0] == predicted.obs[name].iloc[row]


def test_cells_whose_counts_are_like_no_others_are_refused_more_often(learned, predicted):
    """Each gene is as common as another gene is in the cells that were learned from."""
    adata = cells()
    adata.X = adata.X.toarray()[:, np.random.default_rng(0).permutation(40)]
    predict(learned[0], adata, **ASKED)
    strange, known = (some.obs["scanvi_label"] == "none of these" for some in (adata, predicted))
    assert known.mean() < 0.2
    assert strange.mean() > 2 * known.mean()


def log_likelihood(model, x, state):
    """Return the mean over cells of log p(x | state, l)."""
    model.eval()
    with torch.no_grad():
        ell = model.z2l_encoder(x)[2].exp().double()
        return (
            model.counts(torch.as_tensor(state, dtype=torch.float32).expand(len(x), -1), ell).log_prob(x).sum(1).mean()
        )


def of_type(adata, kind, number=20):
    return np.flatnonzero((adata.obs["truth"] == kind).to_numpy())[:number]


def test_evidence_adds_up_to_the_difference_of_log_likelihoods_in_the_mean_states_of_both_types(learned):
    path, adata = learned
    annotator, rows = Annotator.load(path), of_type(adata, "type A")
    found = evidence(annotator, cells(), rows, name="type A", rival="type C")
    assert found.attrs == {"name": "type A", "rival": "type C"}
    assert found.is_monotonic_decreasing
    assert set(found.index) == set(annotator.genes)
    own = annotator.parameters
    states = own.means[0] * own.units[0] + own.origins[0]
    x = torch.as_tensor(adata[rows, annotator.genes].X.toarray())
    names = list(annotator.label_names)
    expected = [log_likelihood(annotator.fits[0], x, states[names.index(kind)]) for kind in ("type A", "type C")]
    assert found.sum() == pytest.approx(float(expected[0] - expected[1]), abs=1e-3)
    with pytest.warns(InputWarning, match="'type A'"):
        turned = evidence(annotator, cells(), rows, name="type C", rival="type A")
    np.testing.assert_allclose(turned[found.index], -found, atol=1e-6)


def test_evidence_takes_the_most_probable_type_and_the_next_where_none_is_named(learned, predicted):
    rows = of_type(predicted, "type B")
    order = predicted.obsm["scanvi_probabilities"].iloc[rows].mean().sort_values(ascending=False).index
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        found = evidence(learned[0], cells(), rows)
        other = evidence(learned[0], cells(), rows, rival=order[0])
    assert found.attrs == {"name": order[0], "rival": order[1]}
    assert order[0] == "type B"
    assert other.attrs == {"name": order[1], "rival": order[0]}


def test_the_evidence_of_a_type_is_that_of_the_cells_that_are_named_so_and_not_refused(learned):
    adata = learned[1]
    refused = (adata.obs["scanvi_label"] == "none of these").to_numpy()
    most = adata.obsm["scanvi_probabilities"].idxmax(axis=1).to_numpy()
    table = adata.uns["scanvi"]["evidence"]
    assert refused.any()
    assert set(table.index) == set(most[~refused])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        for name, row in table.iterrows():
            own = (most == name) & ~refused
            found = evidence(learned[0], cells(), own, name=name, rival=row["rival"])
            assert row["nats"] == pytest.approx(found.sum(), rel=1e-4)


def test_evidence_takes_names_positions_and_masks_alike(learned):
    adata, rows = cells(), of_type(cells(), "type A", 7)
    asked = [rows, adata.obs_names[rows], np.isin(np.arange(240), rows), list(adata.obs_names[rows]), rows - 240]
    tables = [evidence(learned[0], adata, some, name="type A", rival="type B") for some in asked]
    for table in tables[1:]:
        pd.testing.assert_series_equal(table, tables[0])
    one = [evidence(learned[0], adata, some, name="type A", rival="type B") for some in (adata.obs_names[3], 3, [3])]
    pd.testing.assert_series_equal(one[0], one[1])
    pd.testing.assert_series_equal(one[0], one[2])


def test_evidence_of_cells_on_disk_is_that_of_cells_in_memory(learned, tmp_path):
    adata, rows = cells(), of_type(cells(), "type A", 7)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    ours, theirs = (evidence(learned[0], some, rows, name="type A", rival="type B") for some in (adata, backed))
    backed.file.close()
    pd.testing.assert_series_equal(ours, theirs)


@pytest.mark.parametrize(
    ("some", "types", "words"),
    [
        ([0], {"name": "type Q"}, "no type 'type Q'"),
        ([0], {"rival": "A or B"}, "no type 'A or B'"),
        ([240], {}, "240 cells"),
        (np.ones(5, dtype=bool), {}, "240 cells"),
        (["cell nowhere"], {}, "no cell 'cell nowhere'"),
        ([], {}, "No cell is named"),
        (cells()[:5], {}, "no AnnData"),
        (np.zeros(240, dtype=bool), {}, "No cell is named"),
    ],
)
def test_evidence_refuses_cells_and_types_that_are_not_there(learned, some, types, words):
    with pytest.raises(InputError, match=words):
        evidence(learned[0], cells(), some, **types)

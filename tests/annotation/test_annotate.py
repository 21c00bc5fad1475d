"""One call names cells, says how it came to that, and leaves alone what it was not asked to change."""

import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scanvi_tutorial.annotation.checks import _contradictions
from scanvi_tutorial.annotation.combined import Answer
from scanvi_tutorial.annotation.likeness import Likeness
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.evaluation import cross_fit, logistic_regression, scored_cells, scores
from scanvi_tutorial.inputs import InputError, InputWarning
from scanvi_tutorial.inputs.batches import ConfoundedBatchWarning
from scanvi_tutorial.model.persistence import PersistenceError

SMALL = ModelConfig(n_latent=4, gene_hidden=(16,), label_hidden=(8,), classifier_hidden=(8,))
SHORT = TrainConfig(max_epochs=4, batch_size=64)
QUICK = {"model_config": SMALL, "train_config": SHORT, "fits": 2}
LONGER = QUICK | {"train_config": replace(SHORT, max_epochs=40)}


def cells(seeds=8, seed=0, **options):
    """Return simulated cells whose obs["kind"] names the type of a few; the truth stands beside it."""
    adata = load("simulated", cells=160, genes=40, seed=seed, **options)
    del adata.obs["label"], adata.uns["markers"], adata.uns["seeds"]
    truth = adata.obs["truth"].astype(str)
    rank = truth.groupby(truth).cumcount()
    adata.obs["kind"] = truth.where(rank < seeds)
    return adata


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return cells as they came, and as they were annotated."""
    adata = cells()
    named = adata.copy()
    annotate(named, "kind", model=tmp_path_factory.mktemp("model") / "kept", **QUICK)
    return adata, named


def test_every_documented_key_is_there_and_nothing_else_changed(pair):
    before, after = pair
    assert set(after.obs) - set(before.obs) == {"scanvi_label", "scanvi_probability", "scanvi_p_known"}
    assert set(after.obsm) == {"scanvi_probabilities", "X_scanvi"}
    assert set(after.uns) - set(before.uns) == {"scanvi"}
    assert (after.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(after.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(after.var, before.var)
    assert {
        *("compared", "history", "held_out", "warnings", "parameters"),
        *("genes", "label_names", "versions"),
        *("shares", "doubtful_labels", "likeness", "exponents", "guarantee", "evidence"),
    } <= set(after.uns["scanvi"])


def test_coarse_labels_help_and_are_no_types(tmp_path):
    adata = cells(seeds=6, effect=4.0)
    truth, free = adata.obs["truth"].astype(str), adata.obs["kind"].isna()
    coarse = free & truth.isin(["type A", "type B"]) & (np.arange(160) % 2 == 0)
    adata.obs.loc[coarse, "kind"] = "A or B"
    annotate(adata, "kind", coarse={"A or B": ["type A", "type B"]}, **LONGER)
    assert "A or B" not in adata.uns["scanvi"]["label_names"]
    named = adata.obs["scanvi_label"].astype(str)
    assert named[coarse].isin(["type A", "type B"]).mean() > 0.95
    assert (named == truth)[free].mean() > 0.8
    adata.write_h5ad(tmp_path / "named.h5ad")


def test_doubtful_labels_are_listed_and_left_as_they_are():
    adata = cells(seeds=20, effect=6.0)
    rows = np.flatnonzero(adata.obs["kind"] == "type A")[:4]
    wrong = adata.obs_names[rows]
    adata.obs.loc[wrong, "kind"] = "type B"
    annotate(adata, "kind", **LONGER)
    table = adata.uns["scanvi"]["doubtful_labels"]
    assert len(set(wrong) & set(table["cell"])) >= 3
    assert len(table) <= 8
    found = table.set_index("cell").loc[[cell for cell in wrong if cell in set(table["cell"])]]
    assert set(found["given"]) == {"type B"}
    assert set(found["more_probable"]) == {"type A"}
    assert (adata.obs.loc[wrong, "scanvi_label"] == "type B").all()


def test_a_coarse_label_that_counts_contradict_is_doubtful():
    adata = cells(seeds=20, effect=6.0)
    free = adata.obs["kind"].isna() & (adata.obs["truth"] == "type C")
    wrong = adata.obs_names[np.flatnonzero(free)[:3]]
    right = adata.obs_names[np.flatnonzero(adata.obs["kind"].isna() & (adata.obs["truth"] == "type A"))[:3]]
    adata.obs.loc[[*wrong, *right], "kind"] = "A or B"
    annotate(adata, "kind", coarse={"A or B": ["type A", "type B"]}, **LONGER)
    table = adata.uns["scanvi"]["doubtful_labels"].set_index("cell")
    found = table[table["given"] == "type A or type B"]
    assert set(found.index) == set(wrong)
    assert set(found["more_probable"]) == {"type C"}


def test_rows_are_probabilities_and_the_probability_is_that_of_the_label(pair):
    table, obs = pair[1].obsm["scanvi_probabilities"], pair[1].obs
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    own = [table.loc[cell, label] for cell, label in obs["scanvi_label"].items()]
    np.testing.assert_array_equal(own, obs["scanvi_probability"])
    assert list(table.index) == list(obs.index)


def test_a_cell_without_a_label_gets_the_most_probable_one_and_a_labeled_cell_keeps_its_own(pair):
    obs, table = pair[1].obs, pair[1].obsm["scanvi_probabilities"]
    told = obs["kind"].notna()
    assert (obs["scanvi_label"][told].astype(str) == obs["kind"][told]).all()
    assert (obs["scanvi_label"][~told].astype(str) == table[~told].idxmax(axis=1)).all()


def test_labels_are_overwritten_where_the_user_says_so():
    adata = cells()
    wrong = adata.obs_names[adata.obs["truth"] == "type A"][0]
    adata.obs.loc[wrong, "kind"] = "type D"
    annotate(adata, "kind", keep_labels=False, **QUICK)
    best = adata.obsm["scanvi_probabilities"].idxmax(axis=1)
    assert (adata.obs["scanvi_label"].astype(str) == best).all()


def test_hidden_labels_are_said_to_be_found_as_often_as_they_are_and_by_which_method(pair):
    about = pair[1].uns["scanvi"]
    held_out, names = about["held_out"], about["label_names"]
    right = (names[held_out["probabilities"].argmax(axis=1)] == held_out["given"]).mean()
    assert about["compared"]["this annotation"]["accuracy"] == pytest.approx(right)
    told = pair[1].copy()
    told.obs["label"] = told.obs["kind"]
    alone = cross_fit(logistic_regression, told).held_out
    kind = told.obs["kind"][alone.index].astype(str)
    of_label = [alone.loc[cell, label] for cell, label in kind.items()]
    said = about["compared"]["logistic regression"]
    assert said["accuracy"] == pytest.approx((alone.idxmax(axis=1) == kind).mean())
    assert said["log_loss"] == pytest.approx(-np.log(of_label).mean(), rel=1e-6)
    assert set(about["compared"]) == {
        "this annotation",
        *("logistic regression", "label spreading", "the same on principal components"),
    }


def test_what_is_said_of_the_fits_is_what_they_were(pair):
    said = pair[1].uns["scanvi"]["parameters"]
    assert said["train"]["objective"] == "unlabeled"
    assert said["model"]["norm"] == "layer"
    assert (said["fits"], said["norms"]) == (2, "layer, batch")


def test_saving_draws_no_random_number(tmp_path):
    before = torch.get_rng_state()
    annotate(cells(), "kind", model=tmp_path / "model", **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_states_know_no_label(pair):
    adata = cells()
    adata.obs["kind"] = np.random.default_rng(0).permutation(adata.obs["kind"])
    annotate(adata, "kind", **QUICK)
    np.testing.assert_array_equal(adata.obsm["X_scanvi"], pair[1].obsm["X_scanvi"])


def test_the_kept_model_names_the_same_cells_alike(tmp_path):
    adata = cells()
    annotate(adata, "kind", model=tmp_path / "model", **LONGER)
    new = cells()
    predict(tmp_path / "model", new)
    np.testing.assert_array_equal(new.obsm["X_scanvi"], adata.obsm["X_scanvi"])
    free = adata.obs["kind"].isna()
    alike = adata.obsm["scanvi_probabilities"].idxmax(axis=1) == new.obsm["scanvi_probabilities"].idxmax(axis=1)
    assert alike[free].mean() >= 0.99


def test_sets_refusals_and_parents_are_written_where_asked_and_names_stay(pair, tmp_path):
    adata = cells()
    coarse = {"A or B": ["type A", "type B"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # no cell has the coarse label
        annotate(adata, "kind", coarse=coarse, coverage=0.9, reject=0.2, **QUICK)
    obs, free = adata.obs, adata.obs["kind"].isna()
    names = list(adata.uns["scanvi"]["label_names"])
    assert (obs["scanvi_set"].str.split(" or ").str.len() == obs["scanvi_set_size"]).all()
    refused = obs["scanvi_label"] == "none of these"
    assert refused.equals((obs["scanvi_p_known"] <= 0.2) & free)
    assert refused.sum() == adata.uns["scanvi"]["guarantee"]["refused"] == len(adata.uns["scanvi"]["strangers"])
    assert obs["scanvi_probability"].isna().equals(refused)
    before = pair[1].obs["scanvi_label"]
    assert (obs["scanvi_label"].astype(str) == before.astype(str))[~refused].all()
    first = obs["scanvi_set"].astype(str).str.split(" or ").str[0]
    assert (first == before.astype(str)).all()
    assert (obs["scanvi_set_size"][~free] == 1).all()
    inside = obs["scanvi_set"].astype(str).isin(["type A or type B", "type B or type A"])
    assert (obs["scanvi_coarse"][inside] == "A or B").all()
    assert (obs["scanvi_coarse"][obs["scanvi_set_size"] == 1] == first[obs["scanvi_set_size"] == 1]).all()
    assert set(adata.uns["scanvi"]["guarantee"]["by_type"].index) == set(names)
    adata.write_h5ad(tmp_path / "a.h5ad")
    annotate(adata, "kind", **QUICK)
    assert not {"scanvi_set", "scanvi_set_size", "scanvi_coarse"} & set(adata.obs)  # they were of another answer


@pytest.mark.parametrize("asked", [{"coverage": 1}, {"coverage": 90}, {"reject": 0}, {"reject": True}, {"reject": "x"}])
def test_what_is_no_share_is_refused_before_anything_is_computed(asked):
    with pytest.raises(InputError, match="between 0 and 1"):
        annotate(cells(), "kind", **asked)


def test_it_names_far_more_cells_rightly_than_chance(pair):
    named = pair[1].copy()
    assert scores(named, labels_key="kind")["accuracy"] > 0.6
    assert scored_cells(named, "kind").sum() == 160 - 32


def test_the_result_survives_a_file(pair, tmp_path):
    pair[1].write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(again.obsm["scanvi_probabilities"], pair[1].obsm["scanvi_probabilities"])
    about, was = again.uns["scanvi"], pair[1].uns["scanvi"]
    np.testing.assert_array_equal(about["held_out"]["probabilities"], was["held_out"]["probabilities"])
    assert list(about["history"]["loss"]) == list(was["history"]["loss"])
    assert about["parameters"]["model"]["n_latent"] == 4


@pytest.mark.filterwarnings("ignore:The set_bad function")  # scanpy's own call
def test_scanpy_draws_the_result_at_once(pair):
    import matplotlib.pyplot as plt
    import scanpy as sc

    drawn = pair[1].copy()  # scanpy writes its colors into what it draws
    axes = sc.pl.embedding(drawn, "X_scanvi", color="scanvi_label", show=False)
    assert {text.get_text() for text in axes.get_legend().get_texts()} <= set(drawn.obs["truth"].cat.categories)
    sc.pl.embedding(drawn, "X_scanvi", color="scanvi_probability", show=False)
    plt.close("all")


def test_layer_unlabeled_numbers_and_sparse_formats_change_nothing_of_the_answer(pair):
    twin = cells()
    twin.layers["raw"] = sparse.csc_matrix(twin.X, dtype=np.int64)
    twin.X = np.log1p(twin.X.toarray())
    codes = pd.Categorical(twin.obs["kind"]).codes.astype(int)
    twin.obs["kind"] = np.where(codes < 0, 99, codes)
    annotate(twin, "kind", layer="raw", unlabeled_category=99, **QUICK)
    ours, theirs = (adata.obsm["scanvi_probabilities"].to_numpy() for adata in (pair[1], twin))
    np.testing.assert_array_equal(ours, theirs)
    assert list(twin.obsm["scanvi_probabilities"]) == ["0", "1", "2", "3"]


def test_a_backed_file_is_annotated_and_left_as_it_is(pair, tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    before = (tmp_path / "a.h5ad").read_bytes()
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    annotate(adata, "kind", **QUICK)
    np.testing.assert_array_equal(adata.obs["scanvi_label"], pair[1].obs["scanvi_label"])
    adata.file.close()
    assert (tmp_path / "a.h5ad").read_bytes() == before


def test_a_class_with_one_seed_is_learned_and_said_to_be_untested():
    adata = cells()
    lonely = adata.obs["kind"] == "type D"
    adata.obs.loc[adata.obs_names[lonely][1:], "kind"] = None
    annotate(adata, "kind", **QUICK)
    assert "type D" in adata.obsm["scanvi_probabilities"]
    assert any("type D: a single labeled cell" in text for text in adata.uns["scanvi"]["warnings"])


def test_with_one_seed_a_type_nothing_can_be_hidden_and_a_warning_says_so():
    adata = cells(seeds=1)
    annotate(adata, "kind", **QUICK)
    about = adata.uns["scanvi"]
    assert "compared" not in about
    assert len(about["held_out"]["cells"]) == 0
    assert any("No type has two labeled cells" in text for text in about["warnings"])


def test_labels_that_say_nothing_are_noticed_without_the_truth():
    """Hidden labels that are drawn without looking at the answer are shuffled ones; with it they are honest ones."""
    rng, names = np.random.default_rng(0), ["A", "B", "C", "D"]
    said = pd.DataFrame(rng.dirichlet(np.full(4, 0.5), size=200), columns=names)
    shuffled = rng.integers(4, size=200)
    honest = np.array([rng.choice(4, p=row) for row in said.to_numpy()])
    answers = [
        Answer(said, said, codes, (1.0, 0.0), pd.DataFrame(), said.to_numpy(), Likeness(0.5, 0.1), [], None, codes, [])
        for codes in (shuffled, honest)
    ]
    told = [" ".join(_contradictions(names, answer)) for answer in answers]
    assert "can hardly be read off" in told[0]
    assert "can hardly be read off" not in told[1]


def test_a_single_label_that_is_wrong_is_named():
    adata = cells(seeds=25, effect=6.0)
    wrong = adata.obs_names[(adata.obs["kind"] == "type A").to_numpy()][3]
    adata.obs.loc[wrong, "kind"] = "type B"
    annotate(adata, "kind", **LONGER)
    assert any(f"{wrong} (type B)" in text for text in adata.uns["scanvi"]["warnings"])


def test_a_batch_that_gives_the_type_away_is_warned_of_once():
    adata = cells()
    adata.obs["run"] = np.where(adata.obs["truth"].isin(["type A", "type B"]), "one", "two")
    with pytest.warns(ConfoundedBatchWarning, match="hardly be told apart") as caught:
        annotate(adata, "kind", batch_key="run", **QUICK)
    assert len(caught) == 1
    assert any("hardly be told apart" in text for text in adata.uns["scanvi"]["warnings"])


def test_a_batch_that_crosses_types_is_used_without_a_warning():
    adata = cells(batches=2)
    annotate(adata, "kind", batch_key="batch", **QUICK)
    assert adata.uns["scanvi"]["parameters"]["batch_key"] == "batch"
    assert not any("mutual information" in text for text in adata.uns["scanvi"]["warnings"])


def test_a_marker_table_of_another_tool_is_passed_over():
    adata = cells()
    adata.uns["markers"] = {"CD4": ["A", "B"]}
    annotate(adata, "kind", **QUICK)
    assert any("passed over" in text for text in adata.uns["scanvi"]["warnings"])


def test_genes_never_seen_are_left_out_and_counted():
    adata = cells()
    counts = adata.X.toarray()
    counts[:, 3] = 0
    adata.X = counts
    annotate(adata, "kind", **QUICK)
    assert adata.var_names[3] not in adata.uns["scanvi"]["genes"]
    assert any(text.startswith("1 of 40 genes have no count") for text in adata.uns["scanvi"]["warnings"])


def test_a_batch_that_all_cells_share_is_passed_over_and_said():
    plain, one = cells(), cells()
    one.obs["run"] = "the only one"
    annotate(plain, "kind", **QUICK)
    with pytest.warns(InputWarning, match="All cells are of one batch"):
        annotate(one, "kind", batch_key="run", **QUICK)
    np.testing.assert_array_equal(one.obsm["X_scanvi"], plain.obsm["X_scanvi"])
    assert any("All cells are of one batch in obs['run']" in text for text in one.uns["scanvi"]["warnings"])


@pytest.mark.slow
def test_fits_side_by_side_give_what_fits_one_after_another_give():
    one, two = cells(), cells()
    annotate(one, "kind", jobs=1, **QUICK)
    annotate(two, "kind", jobs=2, **QUICK)
    tables = [adata.obsm["scanvi_probabilities"].to_numpy() for adata in (one, two)]
    np.testing.assert_allclose(*tables, atol=1e-3)  # workers may count their threads otherwise


REFUSED = {
    "no such batch": ({"batch_key": "donor"}, "no column 'donor'"),
    "a batch of some": ({"batch_key": "run"}, "have no batch"),
    "labels as batches": ({"batch_key": "kind"}, "is named for two of"),
    "two columns of one name": ({"labels_key": "twice"}, "2 columns called 'twice'"),
    "no genes": ({"genes": 0}, "genes must be a whole number"),
    "no fit": ({"fits": 0}, "fits must be"),
    "answers as labels": ({"labels_key": "scanvi_probability"}, "is where answers are written"),
    "names of cells as labels": ({"labels_key": "barcode"}, "160 different values for as many cells"),
    "a seed too large": ({"seed": 2**65}, "seed must be a whole number"),
    "a seed below zero": ({"seed": -1}, "seed must be a whole number"),
    "no seed": ({"seed": None}, "seed must be a whole number from 0 to"),
    "half a fit": ({"fits": 1.5}, "fits must be a whole number"),
    "two columns": ({"labels_key": ["kind"]}, "labels_key must be one name"),
    "two layers": ({"layer": ["a", "b"]}, "layer must be one name"),
    "a word for no": ({"keep_labels": "no"}, "keep_labels must be of type bool"),
    "settings of another kind": ({"train_config": {"seed": 1}}, "train_config must be of type TrainConfig"),
    "no labels": ({"labels_key": None}, "no column None"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(options, words):
    adata = cells()
    adata.obs["run"] = ["first", *[None] * 159]
    adata.obs["barcode"], adata.obs["scanvi_probability"] = adata.obs_names, ["a", "b"] * 80
    twice = adata.obs[["kind"]].rename(columns={"kind": "twice"})
    adata.obs = pd.concat([adata.obs, twice, twice], axis=1)
    with pytest.raises(InputError, match=words):
        annotate(adata, **({"labels_key": "kind"} | QUICK | options))
    assert "scanvi_label" not in adata.obs
    assert "scanvi" not in adata.uns


def test_a_cell_that_the_chosen_genes_leave_without_a_count_is_named():
    adata = cells()
    counts = adata.X.toarray()
    rarest = (counts > 0).sum(axis=0).argmin()
    counts[7] = np.arange(40) == rarest
    adata.X = counts
    with pytest.raises(InputError, match=r"1 of 160 cells have no count in the 30 genes that were chosen.*cell008"):
        annotate(adata, "kind", genes=30, **QUICK)


@pytest.mark.filterwarnings("ignore:Observation names")
def test_cells_of_one_name_are_refused():
    adata = cells()
    adata.obs_names = ["cell", "cell", *adata.obs_names[2:]]
    with pytest.raises(InputError, match="1 cell names occur more than once: cell"):
        annotate(adata, "kind", **QUICK)


def test_counts_that_no_fit_survives_are_the_users_error_too(monkeypatch):
    module = __import__("sys").modules["scanvi_tutorial.annotation.pipeline"]

    def breaks(*_args, **_options):
        raise FloatingPointError("The loss is nan.")

    monkeypatch.setattr(module.Ensemble, "fit", breaks)
    with pytest.raises(InputError, match="loss is nan"):
        annotate(cells(), "kind", **QUICK)


def test_no_model_takes_the_place_of_something_else(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setattr(Ensemble, "fit", None)  # it is refused before anything is computed
    refused = {"thesis.txt": "no saved annotation", ".": "cannot be read", "no/model": "There is no folder"}
    for place, said in refused.items():
        with pytest.raises(PersistenceError, match=said):
            annotate(cells(), "kind", model=tmp_path / place, **QUICK)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.filterwarnings("ignore::UserWarning")  # anndata says that it would rather have text
def test_names_of_cells_may_be_whole_numbers():
    adata = cells()
    adata.obs_names = pd.RangeIndex(adata.n_obs)
    annotate(adata, "kind", **QUICK)
    assert list(adata.obsm["scanvi_probabilities"].index) == list(adata.obs_names)
    assert "scanvi" in adata.uns


def test_an_answer_that_cannot_be_taken_leaves_nothing_of_it(tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    part = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")[:50]
    with pytest.raises(InputError, match=r"\.to_memory\(\)"):
        annotate(part, "kind", **QUICK)
    named = cells()
    named.obs_names.name = "scanvi_label"
    with pytest.raises(InputError, match=r"obs_names\.name = None"):
        annotate(named, "kind", **QUICK)
    assert "scanvi_label" not in named.obs


def test_names_that_files_do_not_take_are_written_and_read_as_they_were(tmp_path):
    adata = cells()
    names = {"type A": "T", "type B": "T/NK", "type C": "a|b", "type D": "a/b"}
    adata.obs["kind"] = adata.obs["kind"].map(names)
    annotate(adata, "kind", **QUICK)
    assert set(adata.obs["scanvi_label"]) <= set(names.values())
    assert sorted(adata.uns["scanvi"]["label_names"]) == sorted(names.values())
    adata.write_h5ad(tmp_path / "a.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's, of its own next version
        adata.write_zarr(tmp_path / "a.zarr")
        stores = anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")
    for again in stores:
        pd.testing.assert_frame_equal(again.obsm["scanvi_probabilities"], adata.obsm["scanvi_probabilities"])
        assert list(again.obs["scanvi_label"]) == list(adata.obs["scanvi_label"])


def test_colors_of_an_earlier_annotation_do_not_stay_with_other_labels():
    adata = cells()
    annotate(adata, "kind", coverage=0.9, **QUICK)
    columns = ["scanvi_label", "scanvi_set"]
    for column in columns:
        adata.uns[f"{column}_colors"] = ["#000000"] * len(adata.obs[column].cat.categories)
    annotate(adata, "kind", coverage=0.9, **QUICK)
    assert {f"{column}_colors" for column in columns} <= adata.uns.keys()
    adata.obs["kind"] = adata.obs["kind"].replace({"type A": "type B"})
    annotate(adata, "kind", coverage=0.9, **QUICK)
    assert not {f"{column}_colors" for column in columns} & adata.uns.keys()


@pytest.mark.parametrize("given", [{"seed": 0.0, "genes": 40.0, "fits": 2.0}, {"jobs": 1.0}])
def test_whole_numbers_may_come_as_fractions(pair, given):
    adata = cells()
    annotate(adata, "kind", **(QUICK | given))
    np.testing.assert_array_equal(adata.obsm["X_scanvi"], pair[1].obsm["X_scanvi"])

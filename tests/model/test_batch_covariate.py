"""A batch in decoder and library prior: its bound by hand, both engines, what it removes, and what it must not."""

from dataclasses import replace

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestNeighbors

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inference.posterior import exact_posterior, guide_posterior
from scanvi_tutorial.inference.predictions import label_probabilities, latent, posterior_predictive
from scanvi_tutorial.inference.simulation import draw_cells, fit_guide
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.inputs.arrays import SparseCounts
from scanvi_tutorial.inputs.batches import Batches, ConfoundedBatchWarning
from scanvi_tutorial.model.bound import bound_terms, estimator, traces
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.cache import fit_or_load
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import Half, Minibatch
from scanvi_tutorial.training.objective import PyroEngine, loss_of

RUNS = ["run 1", "run 2", "run 3"]


@pytest.fixture
def runs(tiny):
    """Return a function that makes `tiny()` cells of three runs, which cross types and labels."""

    def make(cells=30):
        adata = tiny(cells=cells)
        adata.obs["run"] = pd.Categorical.from_codes(np.random.default_rng(1).permutation(cells) % 3, RUNS)
        depth = (1 + adata.obs["run"].cat.codes.to_numpy()) ** 2  # so that their library priors differ
        adata.X = csr_matrix(adata.X.multiply(depth[:, None]), dtype=np.float32)
        return adata

    return make


def moved(adata, config):
    """Return a model in float64 with no parameter where it started."""
    model = SCANVI.from_anndata(adata, config, batch_key="run").double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def inputs(adata):
    """Return counts, types and batches, the latter as numbers and one-hot."""
    x = torch.as_tensor(adata.X.toarray(), dtype=torch.float64)
    truth, run = (torch.as_tensor(adata.obs[name].cat.codes.to_numpy().copy()).long() for name in ("truth", "run"))
    return x, torch.eye(3, dtype=torch.float64)[truth], run, torch.eye(3, dtype=torch.float64)[run]


# the bound


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("library", ["latent", "observed"])
@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
def test_pyros_loss_and_every_gradient_are_those_of_the_bound_by_hand(
    runs, small_config, gene_likelihood, library, labeled
):
    adata = runs()
    model = moved(adata, replace(small_config, gene_likelihood=gene_likelihood, library=library))
    x, y, run, b = inputs(adata)
    y = y if labeled else None
    depth = torch.linspace(0.1, 1, len(x), dtype=torch.float64)[:, None]
    torch.manual_seed(1)
    noise = oracle.noise_of(traces(model, x, y, b)[0])
    torch.manual_seed(1)
    pyros = estimator().differentiable_loss(model.model, model.guide, x, y, depth, b)
    found = oracle.gradients(model, pyros)
    depths = depth if library == "latent" else None
    by_hand = oracle.minus_bound(model, x, noise, y, depth=depths, batch=run)
    wanted = oracle.gradients(model, by_hand)
    torch.testing.assert_close(pyros, by_hand, rtol=1e-9, atol=0)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("library", ["latent", "observed"])
@pytest.mark.parametrize("objective", ["labels", "everywhere"])
def test_both_engines_agree_in_loss_and_every_gradient(runs, small_config, gene_likelihood, library, objective):
    adata = runs()
    config = replace(small_config, gene_likelihood=gene_likelihood, library=library, dropout_rate=0.3, label_weight=7.0)
    model = moved(adata, config)
    x, y, _, b = inputs(adata)
    counts = csr_matrix(adata.X, dtype=np.float64)
    depths = [torch.linspace(0.2, 1, n, dtype=torch.float64)[:, None] for n in (17, 13)]
    rest = (None, depths[0], b[:17]), (y[17:], depths[1], b[17:])
    torch.manual_seed(1)
    whole = Minibatch(Half(x[:17], *rest[0]), Half(x[17:], *rest[1]))
    pyros = loss_of(PyroEngine(model.train()), whole, 0.3, objective)
    wanted = oracle.gradients(model, pyros)
    fast = FastEngine(model)
    torch.manual_seed(1)
    parts = SparseCounts.from_csr(counts[:17]), SparseCounts.from_csr(counts[17:])
    ours = loss_of(fast, Minibatch(Half(parts[0], *rest[0]), Half(parts[1], *rest[1])), 0.3, objective)
    found = oracle.gradients(model, ours)
    torch.testing.assert_close(ours, pyros, rtol=1e-10, atol=0)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("labeled", [False, True])
def test_terms_of_the_fast_engine_are_those_of_the_traces(runs, small_config, labeled):
    adata = runs()
    model = moved(adata, small_config).eval()
    x, y, _, b = inputs(adata)
    y = y if labeled else None
    with torch.no_grad():
        torch.manual_seed(2)
        wanted = bound_terms(model, x, y, b)
        torch.manual_seed(2)
        found = FastEngine(model).terms(Half(SparseCounts.from_csr(csr_matrix(adata.X, dtype=np.float64)), y, batch=b))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10, msg=name)


def test_the_library_prior_of_a_batch_is_that_of_its_own_log_totals(runs):
    adata = runs()
    model = SCANVI.from_anndata(adata, batch_key="run")
    totals = np.log(np.asarray(adata.X.sum(1)).ravel())
    loc, scale = model.batches.library_prior(torch.eye(3))
    for number, run in enumerate(RUNS):
        own = totals[adata.obs["run"] == run]
        assert loc[number].item() == pytest.approx(own.mean(), rel=1e-6)
        assert scale[number].item() == pytest.approx(own.std(), rel=1e-6)


def test_a_batch_enters_the_decoder_of_counts_and_no_other_network(runs, small_config):
    with_runs, without = (SCANVI.from_anndata(runs(), small_config, batch_key=batch) for batch in ("run", None))
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (with_runs, without)]
    assert shapes[0].keys() == shapes[1].keys()
    assert [name for name in shapes[0] if shapes[0][name] != shapes[1][name]] == ["x_decoder.heads.layers.0.weight"]


# a model that knows batches, in use


@pytest.mark.parametrize("engine", ["fast", "pyro"])
def test_a_fit_is_told_the_batch_of_every_cell(runs, small_config, engine, monkeypatch):
    """Cells of another batch make another fit; to the bit the same batches make the same."""
    adata, other = runs(60), runs(60)
    other.obs["run"] = pd.Categorical(other.obs["run"].to_numpy()[::-1], categories=RUNS)
    config, states = TrainConfig(max_epochs=2, batch_size=16, engine=engine), []
    for cells in (adata, adata, other):
        model = SCANVI.from_anndata(adata, small_config, batch_key="run")
        fit(model, cells, config)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(*(state["x_decoder.heads.layers.0.weight"] for state in states[1:]))


def test_both_engines_make_the_same_fit(runs):
    adata, frames = runs(120), []
    for engine in ("fast", "pyro"):
        model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)), batch_key="run")
        frames.append(fit(model, adata, TrainConfig(max_epochs=4, batch_size=16, engine=engine)).frame)
    np.testing.assert_allclose(frames[0].to_numpy(), frames[1].to_numpy(), rtol=2e-3, atol=2e-3)


def test_a_saved_model_remembers_its_batches_and_predicts_the_same(runs, small_config, tmp_path):
    adata = runs()
    model = SCANVI.from_anndata(adata, small_config, batch_key="run").eval()
    back = SCANVI.load(model.save(tmp_path / "model"))
    assert back.batches == model.batches
    for ask in (label_probabilities, posterior_predictive):
        pd.testing.assert_frame_equal(ask(back, adata), ask(model, adata), check_exact=True)


def test_the_cache_tells_models_with_batches_from_those_without(runs, tmp_path):
    adata = runs()
    config = ModelConfig(n_latent=2, gene_hidden=(8,)), TrainConfig(max_epochs=1, batch_size=16)
    keys = []
    for change in (lambda obs: None, lambda obs: obs.__setitem__("run", obs["run"].to_numpy()[::-1])):
        change(adata.obs)
        for batch in (None, "run"):
            model, _ = fit_or_load(adata, *config, batch_key=batch, folder=tmp_path)
            assert (model.batches is None) == (batch is None)
            keys.append(list(tmp_path.glob("*.safetensors")))
    assert [len(found) for found in keys] == [1, 2, 2, 3]  # other batches do not matter where they are not asked for


def test_the_predictive_check_tells_every_cell_in_its_own_batch(runs, small_config):
    """With a decoder that puts all counts of one run on one gene, cells of that run alone show them."""
    adata = runs(300)
    model = SCANVI.from_anndata(
        adata, replace(small_config, norm="none", gene_likelihood="poisson", library="observed"), batch_key="run"
    )
    with torch.no_grad():
        for layer in (0, 2):
            model.x_decoder.heads.layers[layer].weight.zero_()
            model.x_decoder.heads.layers[layer].bias.zero_()
        model.x_decoder.heads.layers[0].weight[0, 2 + 1] = 50  # latents come first, then the batches
        model.x_decoder.heads.layers[2].weight[4, 0] = 50
    table = posterior_predictive(model, adata)
    totals = np.asarray(adata.X.sum(1)).ravel()
    second = (adata.obs["run"] == "run 2").to_numpy()
    expected = totals[second].sum() / 300 + totals[~second].sum() / 9 / 300
    assert table["predicted_mean"].iloc[4] == pytest.approx(expected, rel=0.15)
    assert table["predicted_mean"].iloc[3] == pytest.approx(totals[~second].sum() / 9 / 300, rel=0.15)


def test_cells_drawn_from_a_batch_are_of_its_depth_and_can_be_inferred_again(runs, small_config):
    adata = runs(90)
    model = SCANVI.from_anndata(adata, small_config, batch_key="run").eval()
    drawn = {run: draw_cells(model, 400, batch=run) for run in RUNS}
    for number, run in enumerate(RUNS):
        log_l = np.log(drawn[run].obs["library_size"])
        loc, scale = model.batches.library_loc[number], model.batches.library_scale[number]
        assert log_l.mean() == pytest.approx(loc, abs=5 * scale / 20)
        assert list(drawn[run].obs["run"].unique()) == [run]
    few = drawn["run 3"][:8].copy()
    assert np.isfinite(fit_guide(model, few, steps=2)).all()
    for ask in (guide_posterior, exact_posterior):
        assert np.isfinite(ask(model, few, draws=5).draws).all()
    with pytest.raises(InputError, match=r"no batch 'run 9'.*run 1, run 2, run 3"):
        draw_cells(model, 5, batch="run 9")
    with pytest.raises(InputError, match="no batch None"):
        draw_cells(model, 5)


# what is refused


def test_a_column_that_is_missing_or_says_nothing_of_some_cells_is_refused(runs):
    adata = runs()
    with pytest.raises(InputError, match="no column 'donor'"):
        SCANVI.from_anndata(adata, batch_key="donor")
    adata.obs.loc[adata.obs_names[:4], "run"] = np.nan
    with pytest.raises(InputError, match="4 of 30 cells"):
        SCANVI.from_anndata(adata, batch_key="run")


def test_one_batch_and_a_batch_a_cell_are_refused(runs):
    adata = runs()
    adata.obs["place"] = "here"
    with pytest.raises(InputError, match=r"one batch \(here\).*Leave batch_key out"):
        SCANVI.from_anndata(adata, batch_key="place")
    adata.obs["barcode"] = adata.obs_names
    with pytest.raises(InputError, match=r"30 different values for 30 cells"):
        SCANVI.from_anndata(adata, batch_key="barcode")


def test_an_unknown_batch_is_labeled_and_mapped_but_neither_fitted_nor_told_again(runs, small_config):
    adata, query = runs(), runs()
    model = SCANVI.from_anndata(adata, small_config, batch_key="run")
    query.obs["run"] = "run 7"
    np.testing.assert_array_equal(latent(model, query), latent(model, adata))
    del adata.obs["run"]
    pd.testing.assert_frame_equal(label_probabilities(model, query), label_probabilities(model, adata))
    for ask in (fit, posterior_predictive, fit_guide):
        with pytest.raises(InputError, match=r"run 7, which the model does not know.*run 1, run 2, run 3"):
            ask(model, query)


def test_a_bound_without_the_batch_or_with_one_too_many_is_refused_in_words(runs, small_config):
    adata = runs()
    x, _, _, b = (part.float() for part in inputs(adata))
    for config in (small_config, replace(small_config, library="observed")):
        with pytest.raises(InputError, match="give the batch of every cell"):
            bound_terms(SCANVI.from_anndata(adata, config, batch_key="run"), x)
        with pytest.raises(InputError, match="knows no batches"):
            bound_terms(SCANVI.from_anndata(adata, config), x, batch=b)


@pytest.mark.parametrize("change", [{"names": ("a",)}, {"library_loc": (1.0,)}])
def test_batches_that_make_no_sense_are_refused(change):
    given = {"key": "run", "names": ("a", "b"), "library_loc": (1.0, 2.0), "library_scale": (1.0, 1.0)}
    Batches(**given)
    with pytest.raises(ValueError, match="two names or more"):
        Batches(**(given | change))


# what is removed, and what must stay


def batches_far_apart():
    """Return simulated cells whose second batch besides lost a share of the molecules of every gene, its own each."""
    adata = load("simulated", batches=2, cells=1_000, effect=1.4)
    rng = np.random.default_rng(0)
    kept = rng.uniform(0.15, 1, size=adata.n_vars)
    counts, second = adata.X.toarray().astype(int), (adata.obs["batch"] == "batch 2").to_numpy()
    counts[second] = rng.binomial(counts[second], kept)
    counts[counts.sum(1) == 0, 0] = 1
    adata.X = csr_matrix(counts, dtype=np.float32)
    return adata


def guessed_batch(adata, z):
    """Return how often a logistic regression on the states guesses the batch of a cell right, within types."""
    types = [(adata.obs["truth"] == name).to_numpy() for name in adata.obs["truth"].cat.categories]
    method = LogisticRegression(max_iter=1_000)
    return np.mean([cross_val_score(method, z[rows], adata.obs["batch"][rows], cv=5).mean() for rows in types])


def neighbors_of_own_batch(adata, z):
    """Return the share of the 20 nearest neighbors of a cell that are of its own batch; where mixed, one half."""
    near = NearestNeighbors(n_neighbors=21).fit(z).kneighbors(z, return_distance=False)[:, 1:]
    batch = adata.obs["batch"].cat.codes.to_numpy()
    return (batch[near] == batch[:, None]).mean()


def with_and_without(adata):
    """Return, for fits without and with batches, means over seeds: own-batch neighbors, guessed batches, accuracy."""
    rest, truth = (adata.obs["label"] == "Unknown").to_numpy(), adata.obs["truth"].astype(str).to_numpy()
    found = {None: [], "batch": []}
    for batch, of_batch in found.items():
        for seed in range(4):
            model = SCANVI.from_anndata(adata, batch_key=batch)
            fit(model, adata, TrainConfig(max_epochs=40, seed=seed))
            z, guess = latent(model, adata), label_probabilities(model, adata).idxmax(axis=1).to_numpy()
            right = (guess == truth)[rest].mean()
            of_batch.append((neighbors_of_own_batch(adata, z), guessed_batch(adata, z), right))
    return [np.mean(of_batch, axis=0) for of_batch in found.values()]


@pytest.mark.slow
def test_batches_mix_in_the_latent_space_once_the_model_is_told_of_them_and_types_stay_apart():
    (before, guessed_before, accuracy_before), (after, guessed, accuracy) = with_and_without(batches_far_apart())
    assert before > 0.75
    assert after < 0.56
    assert guessed_before > 0.9
    assert guessed < 0.72
    assert accuracy > accuracy_before


def labeled_in(batches):
    """Return simulated cells, ten of each type labeled, the batch of each chosen by its type."""
    adata = seed_labels(load("simulated"), per_label=10, how="random", seed=0)
    codes = adata.obs["truth"].cat.codes.to_numpy()
    adata.obs["batch"] = pd.Categorical(np.array(batches)[codes])
    return adata


@pytest.mark.parametrize("batches", [["a", "a", "b", "b"], ["a", "b", "c", "d"]], ids=["two types a batch", "one"])
def test_types_that_share_no_batch_are_warned_of(batches):
    adata = labeled_in(batches)
    with pytest.warns(ConfoundedBatchWarning, match="type A, type B, type C, type D"):
        SCANVI.from_anndata(adata, batch_key="batch")


def test_nearly_is_warned_of_too_and_what_counts_are_the_labeled_cells():
    adata = labeled_in(["a", "a", "b", "b"])
    seeds = np.flatnonzero(adata.obs["label"] != "Unknown")
    batch = adata.obs["batch"].to_numpy().copy()
    batch[seeds[0]] = "b" if batch[seeds[0]] == "a" else "a"
    adata.obs["batch"] = pd.Categorical(batch)
    with pytest.warns(ConfoundedBatchWarning):
        SCANVI.from_anndata(adata, batch_key="batch")
    batch[seeds] = np.where(np.arange(len(seeds)) % 2, "a", "b")  # the others stay as confounded as they were
    adata.obs["batch"] = pd.Categorical(batch)
    SCANVI.from_anndata(adata, batch_key="batch")


def test_batches_that_cross_the_types_bring_no_warning():
    for seed in range(5):
        SCANVI.from_anndata(load("simulated", batches=3, seed=seed), batch_key="batch")

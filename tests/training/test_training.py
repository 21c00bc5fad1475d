"""Training: the loss it says it minimizes, seeds, warm-up, early stopping, the best state, bad runs."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.model.bound import BOUND_TERMS, bound_terms, evaluating
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training import loop as training
from scanvi_tutorial.training.history import History
from scanvi_tutorial.training.loop import choose_device, fit, run_epoch
from scanvi_tutorial.training.minibatches import Half, Minibatch, length_of, split_cells
from scanvi_tutorial.training.objective import PyroEngine, loss_of

SHORT = TrainConfig(max_epochs=4, batch_size=8, warmup=0.5, patience=4)


def fitted(adata, config=SHORT, model_config=None, seed=0):
    model = SCANVI.from_anndata(adata, model_config or ModelConfig(n_latent=2, gene_hidden=(8,)), seed=seed)
    return model, fit(model, adata, config)


def codes_of(adata):
    return np.where(adata.obs["label"] == "Unknown", -1, adata.obs["label"].cat.codes)


def same(one, other):
    return all(torch.equal(p, q) for p, q in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_loss_is_the_weighted_sum_it_says_it_is(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, label_weight=7.0)).eval()
    x, x_labeled = (torch.as_tensor(adata.X[rows].toarray()) for rows in (slice(0, 12), slice(12, 20)))
    y = torch.eye(3)[torch.arange(8) % 3]
    torch.manual_seed(1)
    loss = loss_of(PyroEngine(model), Minibatch(Half(x), Half(x_labeled, y)))
    torch.manual_seed(1)
    terms = [bound_terms(model, x), bound_terms(model, x_labeled, y)]
    bounds = [t["log_likelihood"] - t["kl_l"] - t["kl_z"] - t["kl_y"] for t in terms]
    torch.manual_seed(1)
    bound_terms(model, x)
    z2_loc, z2_scale, *_ = model.z2l_encoder(x_labeled)
    z2 = z2_loc + z2_scale * torch.randn_like(z2_loc)  # the guide's first draw
    entropy = torch.nn.functional.cross_entropy(model.classifier(z2), y.argmax(-1))
    fraction = model.labeled_fraction
    assert fraction == pytest.approx(10 / 30)
    wanted = -(1 - fraction) * bounds[0].mean() - fraction * bounds[1].mean() + 7.0 * entropy
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)


def test_halves_of_a_minibatch_may_be_absent(tiny):
    model = SCANVI.from_anndata(tiny())
    x, y = torch.as_tensor(tiny().X.toarray()), torch.eye(3)[torch.arange(30) % 3]
    torch.manual_seed(0)
    engine = PyroEngine(model.eval())
    unlabeled = Half(x)
    labeled = Half(x, y)
    both = loss_of(engine, Minibatch(unlabeled, labeled))
    torch.manual_seed(0)
    parts = loss_of(engine, Minibatch(unlabeled, None)) + loss_of(engine, Minibatch(None, labeled))
    torch.testing.assert_close(both, parts)


def test_steps_lower_the_loss(tiny):
    adata = tiny(cells=120)
    _, history = fitted(adata, replace(SHORT, max_epochs=8, patience=8, warmup=0.0))
    loss = history.frame["loss"]
    assert loss.iloc[-1] < loss.iloc[0] - 1


def test_same_seed_gives_the_same_parameters_to_the_bit_and_another_does_not(tiny):
    adata = tiny()
    first, history = fitted(adata)
    again, history_again = fitted(adata)
    other, _ = fitted(adata, replace(SHORT, seed=1))
    assert same(first, again)
    pd.testing.assert_frame_equal(history.frame, history_again.frame, check_exact=True)
    assert not same(first, other)


def test_the_seed_also_draws_the_order_of_the_cells(tiny, monkeypatch):
    shown, original = [], training.paired_minibatches

    def noted(*arguments, **settings):
        minibatches = list(original(*arguments, **settings))
        shown.append(torch.cat([minibatch.unlabeled.x.dense() for minibatch in minibatches]))
        return minibatches

    monkeypatch.setattr(training, "paired_minibatches", noted)
    split = split_cells(codes_of(tiny()), SHORT)
    monkeypatch.setattr(training, "split_cells", lambda *_: split)  # the same cells are held out
    for seed in (0, 0, 1):
        fitted(tiny(), replace(SHORT, max_epochs=1, seed=seed))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])


def test_fitting_touches_no_global_generator_and_no_input(tiny):
    adata = tiny()
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    untouched = adata.copy()
    fitted(adata)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert (adata.X != untouched.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, untouched.obs)


def test_what_labels_are_hidden_does_not_matter(tiny):
    """Permuting the truth of unlabeled cells leaves training identical to the bit."""
    adata = tiny()
    hidden = (adata.obs["label"] == "Unknown").to_numpy()
    other = adata.copy()
    truth = other.obs["truth"].to_numpy().copy()
    truth[hidden] = np.random.default_rng(0).permutation(truth[hidden])
    other.obs["truth"] = pd.Categorical(truth, categories=adata.obs["truth"].cat.categories)
    assert same(fitted(adata)[0], fitted(other)[0])


def test_kl_weight_rises_to_one_and_stays(tiny):
    _, history = fitted(tiny(), replace(SHORT, max_epochs=8, patience=8))
    weights = history.frame["kl_weight"].to_numpy()
    assert weights[0] > 0  # Pyro refuses a scale of zero
    assert (np.diff(weights) >= 0).all()
    assert (weights[4:] == 1).all()
    assert (weights[:4] < 1).all()


def test_history_has_the_terms_of_the_held_out_bound_in_nats_per_cell(tiny):
    _, history = fitted(tiny(cells=60))
    frame = history.frame
    total = frame["log_likelihood"] - frame["kl_l"] - frame["kl_z"] - frame["kl_y"]
    np.testing.assert_allclose(frame["bound_held_out"], total)
    assert set(BOUND_TERMS) < set(frame.columns)
    assert np.isfinite(frame.to_numpy()).all()
    assert frame.attrs["best_epoch"] == history.best_epoch


def test_the_model_is_left_in_the_best_state_that_was_watched(tiny):
    adata = tiny(cells=80)
    config = replace(
        SHORT, max_epochs=12, patience=12, learning_rate=0.05
    )  # restless, so that the last is not the best
    model, history = fitted(adata, config)
    watched = history.frame["bound_held_out"][history.frame["kl_weight"] == 1]
    assert history.best_epoch == watched.idxmax()
    held_out = split_cells(codes_of(adata), config).held_out_rows
    with evaluating(model, config.seed):
        terms = bound_terms(model, torch.as_tensor(adata.X[held_out].toarray()))
    bound = (terms["log_likelihood"] - terms["kl_l"] - terms["kl_z"] - terms["kl_y"]).mean()
    assert bound.item() == pytest.approx(watched.max(), rel=1e-6)
    assert not model.training


def test_training_stops_when_the_held_out_bound_no_longer_rises(tiny):
    _, history = fitted(tiny(cells=60), replace(SHORT, max_epochs=400, patience=3, warmup=0.0, learning_rate=0.03))
    assert history.stopped_early
    assert len(history) == history.best_epoch + 1 + 3


def test_held_out_cells_are_not_learned_from(tiny):
    adata = tiny(cells=60)
    held_out = split_cells(codes_of(adata), SHORT).held_out_rows
    other = adata.copy()
    counts = other.X.toarray()
    counts[held_out] = counts[held_out][:, ::-1] + 1
    other.X = scipy.sparse.csr_matrix(counts)
    prior = {"library_loc": 3.0, "library_scale": 0.5}
    models = []
    for cells in (adata, other):
        model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)))
        model.library_loc, model.library_scale = prior["library_loc"], prior["library_scale"]
        fit(model, cells, replace(SHORT, max_epochs=1))
        models.append(model)
    assert same(*models)


def test_split_keeps_every_cell_once():
    codes = np.repeat([-1, 0, 1], [50, 30, 25])
    split = split_cells(codes, TrainConfig())
    parts = [split.unlabeled_rows, split.held_out_rows, split.labeled_rows]
    assert sorted(np.concatenate(parts)) == list(range(105))
    assert len(split.held_out_rows) == 5
    assert (codes[split.labeled_rows] >= 0).all()


@pytest.mark.parametrize("cells", [3, 4, 9, 10, 17, 33])
def test_no_number_of_cells_makes_a_minibatch_of_one(tiny, cells):
    fitted(tiny(cells=cells, labeled=1 if cells < 9 else 3), replace(SHORT, max_epochs=1))


def test_all_cells_labeled_is_a_fit_too(tiny):
    model, _ = fitted(tiny(labeled=1))
    assert model.labeled_fraction == 1


def test_a_rate_far_too_high_ends_in_words(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, norm="none"))
    with torch.no_grad():
        model.log_inverse_dispersion.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(model, adata, SHORT)


@pytest.mark.parametrize("short", [{"warmup": 1.0}, {"max_epochs": 1, "warmup": 0.6}, {"max_steps": 1}])
def test_no_schedule_is_too_short_to_keep_a_state(tiny, short):
    _, history = fitted(tiny(), replace(SHORT, **short))
    assert history.best_epoch == len(history) - 1
    assert history.frame["kl_weight"].iloc[-1] > 0


def test_a_single_cell_of_each_class_is_enough_for_a_step(tiny):
    adata = tiny()
    label = np.full(30, "Unknown", dtype=object)
    for name in ("B", "NK", "T"):
        label[np.flatnonzero(adata.obs["truth"] == name)[0]] = name
    adata.obs["label"] = pd.Categorical(label, categories=["B", "NK", "T", "Unknown"])
    fitted(adata, replace(SHORT, labeled_batch_size=2))


def test_a_class_that_lost_its_seeds_is_named(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata)
    adata.obs["label"] = adata.obs["label"].astype(str).replace("NK", "Unknown")
    with pytest.raises(InputError, match="labeled NK"):
        fit(model, adata, SHORT)


def test_dispersion_moves_towards_the_truth():
    """Simulated genes have θ between one and six; a fit starts them at ten, and Adam's steps must carry them there."""
    adata = seed_labels(load("simulated"), per_label=10, how="random", seed=0)
    model, _ = fitted(adata, TrainConfig(max_epochs=40, batch_size=64), ModelConfig())
    ours, truth = model.inverse_dispersion.detach().numpy(), adata.var["inverse_dispersion"].to_numpy()
    assert 0.5 < np.median(ours) / np.median(truth) < 2
    assert (
        np.corrcoef(np.log(ours), np.log(truth))[0, 1] > 0.2
    )  # 0.27 to 0.33 with and without thinning; 0 by chance, give or take 0.13


def test_unknown_label_column_is_refused_before_training(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata)
    del adata.obs["label"]
    with pytest.raises(InputError, match="no column 'label'"):
        fit(model, adata, SHORT)


@pytest.mark.parametrize("least", [10**9, 1])
def test_small_minibatches_have_one_thread_and_every_step_is_told(tiny, monkeypatch, least):
    monkeypatch.setattr(training, "_MANY_ENTRIES", least)
    adata, seen, before = tiny(), [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)))
        history = fit(model, adata, SHORT, after_step=lambda: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    epochs, steps = length_of(split_cells(codes_of(adata), SHORT), SHORT)
    assert (len(history), len(seen)) == (epochs, epochs * steps)
    assert set(seen) == {1 if least > 1 else 3}


def test_run_epoch_takes_any_iterable_of_minibatches(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata)
    x = torch.as_tensor(adata.X.toarray())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = model.log_inverse_dispersion.clone()
    assert math.isfinite(run_epoch(PyroEngine(model), [Minibatch(Half(x), None)] * 3, optimizer))
    assert not torch.equal(model.log_inverse_dispersion, before)


def test_history_survives_json(tiny):
    _, history = fitted(tiny())
    back = History(**json.loads(json.dumps(asdict(history))))
    pd.testing.assert_frame_equal(back.frame, history.frame, check_exact=True)
    assert back == history
    assert back.frame.attrs == history.frame.attrs


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "cuda", "cpu:3", "tpu", "", None, 3])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(InputError, match=f"no device {name!r} here. TrainConfig.device is .* one of cpu"):
        choose_device(name)


def test_the_second_of_two_gpus_is_a_device_and_the_third_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="one of cuda, cuda:0, cuda:1, cpu"):
        choose_device("cuda:2")


def test_a_named_device_is_taken_at_its_word():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}


def test_on_simulated_cells_labels_are_found_far_above_chance():
    adata = seed_labels(load("simulated"), per_label=10, how="random", seed=0)
    model, _ = fitted(adata, TrainConfig(max_epochs=40, batch_size=64), ModelConfig())
    rest = (adata.obs["label"] == "Unknown").to_numpy()
    truth = adata.obs["truth"].astype(str).to_numpy()[rest]
    found = label_probabilities(model, adata).idxmax(axis=1).to_numpy()[rest]
    assert (found == truth).mean() > 2 * pd.Series(truth).value_counts(normalize=True).max()


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("library", ["latent", "observed"])
def test_cells_of_very_few_counts_can_be_thinned_to_nothing(tiny, gene_likelihood, library):
    adata = tiny(cells=60)
    adata.X = adata.X.minimum(1)
    adata = adata[:, :3].copy()
    adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0].copy()
    config = ModelConfig(gene_likelihood=gene_likelihood, library=library, gene_hidden=(8,))
    model = SCANVI.from_anndata(adata, config)
    history = fit(model, adata, TrainConfig(max_epochs=20, batch_size=8))
    assert np.isfinite(history.frame["loss"]).all()

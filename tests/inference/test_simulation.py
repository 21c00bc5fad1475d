"""Simulation-based calibration: the story is the model's own, the guide alone learns, the exact posterior is exact."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine

from scanvi_tutorial import evaluation
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.evaluation.ranks import rank_uniformity
from scanvi_tutorial.inference.posterior import ScaledGuide, exact_posterior, guide_posterior, sbc_ranks
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.inference.simulation import draw_cells, fit_guide
from scanvi_tutorial.inputs import InputError, check_counts, check_labels
from scanvi_tutorial.model.bound import bound_of, bound_terms, evaluating
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit


def set_by_hand(model, *, spread=0.5):
    """Make z2 tell the types apart a little, with l and z2 easy to integrate over: z2 | y ~ Normal(±1, spread)."""
    with torch.no_grad():
        for parameter in model.z2_decoder.parameters():
            parameter.zero_()
        head = model.z2_decoder.heads.layers[-1]
        head.bias[model.config.n_latent :] = math.log(math.expm1(spread - 1e-4))
        # straight from the one-hot label through the first hidden unit: the first type lies at +1, all others at −1
        first = model.z2_decoder.heads.layers[0]
        first.weight[0, model.config.n_latent] = 2.0
        head.weight[0, 0] = 1.0
        head.bias[0] = -1.0
    return model.eval()


@pytest.fixture
def plain(tiny):
    """Return a model with two coordinates of state and no normalization, whose story is set by hand."""
    config = ModelConfig(
        n_latent=1, gene_hidden=(6,), label_hidden=(4,), classifier_hidden=(), norm="none", dropout_rate=0.0
    )
    return set_by_hand(SCANVI.from_anndata(tiny(), config))


def test_drawn_cells_are_usable_and_keep_every_latent_variable(plain):
    cells = draw_cells(plain, 50)
    assert check_counts(cells).shape == (50, 9)
    assert list(cells.var_names) == plain.genes
    assert cells.obsm["z1"].shape == cells.obsm["z2"].shape == (50, 1)
    assert (cells.obs["library_size"] > 0).all()
    assert check_labels(cells, plain.columns.labels_key, least=0)[0] == []  # nobody has told us any
    assert label_probabilities(plain, cells).shape == (50, 3)


def test_drawn_cells_follow_the_story(plain):
    """Closed forms: y uniform, z1 standard normal, z2 normal given y, l log-normal, the mean of x given by both."""
    cells = draw_cells(plain, 4_000)
    shares = cells.obs["truth"].value_counts(normalize=True, sort=False)
    assert scipy.stats.chisquare(shares * 4_000).pvalue > 1e-3
    assert scipy.stats.kstest(cells.obsm["z1"][:, 0], "norm").pvalue > 1e-3
    center = np.where(cells.obs["truth"] == plain.label_names[0], 1.0, -1.0)
    assert scipy.stats.kstest((cells.obsm["z2"][:, 0] - center) / 0.5, "norm").pvalue > 1e-3
    log_l = (np.log(cells.obs["library_size"]) - plain.library_loc) / plain.library_scale
    assert scipy.stats.kstest(log_l, "norm").pvalue > 1e-3
    with torch.no_grad():
        ell = torch.tensor(cells.obs["library_size"].to_numpy())[:, None]
        law = plain.counts(torch.tensor(cells.obsm["z2"]), ell)
    error = (cells.X.toarray() - law.mean.numpy()).mean(0)
    assert (np.abs(error) < 4.5 * np.sqrt(law.variance.numpy().mean(0) / 4_000)).all()


def test_the_seed_draws_the_cells_and_no_global_generator_is_touched(plain):
    before = torch.get_rng_state()
    first, again, other = (draw_cells(plain, 30, seed=seed).X.toarray() for seed in (1, 1, 2))
    claims = [guide_posterior(plain, draw_cells(plain, 5), seed=seed).draws for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(claims[0], claims[1])
    assert (claims[0] != claims[2]).all()


def test_counts_go_where_the_model_looks_for_them(tiny, small_config):
    adata = tiny()
    adata.layers["counts"] = adata.X.copy()
    model = SCANVI.from_anndata(adata, small_config, layer="counts")
    assert guide_posterior(model, draw_cells(model, 4), draws=3).draws.shape == (3, 4, 3)


def test_a_cell_without_counts_is_drawn_anew_and_a_model_that_draws_no_others_is_refused(plain):
    plain.library_loc = math.log(2.0)
    assert (draw_cells(plain, 200).X.sum(1) > 0).all()
    plain.library_loc = -30.0
    with pytest.raises(InputError, match="draws no counts"):
        draw_cells(plain, 10)


def test_no_cells_cannot_be_drawn(plain):
    with pytest.raises(ValueError, match="at least 1"):
        draw_cells(plain, 0)


def test_a_library_size_read_off_the_counts_cannot_be_drawn(tiny):
    model = SCANVI.from_anndata(tiny(), ModelConfig(library="observed"))
    with pytest.raises(InputError, match="library='latent'"):
        draw_cells(model, 10)


def test_the_guide_alone_learns_and_learns(tiny):
    """With BatchNorm and dropout in every network: the generative half stays to the bit, buffers included."""
    model = SCANVI.from_anndata(tiny(), ModelConfig(n_latent=2, gene_hidden=(8,)))
    cells = draw_cells(model, 400)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = fit_guide(model, cells, steps=100)
    moved = {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"z2l_encoder", "classifier", "z1_encoder"}
    assert losses[-30:].mean() < losses[:30].mean()
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in (*model.x_decoder.parameters(), *model.z2_decoder.parameters()))


def test_fewer_cells_than_a_minibatch_are_enough(plain):
    assert len(fit_guide(plain, draw_cells(plain, 10), steps=2)) == 2


def test_a_guide_that_cannot_learn_says_so(plain):
    with torch.no_grad():
        plain.z1_encoder.heads.layers[-1].bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="step 0"):
        fit_guide(plain, draw_cells(plain, 10), steps=1)
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_the_guide_claims_what_its_encoder_says(plain):
    """Independent truth: the normal distributions read off the encoder, without Pyro."""
    cells = draw_cells(plain, 6)
    with evaluating(plain):
        loc, scale, l_loc, l_scale = plain.z2l_encoder(torch.as_tensor(cells.X.toarray()))
    for factor in (1.0, 0.5):
        draws = guide_posterior(plain, cells, draws=4_000, scale=factor).draws
        for column, (center, width) in enumerate(((l_loc, l_scale), (loc, scale))):
            standard = (draws[..., column] - center[:, 0].numpy()) / (factor * width[:, 0].numpy())
            assert min(scipy.stats.kstest(standard[:, cell], "norm").pvalue for cell in range(6)) > 1e-4


def test_the_guides_types_are_those_of_label_probabilities(plain):
    cells = draw_cells(plain, 6)
    claimed = guide_posterior(plain, cells, draws=4_000).types
    np.testing.assert_allclose(claimed, label_probabilities(plain, cells, samples=4_000), atol=0.02)
    np.testing.assert_allclose(claimed.sum(axis=1), 1, rtol=1e-12)


def test_widening_touches_the_two_sites_of_the_encoder_alone(plain):
    x = torch.as_tensor(draw_cells(plain, 3).X.toarray())
    torch.manual_seed(0)
    usual = poutine.trace(plain.guide).get_trace(x)
    torch.manual_seed(0)
    with ScaledGuide(2.0):
        wide = poutine.trace(plain.guide).get_trace(x)
    for site in ("z2", "l"):
        ours, theirs = (trace.nodes[site]["fn"].base_dist for trace in (wide, usual))
        assert type(ours) is type(theirs)
        torch.testing.assert_close(ours.scale, 2 * theirs.scale)
        torch.testing.assert_close(ours.loc, theirs.loc)
    assert isinstance(wide.nodes["y"]["fn"], dist.OneHotCategorical)


def by_quadrature(model, cells):
    """Return the mean and standard deviation of log l and z2, and p(y | x), on a grid over both; no guide, no Pyro."""
    x = torch.as_tensor(cells.X.toarray(), dtype=torch.float64)
    model = model.double()
    z2 = torch.linspace(-4, 4, 201, dtype=torch.float64)
    log_l = model.library_loc + model.library_scale * torch.linspace(-6, 6, 121, dtype=torch.float64)
    center = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    log_prior_l = torch.distributions.Normal(model.library_loc, model.library_scale).log_prob(log_l)
    log_p_z2_y = torch.distributions.Normal(center, 0.5).log_prob(z2[:, None]) - math.log(3)  # (z2, labels)
    found = []
    with torch.no_grad():
        log_mu, gate = model.x_decoder(z2[:, None])
        for row in x:
            log_mean = log_mu[:, None] + log_l[None, :, None]
            theta = model.log_inverse_dispersion.exp().numpy()
            mass = scipy.stats.nbinom(theta, theta / (theta + log_mean.exp().numpy())).pmf(row.numpy())
            dropped = torch.sigmoid(gate)[:, None]
            mixed = ((1 - dropped) * torch.as_tensor(mass) + dropped * (row == 0)).log().sum(-1)  # (z2, l)
            joint = (mixed + log_prior_l)[..., None] + log_p_z2_y[:, None]
            p = (joint - joint.logsumexp((0, 1, 2))).exp()
            values = []
            for grid, share in ((log_l, p.sum((0, 2))), (z2, p.sum((1, 2)))):
                mean = (grid * share).sum()
                values += [mean, ((grid - mean).square() * share).sum().sqrt()]
            found.append([*values, *p.sum((0, 1))])
    model.float()
    return np.array(found, dtype=float)


def test_the_exact_posterior_is_that_of_quadrature(plain):
    """The guide, untrained here, only proposes; wide enough to cover both modes, it leads to the truth."""
    cells = draw_cells(plain, 5)
    wanted = by_quadrature(plain, cells)
    with torch.no_grad():  # a q(z1) that is wide for one type and not for the others must not favor either
        plain.z1_encoder.heads.layers[0].weight[0, 1] = 3.0
        plain.z1_encoder.heads.layers[-1].weight[1, 0] = 1.0
    exact = exact_posterior(plain, cells, draws=4_000, proposals=30_000, scale=2.5)
    assert exact.effective.min() > 1_000
    for column, at in ((0, 0), (1, 2)):
        np.testing.assert_allclose(exact.draws[..., column].mean(0), wanted[:, at], atol=0.05)
        np.testing.assert_allclose(exact.draws[..., column].std(0), wanted[:, at + 1], rtol=0.08)
    np.testing.assert_allclose(exact.types, wanted[:, 4:], atol=0.02)


@pytest.mark.parametrize("posterior", [guide_posterior, exact_posterior])
def test_a_posterior_without_a_library_size_is_refused(tiny, posterior):
    observed = SCANVI.from_anndata(tiny(), ModelConfig(library="observed", gene_hidden=(4,)))
    with pytest.raises(InputError, match="latent library size"):
        posterior(observed, tiny())


def test_a_posterior_of_other_cells_is_refused(plain):
    posterior = guide_posterior(plain, draw_cells(plain, 5), draws=3)
    with pytest.raises(InputError, match="these very cells"):
        sbc_ranks(draw_cells(plain, 6), posterior)


def mean_bound(model, cells):
    with evaluating(model):
        return bound_of(bound_terms(model, torch.as_tensor(cells.X.toarray()))).mean().item()


@pytest.fixture(scope="module")
def calibration():
    """Return a model fitted to simulated counts, its guide taught anew; 1,000 fresh cells; their exact posterior."""
    adata = load("simulated")
    model = SCANVI.from_anndata(adata, seed=0)
    fit(model, adata, TrainConfig(max_epochs=40, batch_size=64, warmup=0.25))
    cells = draw_cells(model, 1_000, seed=2)
    bound = mean_bound(model, cells)
    fit_guide(model, draw_cells(model, 20_000, seed=1), steps=1_000)
    assert mean_bound(model, cells) > bound + 1
    return model, cells, exact_posterior(model, cells, proposals=1_000)


def surprise(probabilities, truth):
    """Return by how many standard errors −log p(truth) exceeds its own expectation, their entropy."""
    p = probabilities.to_numpy()
    log_p = np.log(p.clip(1e-300))
    entropy = -(p * log_p).sum(1)
    variance = (p * log_p**2).sum(1) - entropy**2
    return (-log_p[np.arange(len(p)), truth.cat.codes] - entropy).sum() / np.sqrt(variance.sum())


@pytest.mark.slow
def test_ranks_among_exact_draws_are_uniform(calibration):
    """The control that must pass: it proves draws, densities and ranks of the model together."""
    _, cells, exact = calibration
    table = rank_uniformity(sbc_ranks(cells, exact), 99)
    assert (table["deviation"] < 1.28 * table["allowed"]).all()  # what 999 of 1,000 cases keep within
    assert table["spread"].mean() == pytest.approx(1, abs=0.05)
    assert abs(surprise(exact.types, cells.obs["truth"])) < 3
    assert evaluation.scores(cells.obs["truth"], exact.types)["calibration_error"] < 0.05


@pytest.mark.slow
def test_ranks_among_the_guides_draws_misfit_by_little(calibration):
    """What is allowed, over chance: the guide is one normal distribution a cell, so it is somewhat too narrow."""
    model, cells, exact = calibration
    claimed = guide_posterior(model, cells)
    table = rank_uniformity(sbc_ranks(cells, claimed), 99)
    assert table["deviation"].max() < 0.09
    assert table["spread"].between(0.95, 1.25).all()
    assert table["spread"].mean() > 1.03  # the misfit is there
    assert table["shift"].abs().max() < 0.05
    ours, best = (evaluation.scores(cells.obs["truth"], p) for p in (claimed.types, exact.types))
    assert ours["accuracy"] > best["accuracy"] - 0.02  # the best that anybody can do on these cells
    assert ours["calibration_error"] < 0.05
    assert ours["log_loss"] < best["log_loss"] + 0.06


@pytest.mark.slow
def test_a_guide_half_as_wide_is_found_out(calibration):
    """The control that must fail."""
    model, cells, _ = calibration
    table = rank_uniformity(sbc_ranks(cells, guide_posterior(model, cells, scale=0.5)), 99)
    assert (table["deviation"] > 2 * table["allowed"]).all()
    assert (table["spread"] > 1.5).all()


@pytest.mark.slow
def test_a_library_prior_that_is_not_the_storys_is_found_out(calibration):
    """Densities of another story than the one the cells were drawn from: the ranks of l give it away."""
    model, cells, _ = calibration
    model.library_loc += 0.5
    try:
        table = rank_uniformity(sbc_ranks(cells[:300], exact_posterior(model, cells[:300], proposals=500)), 99)
    finally:
        model.library_loc -= 0.5
    assert table.loc["log l", "deviation"] > table.loc["log l", "allowed"]

"""From model to arrays: probabilities that sum to one, depend on the cell alone, and average over its uncertainty."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch

from scanvi_tutorial.inference.predictions import label_probabilities, latent, posterior_predictive
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.model.bound import evaluating
from scanvi_tutorial.model.scanvi import SCANVI


def test_every_row_is_a_distribution_over_the_labels(small_model, tiny):
    adata = tiny()
    table = label_probabilities(small_model, adata)
    assert list(table.columns) == small_model.label_names
    assert table.index.equals(adata.obs_names)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-12)


def test_a_cells_answer_depends_on_the_cell_alone(small_model, tiny):
    adata = tiny(cells=1_100)  # more than twice as many as are read at once
    together, where = label_probabilities(small_model, adata), latent(small_model, adata)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    shuffled = adata[order].copy()
    np.testing.assert_allclose(label_probabilities(small_model, shuffled), together.iloc[order], rtol=1e-5)
    np.testing.assert_allclose(latent(small_model, shuffled), where[order], rtol=1e-4, atol=1e-6)
    alone = pd.concat([label_probabilities(small_model, adata[[i]].copy()) for i in range(5)])
    np.testing.assert_allclose(alone, together.iloc[:5], rtol=1e-5)


def test_averaging_over_draws_tends_to_the_integral(small_model, tiny):
    """An independent truth: Gauss-Hermite quadrature over the two dimensions of z2."""
    adata = tiny(cells=6)
    x = torch.as_tensor(adata.X.toarray())
    points, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    with evaluating(small_model):
        loc, scale, *_ = small_model.z2l_encoder(x)
        exact = sum(
            u * v * small_model.classifier(loc + scale * torch.tensor([a, b], dtype=torch.float32)).softmax(-1)
            for a, u in zip(points, weights, strict=True)
            for b, v in zip(points, weights, strict=True)
        )
    np.testing.assert_allclose(label_probabilities(small_model, adata, samples=20_000), exact, atol=0.01)


def test_plug_in_is_the_classifier_at_the_mean(small_model, tiny):
    adata = tiny()
    with evaluating(small_model):
        wanted = small_model.classifier(torch.as_tensor(latent(small_model, adata))).softmax(-1)
    np.testing.assert_allclose(label_probabilities(small_model, adata, samples=0), wanted, rtol=1e-5)


def test_draws_follow_their_seed_and_touch_no_global_generator(small_model, tiny):
    adata, before = tiny(), torch.get_rng_state()
    first, again, other = (label_probabilities(small_model, adata, seed=seed) for seed in (1, 1, 2))
    posterior_predictive(small_model, adata)
    assert torch.equal(torch.get_rng_state(), before)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not np.allclose(first, other, rtol=1e-9)


def test_evaluating_leaves_the_mode_as_it_was(small_model):
    for training in (True, False):
        small_model.train(training)
        with contextlib.suppress(RuntimeError), evaluating(small_model):
            assert not small_model.training
            raise RuntimeError("even an error leaves it so")
        assert small_model.training is training


def test_drawn_counts_have_the_means_and_zeros_the_model_says(tiny, small_config):
    """With a decoder set by hand, predicted means are (1 − σ(π)) l ρ, and predicted zeros the ZINB's own."""
    adata = tiny(cells=4_000)
    model = SCANVI.from_anndata(adata, small_config)
    share = torch.arange(1.0, 10.0) / 45
    with torch.no_grad():
        head = model.x_decoder.heads.layers[-1]
        head.weight.zero_()
        head.bias[:9], head.bias[9:] = share.log(), -1.0
        model.log_inverse_dispersion.fill_(1.0)
        model.z2l_encoder.heads.layers[-1].weight.zero_()
    check = posterior_predictive(model, adata)
    totals = torch.as_tensor(adata.X.toarray().sum(1, keepdims=True)).repeat(5, 1)
    ell = torch.distributions.LogNormal(totals.log(), model.library_scale).sample()  # where the guide starts
    exact = model.counts(torch.zeros(20_000, 2), ell)
    np.testing.assert_allclose(check["predicted_mean"], exact.mean.mean(0).detach(), rtol=0.08)
    zeros = exact.log_prob(torch.zeros(20_000, 9)).exp().mean(0).detach()
    np.testing.assert_allclose(check["predicted_zeros"], zeros, atol=0.03)
    counts = adata.X.toarray()
    np.testing.assert_allclose(check["observed_mean"], counts.mean(0), rtol=1e-6)
    np.testing.assert_allclose(check["observed_zeros"], (counts == 0).mean(0), rtol=1e-6)


def test_missing_genes_are_refused_and_reordered_ones_put_right(small_model, tiny):
    adata = tiny()
    with pytest.raises(InputError, match="gene3"):
        latent(small_model, adata[:, adata.var_names != "gene3"].copy())
    np.testing.assert_allclose(latent(small_model, adata[:, ::-1].copy()), latent(small_model, adata))


def test_negative_samples_are_refused(small_model, tiny):
    with pytest.raises(ValueError, match="samples"):
        label_probabilities(small_model, tiny(), samples=-1)

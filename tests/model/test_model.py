"""The model: Pyro's loss and gradients against a bound written by hand, its sites, its label term, its files."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import oracle
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.inspect import get_model_relations

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.model.bound import bound_terms, estimator, traces
from scanvi_tutorial.model.persistence import PersistenceError, read_file, write_file
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import Half, Minibatch
from scanvi_tutorial.training.objective import KLWeight, PyroEngine, loss_of

LIKELIHOODS = ["zinb", "nb", "poisson"]


def double(adata, config, rows=slice(None)):
    """Return a model and cells in float64, with weights moved away from their symmetric start."""
    model = SCANVI.from_anndata(adata, config).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    x = torch.as_tensor(adata.X[rows].toarray(), dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.as_tensor(adata.obs["truth"].cat.codes.to_numpy()[rows].copy()).long()]
    return model, x, y


def noise_of(model, x, y):
    """Return the standard-normal draws that the guide uses after `torch.manual_seed(1)`."""
    torch.manual_seed(1)
    return oracle.noise_of(traces(model, x, y)[0])


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
@pytest.mark.parametrize("library", ["latent", "observed"])
@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_pyros_loss_and_every_gradient_are_those_of_the_bound_by_hand(
    tiny, small_config, gene_likelihood, library, labeled, kl_weight
):
    config = replace(small_config, gene_likelihood=gene_likelihood, library=library)
    model, x, y = double(tiny(), config)
    y = y if labeled else None
    noise = noise_of(model, x, y)

    torch.manual_seed(1)
    with KLWeight(kl_weight):
        pyros = estimator().differentiable_loss(model.model, model.guide, x, y)
    pyros_gradients = oracle.gradients(model, pyros)
    by_hand = oracle.minus_bound(model, x, noise, y, kl_weight)
    by_hand_gradients = oracle.gradients(model, by_hand)

    torch.testing.assert_close(pyros, by_hand, rtol=1e-9, atol=0)
    assert pyros_gradients.keys() == by_hand_gradients.keys()
    for name in by_hand_gradients:
        torch.testing.assert_close(pyros_gradients[name], by_hand_gradients[name], rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
def test_of_a_thinned_cell_the_library_prior_alone_moves(tiny, small_config, labeled):
    model, x, y = double(tiny(), small_config)
    y = y if labeled else None
    depth = torch.linspace(0.1, 1, len(x), dtype=torch.float64)[:, None]
    noise = noise_of(model, x, y)
    torch.manual_seed(1)
    pyros = estimator().differentiable_loss(model.model, model.guide, x, y, depth)
    torch.testing.assert_close(pyros, oracle.minus_bound(model, x, noise, y, depth=depth), rtol=1e-9, atol=0)


def test_everywhere_a_labeled_cell_adds_u_and_its_cross_entropy(tiny, small_config):
    model, x, y = double(tiny(), small_config)
    noise = noise_of(model, x, None)
    torch.manual_seed(1)
    loss = loss_of(PyroEngine(model), Minibatch(None, Half(x, y)), objective="everywhere")
    found = oracle.gradients(model, loss)
    z2_loc, z2_scale, *_ = model.z2l_encoder(x)
    log_label = model.classifier(z2_loc + z2_scale * noise["z2"]).log_softmax(-1)
    cross_entropy = -(log_label * y).sum(-1).mean()
    by_hand = model.labeled_fraction * oracle.minus_bound(model, x, noise) / len(x)
    by_hand = by_hand + model.config.label_weight * cross_entropy
    torch.testing.assert_close(loss, by_hand, rtol=1e-9, atol=0)
    for name, gradient in oracle.gradients(model, by_hand).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
def test_the_terms_of_the_bound_add_up_to_pyros_loss(tiny, small_config, labeled):
    model, x, y = double(tiny(), replace(small_config, label_weight=0.0))
    y = y if labeled else None
    torch.manual_seed(1)
    loss = estimator().loss(model.model, model.guide, x, y)
    torch.manual_seed(1)
    terms = bound_terms(model, x, y)
    bound = terms["log_likelihood"] - terms["kl_l"] - terms["kl_z"] - terms["kl_y"]
    assert -bound.sum().item() == pytest.approx(loss, rel=1e-9)


def label_gradient(model, x, y, with_label, without):
    """Return what a label term adds to the gradients of encoder and classifier, under the same noise."""
    found = []
    for program in (with_label, without):
        torch.manual_seed(1)
        loss = estimator().differentiable_loss(*program, x, y)
        found.append((loss.item(), flat(oracle.gradients(model, loss), model)))
    return found[0][0], found[0][1] - found[1][1]


def flat(found, model):
    """Join the gradients of encoder and classifier."""
    parts = [
        found.get(name, torch.zeros_like(parameter)).flatten()
        for name, parameter in model.named_parameters()
        if name.startswith(("classifier", "z2l_encoder"))
    ]
    return torch.cat(parts)


def test_without_labels_the_loss_is_the_mean_of_minus_u_whatever_share_is_labeled(tiny, small_config):
    model, x, _ = double(tiny(), small_config)
    assert 0 < model.labeled_fraction < 1
    noise = noise_of(model, x, None)
    by_hand = oracle.minus_bound(model, x, noise) / len(x)
    for objective, share in (("unlabeled", 1.0), ("labels", 1 - model.labeled_fraction)):
        torch.manual_seed(1)
        loss = loss_of(PyroEngine(model), Minibatch(Half(x), None), objective=objective)
        torch.testing.assert_close(loss, share * by_hand, rtol=1e-9, atol=0)


def test_a_label_weighs_alpha_times_its_cross_entropy_and_a_factor_with_a_score_does_not(tiny, small_config):
    """Pyro's tutorial puts a factor with has_rsample=False into the guide: the same loss, another gradient."""
    model, x, y = double(tiny(), small_config)

    def without_label_site(x, y):
        with poutine.block(hide=["label"]):
            model.model(x, y)
        with pyro.plate("labeled", len(x)):
            pass  # Pyro wants every plate of the guide in the model

    def guide_with_factor(has_rsample):
        def guide(x, y):
            with poutine.trace() as backwards:
                model.guide(x, y)
            z2 = backwards.trace.nodes["z2"]["value"]
            with pyro.plate("labeled", len(x)):
                log_q = dist.OneHotCategorical(logits=model.classifier(z2)).log_prob(y)
                pyro.factor("label_loss", -model.label_scale * log_q, has_rsample=has_rsample)

        return guide

    torch.manual_seed(1)
    guide, _ = traces(model, x, y)
    log_q = dist.OneHotCategorical(logits=model.classifier(guide.nodes["z2"]["value"])).log_prob(y)
    wanted = flat(oracle.gradients(model, -model.label_scale * log_q.sum()), model)

    without = (without_label_site, model.guide)
    loss, ours = label_gradient(model, x, y, (model.model, model.guide), without)
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)
    for has_rsample in (True, False):
        other_loss, theirs = label_gradient(model, x, y, (without_label_site, guide_with_factor(has_rsample)), without)
        assert other_loss == pytest.approx(loss, rel=1e-12)
        if has_rsample:
            torch.testing.assert_close(theirs, wanted, rtol=1e-6, atol=1e-9)
        else:
            assert theirs.norm() > 10 * wanted.norm()


def test_without_weight_there_is_no_label_site(tiny, small_config):
    model, x, y = double(tiny(), replace(small_config, label_weight=0.0))
    assert "label" not in poutine.trace(model.model).get_trace(x, y).nodes


def test_the_weight_of_a_label_is_w_times_cells_over_labeled_cells(tiny, small_config):
    adata = tiny(cells=30, labeled=3)
    model = SCANVI.from_anndata(adata, replace(small_config, label_weight=7.0))
    assert (adata.obs["label"] != "Unknown").sum() == 10
    assert model.label_scale == pytest.approx(7.0 * 30 / 10)


def test_arrows_of_model_and_guide(tiny, small_config):
    adata = tiny()
    model = SCANVI.from_anndata(adata, small_config)
    x, y = torch.as_tensor(adata.X.toarray()), torch.eye(3)[torch.zeros(30, dtype=torch.long)]
    forwards, backwards = get_model_relations(model.model, (x, y)), get_model_relations(model.guide, (x,))
    arrows = {site: set(parents) - {site} for site, parents in forwards["sample_sample"].items()}
    assert arrows == {"z1": set(), "y": set(), "z2": {"z1", "y"}, "l": set(), "x": {"z2", "l"}, "label": {"z2"}}
    assert set(forwards["observed"]) == {"y", "x", "label"}
    arrows = {site: set(parents) - {site} for site, parents in backwards["sample_sample"].items()}
    assert arrows == {"z2": set(), "l": set(), "y": {"z2"}, "z1": {"z2", "y"}}
    assert forwards["sample_dist"]["x"] == "ZeroInflatedNegativeBinomial"
    unlabeled = get_model_relations(model.model, (x,))
    assert "label" not in unlabeled["sample_sample"]
    assert unlabeled["observed"] == ["x"]


def test_the_decoder_of_genes_runs_once_however_many_labels_there_are(tiny, small_config):
    adata = tiny()
    model = SCANVI.from_anndata(adata, small_config)
    guide, story = traces(model, torch.as_tensor(adata.X.toarray()))
    assert story.nodes["x"]["log_prob"].shape == (30,)
    assert guide.nodes["z1"]["value"].shape == (3, 30, 2)
    assert story.nodes["z2"]["log_prob"].shape == (3, 30)


def test_library_prior_is_that_of_the_log_totals(tiny):
    adata = tiny()
    model = SCANVI.from_anndata(adata)
    totals = np.log(np.asarray(adata.X.sum(1)).ravel())
    assert model.library_loc == pytest.approx(totals.mean())
    assert model.library_scale == pytest.approx(totals.std())


def test_unused_categories_are_no_classes(tiny):
    adata = tiny()
    adata.obs["label"] = adata.obs["label"].cat.add_categories(["Phantom"])
    assert SCANVI.from_anndata(adata).label_names == ["B", "NK", "T"]


def test_same_seed_same_weights_other_seed_others_and_no_global_draw(tiny, small_config):
    before = torch.get_rng_state()
    first, again, other = (SCANVI.from_anndata(tiny(), small_config, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(first.parameters(), other.parameters(), strict=True))


def test_no_parameter_lives_in_pyros_global_store(tiny, small_config):
    model, x, y = double(tiny(), small_config)
    pyro.clear_param_store()
    estimator().loss(model.model, model.guide, x, y)
    assert len(pyro.get_param_store()) == 0
    assert "log_inverse_dispersion" in model.state_dict()


def test_pyros_own_sizes_can_be_fitted(tiny):
    model = SCANVI.from_anndata(tiny(), ModelConfig.tutorial())
    history = fit(model, tiny(), TrainConfig(max_epochs=1, batch_size=8))
    assert math.isfinite(history.frame["loss"].item())


def test_dispersion_stays_where_single_precision_can_follow(tiny, small_config):
    """Beyond θ of ten thousand a count is Poisson for all purposes; float32 against float64 there."""
    model, x, _ = double(tiny(), small_config)
    with torch.no_grad():
        model.log_inverse_dispersion.fill_(30.0)
    ell, z2 = x.sum(-1, keepdim=True), torch.zeros(len(x), 2, dtype=torch.float64)
    exact = model.counts(z2, ell).log_prob(x)
    model.float()
    single = model.counts(z2.float(), ell.float()).log_prob(x.float())
    torch.testing.assert_close(single.double(), exact, atol=5e-3, rtol=1e-3)
    assert model.inverse_dispersion.max() <= 10_001


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
def test_a_model_comes_back_from_its_file_to_the_bit(tiny, small_config, tmp_path, gene_likelihood):
    model = SCANVI.from_anndata(tiny(), replace(small_config, gene_likelihood=gene_likelihood))
    with torch.no_grad():
        model.z2l_encoder(torch.as_tensor(tiny().X.toarray()))  # moves the running statistics
        if model.log_inverse_dispersion is not None:
            model.log_inverse_dispersion += 0.5
    back = SCANVI.load(model.save(tmp_path / "model"))
    assert back.config == model.config
    assert (back.genes, back.label_names, back.labeled_fraction) == (
        model.genes,
        model.label_names,
        model.labeled_fraction,
    )
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not back.training


def test_loading_draws_nothing_from_the_global_generator(small_model, tmp_path):
    path = small_model.save(tmp_path / "model")
    before = torch.get_rng_state()
    SCANVI.load(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"likelihood": "gaussian"}},
        {"config": {"flavour": "vanilla"}},
        {"config": [1]},
        {"genes": ["only_one"]},
        {"surprise": 1},
        {"batches": []},
        {"batches": {"key": "run", "names": ["a"], "library_loc": [1], "library_scale": [1]}},
        {"batches": {"key": "run", "names": ["a", "b"], "library_loc": [1, 2], "library_scale": [1, 2]}},
        {"library_loc": "deep"},
        {"labels": None},
    ],
)
def test_a_file_of_another_model_is_refused(small_model, tmp_path, change):
    path = small_model.save(tmp_path / "model")
    tensors, about = read_file(path)
    write_file(path, tensors, about | change)
    with pytest.raises(PersistenceError, match="no scANVI model"):
        SCANVI.load(path)


@pytest.mark.slow
def test_probabilities_are_the_same_in_another_process(small_model, tiny, tmp_path):
    adata = tiny()
    model, file = small_model.save(tmp_path / "model"), tmp_path / "cells.h5ad"
    adata.write_h5ad(file)
    program = (
        "import sys, anndata, scanvi_tutorial as st; model = st.SCANVI.load(sys.argv[1]);"
        "p = st.label_probabilities(model, anndata.read_h5ad(sys.argv[2])); p.to_pickle(sys.argv[3])"
    )
    out = tmp_path / "p.pkl"
    subprocess.run([sys.executable, "-c", program, model, file, out], check=True, timeout=120)
    pd.testing.assert_frame_equal(pd.read_pickle(out), label_probabilities(SCANVI.load(model), adata), check_exact=True)


def test_bad_labels_and_counts_are_refused(tiny):
    adata = tiny()
    with pytest.raises(InputError, match="no column 'celltype'"):
        SCANVI.from_anndata(adata, labels_key="celltype")
    adata.X = adata.X * 0.5
    with pytest.raises(InputError, match="raw counts"):
        SCANVI.from_anndata(adata)


def test_one_cell_or_equal_totals_leave_a_proper_library_prior(tiny):
    adata = tiny()
    adata.X = np.ones(adata.shape, dtype=np.float32)
    model = SCANVI.from_anndata(adata)
    assert model.library_scale > 0
    assert math.isfinite(model.library_loc)

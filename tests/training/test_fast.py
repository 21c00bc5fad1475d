"""The fast engine: it minimizes what Pyro's does, with the same noise, in value, gradient and whole fits."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import scipy.sparse
import torch
from pyro import poutine
from scipy.sparse import csr_matrix
from torch.nn.functional import linear

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.inputs.arrays import SparseCounts, dense
from scanvi_tutorial.model import likelihood
from scanvi_tutorial.model.bound import bound_terms
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training import fused
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.fused import Workspace, count_log_likelihood, sparse_linear, to_column_major
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import Half, Minibatch
from scanvi_tutorial.training.objective import PyroEngine, loss_of

KINDS = ["zinb", "nb", "poisson"]


def moved(adata, config):
    """Return a model in float64 with no parameter where it started."""
    model = SCANVI.from_anndata(adata, config).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


def both_halves(adata, thin=True):
    """Return one minibatch twice: dense for Pyro, sparse for the fast engine."""
    parts = [csr_matrix(adata.X[rows], dtype=np.float64) for rows in (slice(0, 17), slice(17, 30))]
    y = torch.eye(3, dtype=torch.float64)[torch.arange(13) % 3]
    depths = [torch.linspace(0.2, 1, n, dtype=torch.float64)[:, None] if thin else None for n in (17, 13)]
    forms = [torch.from_numpy(part.toarray()) for part in parts], [SparseCounts.from_csr(part) for part in parts]
    return [Minibatch(Half(x, None, depths[0]), Half(x_labeled, y, depths[1])) for x, x_labeled in forms]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["latent", "observed"])
@pytest.mark.parametrize("objective", ["labels", "everywhere"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_loss_and_every_gradient_are_those_of_pyro(tiny, small_config, kind, library, objective, norm):
    """With dropout, KL terms at a third and downsampled cells: random numbers are drawn in the same order."""
    config = replace(small_config, gene_likelihood=kind, library=library, norm=norm, dropout_rate=0.3, label_weight=7.0)
    model = moved(tiny(), config)
    whole, sparse = both_halves(tiny())
    torch.manual_seed(1)
    pyros = loss_of(PyroEngine(model.train()), whole, 0.3, objective)
    wanted = oracle.gradients(model, pyros)
    fast = FastEngine(model)
    torch.manual_seed(1)
    ours = loss_of(fast, sparse, 0.3, objective)
    found = oracle.gradients(model, ours)
    torch.testing.assert_close(ours, pyros, rtol=1e-10, atol=0)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("half", ["unlabeled", "labeled"])
def test_either_half_may_be_absent(tiny, small_config, half):
    model = moved(tiny(), small_config).eval()
    whole, sparse = both_halves(tiny())
    torch.manual_seed(1)
    wanted = loss_of(PyroEngine(model), replace(whole, **{half: None}))
    torch.manual_seed(1)
    found = loss_of(FastEngine(model), replace(sparse, **{half: None}))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)


def test_no_label_weight_asks_no_classifier_for_labels(tiny, small_config):
    model = moved(tiny(), replace(small_config, label_weight=0.0)).eval()
    whole, sparse = both_halves(tiny())
    torch.manual_seed(1)
    wanted = loss_of(PyroEngine(model), whole)
    torch.manual_seed(1)
    torch.testing.assert_close(loss_of(FastEngine(model), sparse), wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("labeled", [False, True])
def test_terms_are_those_of_the_traces(tiny, small_config, labeled):
    model = moved(tiny(), small_config).eval()
    whole, sparse = both_halves(tiny())
    half, other = (whole.labeled, sparse.labeled) if labeled else (whole.unlabeled, sparse.unlabeled)
    other = replace(other, depth=None)  # cells that are watched are whole
    with torch.no_grad():
        torch.manual_seed(2)
        wanted = bound_terms(model, half.x, half.y)
        torch.manual_seed(2)
        found = FastEngine(model).terms(other)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-10, msg=name)


def test_logits_are_those_at_the_posterior_mean(tiny, small_config):
    model = moved(tiny(), small_config).eval()
    whole, sparse = both_halves(tiny())
    wanted = model.classifier(model.z2l_encoder(whole.unlabeled.x)[0])
    torch.testing.assert_close(FastEngine(model).logits(sparse.unlabeled), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("objective", ["labels", "everywhere", "unlabeled"])
def test_whole_fits_agree(tiny, objective):
    """Float32 and many steps: the paths part only by rounding."""
    adata = tiny(cells=120)
    config = TrainConfig(max_epochs=4, batch_size=16, warmup=0.5, objective=objective)
    frames, states = [], []
    for engine in ("fast", "pyro"):
        model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)))
        frames.append(fit(model, adata, replace(config, engine=engine)).frame)
        states.append(model.state_dict())
    np.testing.assert_allclose(frames[0].to_numpy(), frames[1].to_numpy(), rtol=2e-3, atol=2e-3)
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0.05, atol=0.02, msg=name)
        assert value.is_contiguous()


def test_the_fast_engine_runs_without_pyro(tiny, monkeypatch):
    """Nobody traces anything: the claim that makes it fast."""

    def refuse(*args, **kwargs):
        raise AssertionError("Pyro was asked")

    monkeypatch.setattr(poutine.trace_messenger.TraceMessenger, "__enter__", refuse)
    adata = tiny()
    model = SCANVI.from_anndata(adata, ModelConfig(n_latent=2, gene_hidden=(8,)))
    fit(model, adata, TrainConfig(max_epochs=2, batch_size=16))
    with pytest.raises(AssertionError, match="Pyro was asked"):
        fit(model, adata, TrainConfig(max_epochs=2, batch_size=16, engine="pyro"))


# --- the likelihood fused with the decoder's last layer


def decoder(kind, cells=9, genes=40, hidden=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    outputs = genes * (2 if kind == "zinb" else 1)
    parts = [draw(cells, hidden), draw(outputs, hidden), draw(outputs), draw(cells, 1) + 4, draw(genes)]
    return [part.requires_grad_() for part in parts]


def sparse_counts(cells=9, genes=40, seed=0):
    rng = np.random.default_rng(seed)
    return csr_matrix(rng.poisson(rng.gamma(0.3, 4, size=(cells, genes))).astype(np.float64))


def plain(kind, counts, hidden, weight, bias, log_library, log_theta):
    """The reference: dense counts, the distribution of likelihood.py, one probability an entry."""
    raw, genes = linear(hidden, weight, bias), counts.shape[1]
    log_mean = log_library + raw[:, :genes].log_softmax(-1)
    law = likelihood.count_distribution(kind, log_mean, log_theta, raw[:, genes:] if kind == "zinb" else None)
    return law.log_prob(torch.from_numpy(counts.toarray())).sum(-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows_at_once", [1, 4, 100])
def test_values_and_every_gradient_are_those_of_the_plain_distribution(kind, rows_at_once, monkeypatch):
    monkeypatch.setattr(fused, "_ENTRIES_AT_ONCE", 40 * rows_at_once)
    counts, parts = sparse_counts(), decoder(kind)
    wanted = plain(kind, counts, *parts)
    theta = parts[4] if kind != "poisson" else None
    mean, each = count_log_likelihood(kind, SparseCounts.from_csr(counts), *parts[:4], theta)
    torch.testing.assert_close(each, wanted, rtol=1e-10, atol=1e-10)
    used = parts if kind != "poisson" else parts[:4]
    for found, truth in zip(
        torch.autograd.grad(3 * mean, used), torch.autograd.grad(3 * wanted.mean(), used), strict=True
    ):
        torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["zinb", "nb"])
@pytest.mark.parametrize("log_theta", [-8.0, 9.2])
@pytest.mark.parametrize("log_library", [-5.0, 14.0])
@pytest.mark.parametrize("logit", [-60.0, 60.0])
@pytest.mark.parametrize("gate", [-200.0, 200.0])
def test_values_and_gradients_stay_finite_at_the_extremes(kind, log_theta, log_library, logit, gate):
    counts = csr_matrix(np.array([[0, 1, 1e5, 0]], dtype=np.float32))
    bias = torch.tensor([0.0, logit, 0.0, -logit] + ([gate] * 4 if kind == "zinb" else []), requires_grad=True)
    hidden, weight = torch.zeros(1, 2, requires_grad=True), torch.zeros(len(bias), 2, requires_grad=True)
    library, theta = torch.tensor([[log_library]], requires_grad=True), torch.full((4,), log_theta, requires_grad=True)
    parts = hidden, weight, bias, library, theta
    mean, each = count_log_likelihood(kind, SparseCounts.from_csr(counts), *parts)
    assert each.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(mean, parts))


@pytest.mark.parametrize("kind", KINDS)
def test_cells_without_counts_and_genes_in_every_cell(kind):
    parts = decoder(kind, cells=2, genes=3)
    for x in (np.zeros((2, 3)), np.ones((2, 3)), np.array([[0.0, 0, 0], [1, 0, 7]])):
        counts = csr_matrix(x)
        _, each = count_log_likelihood(kind, SparseCounts.from_csr(counts), *parts)
        torch.testing.assert_close(each, plain(kind, counts, *parts))


def test_memory_that_is_used_again_spoils_no_gradient():
    """Two calls of one step, as the halves of a minibatch make them, larger and smaller in turn."""
    workspace = Workspace()
    sizes, kinds = (9, 4, 7), [decoder("zinb", cells=n, seed=n) for n in (9, 4, 7)]
    for n, parts in zip(sizes, kinds, strict=True):
        other = decoder("zinb", cells=5, seed=8)
        counts = sparse_counts(n)
        mean, _ = count_log_likelihood("zinb", SparseCounts.from_csr(counts), *parts, workspace=workspace, name="a")
        count_log_likelihood("zinb", SparseCounts.from_csr(sparse_counts(5)), *other, workspace=workspace, name="b")
        wanted = torch.autograd.grad(plain("zinb", counts, *parts).mean(), parts)
        for found, truth in zip(torch.autograd.grad(mean, parts), wanted, strict=True):
            torch.testing.assert_close(found, truth)


# --- sparse counts and the encoder's first layer


def test_a_sparse_product_and_its_gradients_are_those_of_the_dense_one():
    whole = sparse_counts(6, 11).toarray()
    whole[2] = 0  # a cell without counts
    counts = csr_matrix(whole)
    layer = torch.nn.Linear(11, 4).double()
    x = SparseCounts.from_csr(counts)
    weights = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4)
    wanted = layer(torch.from_numpy(counts.toarray()))
    slopes = torch.autograd.grad((wanted * weights).sum(), (layer.weight, layer.bias))
    before = layer.weight.clone()
    to_column_major(layer)
    assert torch.equal(layer.weight, before)
    found = sparse_linear(x, x.values, layer.weight, layer.bias)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (layer.weight, layer.bias)), slopes, strict=True
    ):
        torch.testing.assert_close(one, other)


def test_sparse_counts_give_back_what_they_were_made_of():
    counts = sparse_counts(6, 11)
    x = SparseCounts.from_csr(counts)
    assert len(x) == 6
    np.testing.assert_array_equal(x.dense(), counts.toarray())
    np.testing.assert_array_equal(x.totals[:, 0], counts.sum(1).A1)
    assert x.to(dtype=torch.float32).values.dtype == torch.float32
    np.testing.assert_array_equal(x.values[x.order], counts.tocsc().data)


def test_rows_of_the_data_become_sparse_counts(tiny):
    adata = tiny()
    assert scipy.sparse.issparse(adata.X)
    rows = np.array([3, 1, 1])
    x = SparseCounts.from_csr(csr_matrix(adata.X)[rows])
    assert torch.equal(x.dense(), dense(csr_matrix(adata.X), rows))

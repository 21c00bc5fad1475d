"""The count distributions, against SciPy, Pyro and their own samples."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch.nn.functional import logsigmoid, softplus

from scanvi_tutorial.model.likelihood import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial, count_distribution

MEAN = 3.7
THETA = 1.9
GATE = -0.6


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def of_kind(kind, mean=MEAN, theta=THETA, gate=GATE):
    return count_distribution(kind, tensor(mean).log(), tensor([theta]).log(), tensor(gate))


@pytest.fixture
def counts():
    return torch.arange(60, dtype=torch.float64)


def scipy_negative_binomial(counts, mean, theta):
    return scipy.stats.nbinom(theta, theta / (theta + mean)).logpmf(counts)


def test_poisson_is_scipys(counts):
    truth = scipy.stats.poisson(MEAN).logpmf(counts.numpy())
    np.testing.assert_allclose(of_kind("poisson").log_prob(counts).numpy(), truth, rtol=1e-10)


def test_negative_binomial_is_scipys(counts):
    truth = scipy_negative_binomial(counts.numpy(), MEAN, THETA)
    np.testing.assert_allclose(of_kind("nb").log_prob(counts).numpy(), truth, rtol=1e-10)


def test_zero_inflation_moves_mass_to_zero_and_nowhere_else(counts):
    dropped = 1 / (1 + math.exp(-GATE))
    component = np.exp(scipy_negative_binomial(counts.numpy(), MEAN, THETA))
    truth = np.log((1 - dropped) * component + dropped * (counts.numpy() == 0))
    np.testing.assert_allclose(of_kind("zinb").log_prob(counts).numpy(), truth, rtol=1e-10)


def test_zero_inflated_is_pyros_where_pyros_is_finite(counts):
    logits = tensor(MEAN).log() - tensor(THETA).log()
    pyros = dist.ZeroInflatedNegativeBinomial(total_count=tensor(THETA), logits=logits, gate_logits=tensor(GATE))
    torch.testing.assert_close(of_kind("zinb").log_prob(counts), pyros.log_prob(counts))


def entry_by_entry(kind, x, log_mean, log_theta=None, gate=None):
    """The log-probabilities by their textbook form, every entry treated alike."""
    if kind == "poisson":
        return x * log_mean - log_mean.exp() - torch.lgamma(x + 1)
    theta, logits = log_theta.exp(), log_mean - log_theta
    choose = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    component = choose - theta * softplus(logits) + x * logsigmoid(logits)
    if kind == "nb":
        return component
    return torch.where(x == 0, torch.logaddexp(gate, component), component) - softplus(gate)


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
@pytest.mark.parametrize("shape", [(7, 11), (1, 11), (3, 7, 11)], ids=["cells and genes", "one cell", "draws too"])
@pytest.mark.parametrize("zeros", ["some", "all", "none"])
def test_values_and_every_gradient_are_those_of_the_textbook_form(kind, shape, zeros):
    generator = torch.Generator().manual_seed(0)
    sizes = [shape, shape[-1:], shape][: {"poisson": 1, "nb": 2, "zinb": 3}[kind]]
    parts = [torch.randn(size, dtype=torch.float64, generator=generator).requires_grad_() for size in sizes]
    x = tensor([0.0, 0, 1, 5, 0, 2, 0, 30, 0, 0, 1]).expand(shape[-2:])
    x = {"some": x, "all": 0 * x, "none": x + 1}[zeros]
    weight = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
    results = []
    for values in (count_distribution(kind, *parts).log_prob(x), entry_by_entry(kind, x, *parts)):
        results.append((values, *torch.autograd.grad((values * weight).sum(), parts)))
    for ours, textbook in zip(*results, strict=True):
        torch.testing.assert_close(ours, textbook, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_probabilities_sum_to_one(kind):
    everything = torch.arange(2_000, dtype=torch.float64)
    torch.testing.assert_close(
        of_kind(kind).log_prob(everything[:, None]).logsumexp(0), tensor([0.0]), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_mean_and_variance_are_those_of_the_probabilities(kind):
    everything = torch.arange(2_000, dtype=torch.float64)[:, None]
    distribution = of_kind(kind)
    mass = distribution.log_prob(everything).exp()
    mean = (mass * everything).sum(0)
    torch.testing.assert_close(distribution.mean.expand(1), mean)
    torch.testing.assert_close(distribution.variance.expand(1), (mass * (everything - mean) ** 2).sum(0))


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_samples_follow_the_probabilities(kind):
    torch.manual_seed(0)
    draws = of_kind(kind).sample(torch.Size([20_000])).flatten().numpy()
    values = np.arange(12)
    expected = (
        20_000 * of_kind(kind).log_prob(torch.as_tensor(values, dtype=torch.float64)[:, None]).exp().flatten().numpy()
    )
    seen = np.array([(draws == value).sum() for value in values])
    seen, expected = np.append(seen, 20_000 - seen.sum()), np.append(expected, 20_000 - expected.sum())
    assert scipy.stats.chisquare(seen, expected).pvalue > 1e-3


@pytest.mark.parametrize("gate", [-40.0, 0.0, 40.0])
@pytest.mark.parametrize("count", [0.0, 1.0, 1e5])
@pytest.mark.parametrize("log_theta", [-10.0, 2.3, 15.0])
@pytest.mark.parametrize("log_mean", [-30.0, 0.0, 11.0])
def test_float32_stays_finite_at_the_extremes(gate, count, log_theta, log_mean):
    parameters = [torch.tensor(v, requires_grad=True) for v in (log_mean, log_theta, gate)]
    log_prob = ZeroInflatedNegativeBinomial(*parameters).log_prob(torch.tensor(count))
    log_prob.backward()
    assert torch.isfinite(log_prob)
    assert all(torch.isfinite(p.grad) for p in parameters)


def test_more_dispersion_means_more_variance():
    calm, wild = (of_kind("nb", theta=theta).variance for theta in (10.0, 0.1))
    assert (wild > calm).all()


def test_negative_binomial_tends_to_poisson(counts):
    near = of_kind("nb", theta=1e8).log_prob(counts)
    np.testing.assert_allclose(near.numpy(), of_kind("poisson").log_prob(counts).numpy(), rtol=1e-4)


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_expanding_repeats_the_distribution(kind):
    wide = of_kind(kind).expand(torch.Size([3, 1]))
    assert wide.batch_shape == (3, 1)
    one = of_kind(kind).log_prob(tensor([2.0]))
    torch.testing.assert_close(wide.log_prob(tensor([2.0])), one.expand(3, 1))


@pytest.mark.parametrize(
    "distribution",
    [
        lambda: Poisson(torch.zeros(2), validate_args=True),
        lambda: NegativeBinomial(torch.zeros(2), torch.zeros(2), validate_args=True),
        lambda: ZeroInflatedNegativeBinomial(torch.zeros(2), torch.zeros(2), torch.zeros(2), validate_args=True),
    ],
)
@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_what_is_no_count_is_refused(distribution, value):
    with pytest.raises(ValueError, match="support"):
        distribution().log_prob(torch.full((2,), value))


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="zinb, nb or poisson"):
        of_kind("gaussian")


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_counts_of_another_type_of_number_give_the_same_log_probabilities(kind):
    counts = torch.tensor([0.0, 3.0, 20_000.0], dtype=torch.float64)
    wanted = of_kind(kind).log_prob(counts)
    torch.testing.assert_close(of_kind(kind).log_prob(counts.long()), wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_kind(kind).log_prob(counts.float()), wanted, rtol=1e-12, atol=0)

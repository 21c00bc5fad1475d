"""The quick count distributions, against the plain ones: values, gradients, extremes."""

import pytest
import torch

from scanvi_tutorial.model import likelihood, sparse_likelihood

SHAPES = {"cells and genes": (7, 11), "one cell": (1, 11), "draws too": (3, 7, 11)}


def both(kind, log_mean, log_theta=None, gate=None):
    return [
        sparse_likelihood.count_distribution(kind, log_mean, log_theta, gate, plain=plain) for plain in (True, False)
    ]


def used(kind, parts):
    return parts[: {"poisson": 1, "nb": 2, "zinb": 3}[kind]]


def parameters(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, dtype=torch.float64, generator=generator)  # noqa: E731
    return [draw(*shape).requires_grad_(), draw(shape[-1]).requires_grad_(), draw(*shape).requires_grad_()]


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_every_gradient_are_those_of_the_plain_distribution(kind, shape):
    parts = parameters(shape)
    x = torch.tensor([0.0, 0, 1, 5, 0, 2, 0, 30, 0, 0, 1], dtype=torch.float64).expand(shape[-2:])
    weight = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
    results = []
    plain, quick = laws = both(kind, *used(kind, parts))
    assert type(plain) is getattr(likelihood, type(quick).__name__) is not type(quick)
    for law in laws:
        value = law.log_prob(x)
        results.append((value, *torch.autograd.grad((value * weight).sum(), used(kind, parts))))
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
def test_the_hand_written_derivatives_are_those_of_finite_differences(kind):
    parts = parameters((3, 4), seed=1)
    x = torch.tensor([[0.0, 1, 5, 0], [2, 0, 0, 30], [0, 0, 1, 1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *p: both(kind, *p)[1].log_prob(x), used(kind, parts))


@pytest.mark.parametrize("kind", ["poisson", "nb", "zinb"])
@pytest.mark.parametrize("log_theta", [-8.0, 9.2])
@pytest.mark.parametrize("log_mean", [-30.0, 11.0])
@pytest.mark.parametrize("gate", [-40.0, 40.0])
def test_values_and_gradients_stay_finite_at_the_extremes(kind, log_theta, log_mean, gate):
    parts = [torch.tensor([[log_mean] * 3]), torch.tensor([log_theta] * 3), torch.tensor([[gate] * 3])]
    parts = [part.requires_grad_() for part in parts]
    value = both(kind, *parts)[1].log_prob(torch.tensor([[0.0, 1.0, 1e5]]))
    assert value.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value.sum(), used(kind, parts)))


def test_counts_alone_are_no_reason_to_fail():
    """Cells without any count, or genes that every cell has, leave one of the two parts empty."""
    parts = parameters((2, 3))
    for x in (torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)):
        plain, quick = (law.log_prob(x) for law in both("zinb", *parts))
        torch.testing.assert_close(quick, plain)


def test_impossible_counts_are_refused_where_asked():
    law = sparse_likelihood.NegativeBinomial(torch.zeros(3), torch.zeros(3), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.tensor([0.0, 1.0, -1.0]))

"""Pyro's tutorial as a reference arm: sizes and faults are those of the example, and no trace of it stays behind."""

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.inspect import get_model_relations
from torch import nn
from torch.nn.functional import cross_entropy

from scanvi_tutorial.teaching.pyro_tutorial import TutorialModel, _run_epoch, fit_tutorial, pyro_tutorial


def labeled_cells(cells=12, genes=9, **options):
    """Return a tutorial model in float64 and evaluation mode, so that a cell doesn't depend on those beside it."""
    torch.manual_seed(0)
    model = TutorialModel(
        genes, 3, library_loc=3.0, library_scale=0.5, scale=options.pop("scale", 1 / (cells * genes)), **options
    )
    x = torch.poisson(torch.full((cells, genes), 4.0)).double()
    y = torch.eye(3).double()[torch.arange(cells) % 3]
    return model.double().eval(), x, y


def loss_and_gradient(model, x, y):
    """Return Pyro's loss and its gradient in the weights of encoder and classifier, under one noise."""
    weights = [*model.z2l_encoder.parameters(), *model.classifier.parameters()]
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(1)
        elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
        loss = elbo.differentiable_loss(model.model, model.guide, x, y)
        gradient = torch.autograd.grad(loss, weights)
    return loss.item(), torch.cat([g.flatten() for g in gradient])


def plain_gradient(model, x, y):
    """Return the sum over cells of −log q(y | z2), a number a cell, and its gradient in the same weights."""
    weights = [*model.z2l_encoder.parameters(), *model.classifier.parameters()]
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(1)
        z2 = poutine.trace(model.guide).get_trace(x, y).nodes["z2"]["value"]
        loss = cross_entropy(model.classifier(z2), y.argmax(-1), reduction="sum")
        gradient = torch.autograd.grad(loss, weights)
    return torch.cat([g.flatten() for g in gradient])


def without_label(model, x, y):
    """Return the gradient of the bound alone."""
    alpha, model.alpha = model.alpha, 0.0
    try:
        model.has_rsample, said = True, model.has_rsample
        return loss_and_gradient(model, x, y)[1]
    finally:
        model.alpha, model.has_rsample = alpha, said


def test_the_loss_does_not_know_what_the_factor_is_said_to_be():
    model, x, y = labeled_cells()
    losses = []
    for model.has_rsample in (True, False):
        losses.append(loss_and_gradient(model, x, y)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_a_factor_that_depends_on_no_draw_of_its_own_weighs_alpha_if_it_is_said_so():
    model, x, y = labeled_cells(has_rsample=True)
    label = loss_and_gradient(model, x, y)[1] - without_label(model, x, y)
    torch.testing.assert_close(label, model.scale * model.alpha * plain_gradient(model, x, y), rtol=1e-6, atol=1e-12)


def test_as_the_tutorial_says_it_a_label_weighs_alpha_times_one_plus_the_loss_of_its_cell():
    """The scale of 1 / (minibatch · genes) cancels: the loss is in nats per cell, whatever is printed."""
    for scale in (1.0, 1e-3):
        model, x, y = labeled_cells(scale=scale)
        for cell in range(3):
            one_x, one_y = x[[cell]], y[[cell]]
            loss, gradient = loss_and_gradient(model, one_x, one_y)
            label = gradient - without_label(model, one_x, one_y)
            wanted = scale * model.alpha * (1 + loss / scale) * plain_gradient(model, one_x, one_y)
            assert 1 + loss / scale > 20
            torch.testing.assert_close(label, wanted, rtol=1e-6, atol=1e-12)


def test_sizes_are_those_of_pyros_example():
    """Hidden 100 where genes come in or go out, else 50; latent 10; every network ends in BatchNorm."""
    model = TutorialModel(9, 4, library_loc=0.0, library_scale=1.0, scale=1.0)
    widths = {
        name: [(layer.in_features, layer.out_features) for layer in part if isinstance(layer, nn.Linear)]
        for name, part in model.named_children()
    }
    assert widths == {
        "z2_decoder": [(14, 50), (50, 20)],
        "x_decoder": [(10, 100), (100, 18)],
        "z2l_encoder": [(9, 100), (100, 22)],
        "classifier": [(10, 50), (50, 4)],
        "z1_encoder": [(14, 50), (50, 20)],
    }
    assert all(isinstance(part[-1], nn.BatchNorm1d) for part in model.children())
    assert (model.alpha, model.has_rsample) == (0.01, False)


def test_the_story_is_that_of_ours_but_for_where_the_label_is_weighed(small_model, tiny):
    adata = tiny()
    x = torch.as_tensor(adata.X.toarray())
    y = torch.eye(3)[torch.zeros(len(x), dtype=torch.long)]
    tutorial = TutorialModel(9, 3, library_loc=3.0, library_scale=0.5, scale=1.0)

    def arrows(program, *data):
        found = get_model_relations(program, data)["sample_sample"]
        return {site: set(parents) - {site} for site, parents in found.items()}

    with pyro.get_param_store().scope():
        assert arrows(tutorial.model, x) == arrows(small_model.model, x)
        assert arrows(tutorial.guide, x) == arrows(small_model.guide, x)
        ours, theirs = arrows(small_model.model, x, y), arrows(tutorial.model, x, y)
        assert ours.pop("label") == {"z2"}
        assert theirs == ours
        assert arrows(tutorial.guide, x, y)["classification_loss"] == {"z2"}


def test_training_lowers_both_losses_and_with_a_real_weight_the_types_are_found(tiny):
    """Nothing but the weight stands in the way: as the tutorial weighs labels, as many epochs are too few."""
    adata = tiny(cells=120)
    fit = fit_tutorial(adata, epochs=150, alpha=1.0)
    assert list(fit.losses) == ["unlabeled", "labeled"]
    assert (fit.losses.iloc[-1] < fit.losses.iloc[0] - 1).all()
    others = (adata.obs["label"] == "Unknown").to_numpy()
    right = fit.probabilities.idxmax(axis=1)[others] == adata.obs["truth"][others].astype(str)
    assert right.mean() > 0.8
    np.testing.assert_allclose(fit.probabilities.sum(axis=1), 1)
    assert fit.probabilities.index.equals(adata.obs_names)
    assert list(fit.probabilities) == ["B", "NK", "T"]


@pytest.mark.parametrize("size", [4, 7, 100])
def test_losses_are_nats_per_cell_whatever_the_minibatch_and_the_scale(size):
    """The tutorial prints them divided by minibatch and genes, and every minibatch counts the same."""
    codes = torch.where(torch.arange(25) < 5, 0, -1)
    model = TutorialModel(9, 3, library_loc=0.0, library_scale=1.0, scale=0.01)

    class SevenNatsACell:
        def step(self, x, y):
            return model.scale * 7.0 * len(x)

    losses = _run_epoch(SevenNatsACell(), model, torch.ones(25, 9), codes, size)
    assert losses == pytest.approx({"unlabeled": 7.0, "labeled": 7.0})


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(tiny):
    first, again, other = (pyro_tutorial(tiny(), seed=seed, epochs=2) for seed in (4, 4, 5))
    assert first.equals(again)
    assert not np.allclose(first, other)


def test_the_flag_reaches_the_fit(tiny):
    by_flag = [fit_tutorial(tiny(), epochs=3, has_rsample=flag).probabilities for flag in (True, False)]
    assert not np.allclose(*by_flag)


@pytest.mark.parametrize("validation", [True, False])
def test_no_global_state_is_left_behind(tiny, validation):
    with pyro.get_param_store().scope(), pyro.validation_enabled(validation):
        theirs = pyro.param("inverse_dispersion", torch.tensor([3.0, 4.0]))
        rng = torch.get_rng_state()
        pyro_tutorial(tiny(), epochs=1)
        assert torch.equal(torch.get_rng_state(), rng)
        store = pyro.get_param_store()
        assert list(store) == ["inverse_dispersion"]
        assert torch.equal(store["inverse_dispersion"], theirs)
        assert pyro.infer.util.is_validation_enabled() is validation
        assert torch.distributions.Distribution._validate_args is validation


def test_a_loss_that_is_no_number_ends_the_run_in_words_and_state_is_restored(tiny):
    rng = torch.get_rng_state()
    with pytest.raises(FloatingPointError, match="Look for counts far beyond others"):
        fit_tutorial(tiny(), epochs=1, alpha=float("nan"))
    assert torch.equal(torch.get_rng_state(), rng)
    assert "inverse_dispersion" not in pyro.get_param_store()


def test_all_cells_may_be_labeled(tiny):
    losses = fit_tutorial(tiny(labeled=1), epochs=1).losses
    assert losses["unlabeled"].isna().all()
    assert losses["labeled"].notna().all()

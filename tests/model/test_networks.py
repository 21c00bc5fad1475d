"""The networks: shapes under enumeration, plain heads, no influence of one cell on another."""

import math

import pytest
import torch
from torch import nn

from scanvi_tutorial.config import ModelConfig
from scanvi_tutorial.model.networks import (
    Classifier,
    XDecoder,
    Z1Encoder,
    Z2Decoder,
    Z2LEncoder,
    broadcast_inputs,
    fully_connected,
)

CELLS = 5
GENES = 7
LABELS = 3
CONFIG = ModelConfig(n_latent=2, gene_hidden=(6,), label_hidden=(6,), classifier_hidden=(6,), dropout_rate=0.0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def every_label():
    """One copy of each cell a label: (labels, 1, labels), as Pyro enumerates a one-hot."""
    return torch.eye(LABELS)[:, None, :]


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_the_last_layer_is_plain(norm):
    layers = list(fully_connected([4, 8, 8, 3], norm=norm, dropout_rate=0.1))
    assert isinstance(layers[-1], nn.Linear)
    assert layers[-1].bias is not None
    normalized = [layer for layer in layers if isinstance(layer, nn.BatchNorm1d | nn.LayerNorm)]
    assert len(normalized) == (0 if norm == "none" else 2)


def test_no_hidden_layers_is_a_linear_map():
    (layer,) = fully_connected([4, 3])
    assert isinstance(layer, nn.Linear)


def test_broadcasting_repeats_what_lacks_the_enumeration_axis():
    z2 = torch.randn(CELLS, 2)
    wide, labels = broadcast_inputs(z2, every_label())
    assert wide.shape == (LABELS, CELLS, 2)
    assert labels.shape == (LABELS, CELLS, LABELS)
    assert all(torch.equal(copy, z2) for copy in wide)
    assert all(torch.equal(labels[k, c], torch.eye(LABELS)[k]) for k in range(LABELS) for c in range(CELLS))


def test_inputs_that_do_not_broadcast_are_refused():
    with pytest.raises(RuntimeError):
        broadcast_inputs(torch.zeros(3, 2), torch.zeros(4, 2))


@pytest.mark.parametrize("network", [Z2Decoder, Z1Encoder])
def test_a_copy_per_label_equals_asking_label_by_label(network):
    net = network(LABELS, CONFIG).eval()
    z = torch.randn(CELLS, 2)
    loc, scale = net(z, every_label())
    assert loc.shape == scale.shape == (LABELS, CELLS, 2)
    for k in range(LABELS):
        alone = net(z, torch.eye(LABELS)[k].expand(CELLS, -1))
        torch.testing.assert_close((loc[k], scale[k]), alone)


@pytest.mark.parametrize("network", [Z2Decoder, Z1Encoder])
def test_batch_norm_counts_copies_of_a_cell_as_cells(network):
    net = network(LABELS, CONFIG).train()
    z, y = broadcast_inputs(torch.randn(CELLS, 2), every_label())
    loc, _ = net(z, y)
    flat, _ = net(z.reshape(-1, 2), y.reshape(-1, LABELS))
    torch.testing.assert_close(loc.reshape(-1, 2), flat)


def test_gene_shares_sum_to_one():
    log_mu, gate = XDecoder(GENES, CONFIG)(torch.randn(CELLS, 2))
    torch.testing.assert_close(log_mu.exp().sum(-1), torch.ones(CELLS))
    assert gate.shape == (CELLS, GENES)


def test_without_zero_inflation_there_is_no_gate():
    _, gate = XDecoder(GENES, ModelConfig(gene_likelihood="nb"))(torch.randn(CELLS, 10))
    assert gate is None


def test_scales_are_positive_at_any_input():
    _, z2_scale, _, l_scale = Z2LEncoder(GENES, CONFIG)(torch.rand(CELLS, GENES) * 1e5)
    assert (z2_scale > 0).all()
    assert (l_scale > 0).all()


def test_library_head_starts_at_the_total_of_every_cell():
    encoder = Z2LEncoder(GENES, CONFIG)
    encoder.start_library_at_total(0.4)
    x = torch.rand(CELLS, GENES) * 100
    _, _, loc, scale = encoder(x)
    torch.testing.assert_close(loc, x.sum(-1, keepdim=True).log())
    torch.testing.assert_close(scale, torch.full((CELLS, 1), 0.4))


def test_state_is_read_off_shares_and_depth_goes_to_the_library_size():
    encoder = Z2LEncoder(GENES, CONFIG).eval()
    x = torch.poisson(torch.full((CELLS, GENES), 3.0)) + 1
    once, deeper = encoder(x), encoder(7 * x)
    torch.testing.assert_close(deeper[0], once[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deeper[2], once[2] + math.log(7), rtol=1e-4, atol=1e-5)


def test_a_cell_without_counts_is_no_reason_to_fail():
    assert all(part.isfinite().all() for part in Z2LEncoder(GENES, CONFIG).eval()(torch.zeros(2, GENES)))


def test_what_is_said_of_a_cell_does_not_depend_on_its_neighbours():
    encoder, classifier = Z2LEncoder(GENES, CONFIG).eval(), Classifier(LABELS, CONFIG).eval()
    x = torch.poisson(torch.full((CELLS, GENES), 3.0))
    together = classifier(encoder(x)[0])
    alone = torch.cat([classifier(encoder(x[c : c + 1])[0]) for c in range(CELLS)])
    torch.testing.assert_close(together, alone)


def test_logits_are_free_to_be_sure():
    """Without normalization at its end the classifier can say ±20 (a last BatchNorm could not)."""
    classifier = Classifier(LABELS, ModelConfig(n_latent=3, classifier_hidden=()))
    (linear,) = classifier.heads.layers
    with torch.no_grad():
        linear.weight.copy_(40 * torch.eye(3) - 20)
        linear.bias.zero_()
    loss = nn.functional.cross_entropy(classifier(torch.eye(3)), torch.arange(3))
    assert loss < 0.01

"""The model: networks, likelihood, model and guide, the bound, and saving (chapters 3 and 4)."""

from scanvi_tutorial.model.bound import BOUND_TERMS, bound_of, bound_terms, estimator, evaluating, traces
from scanvi_tutorial.model.likelihood import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from scanvi_tutorial.model.networks import (
    Classifier,
    Heads,
    XDecoder,
    Z1Encoder,
    Z2Decoder,
    Z2LEncoder,
    broadcast_inputs,
    fully_connected,
    positive,
)
from scanvi_tutorial.model.scanvi import SCANVI

__all__ = [
    "BOUND_TERMS",
    "SCANVI",
    "Classifier",
    "Heads",
    "NegativeBinomial",
    "Poisson",
    "XDecoder",
    "Z1Encoder",
    "Z2Decoder",
    "Z2LEncoder",
    "ZeroInflatedNegativeBinomial",
    "bound_of",
    "bound_terms",
    "broadcast_inputs",
    "estimator",
    "evaluating",
    "fully_connected",
    "positive",
    "traces",
]

"""Predictions of a fitted model: states, probabilities, draws of the posterior (chapters 6 and 9)."""

from scanvi_tutorial.inference.predictions import label_probabilities, latent, posterior_predictive

__all__ = ["label_probabilities", "latent", "posterior_predictive"]

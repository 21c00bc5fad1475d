"""Training: minibatches, the loss computed by Pyro or by explicit formulas, the loop (chapters 5 and 11)."""

from scanvi_tutorial.training.cache import fit_or_load
from scanvi_tutorial.training.history import History
from scanvi_tutorial.training.loop import choose_device, fit, run_epoch

__all__ = ["History", "choose_device", "fit", "fit_or_load", "run_epoch"]

"""From counts and a few labels to named cells (chapters 8 and 10)."""

from scanvi_tutorial.annotation.methods import recommended
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate

__all__ = ["annotate", "predict", "recommended"]

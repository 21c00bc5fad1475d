"""Annotation of cells from counts and a few labels (chapters 8 and 10)."""

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.methods import recommended
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.annotation.reasons import evidence

__all__ = ["Annotator", "annotate", "evidence", "predict", "recommended"]

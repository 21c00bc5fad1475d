"""Helpers for the chapters of the book: diagrams, listings and example programs."""

from scanvi_tutorial.teaching.diagrams import Stub, differences, plate_diagram, same_structure
from scanvi_tutorial.teaching.label_program import label_priors, label_program
from scanvi_tutorial.teaching.listings import expect_error, read_results, results_of, say, show_source

__all__ = [
    "Stub",
    "differences",
    "expect_error",
    "label_priors",
    "label_program",
    "plate_diagram",
    "read_results",
    "results_of",
    "same_structure",
    "say",
    "show_source",
]

"""What the chapters teach with; the book alone imports it."""

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

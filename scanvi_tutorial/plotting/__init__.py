"""Every figure of the book: arrays, tables or an AnnData in, a Matplotlib figure out (`cell_probe`: HTML); no model.

`style` holds what all share: the style file and one color a type.
"""

from scanvi_tutorial.plotting.calibration import coverage_plot, rank_plot, reliability_diagram
from scanvi_tutorial.plotting.comparison import growth_plot, metric_by_seeds, paired_differences, timing_plot
from scanvi_tutorial.plotting.counts import count_table_plot, library_size_plot, mean_variance_plot, seed_purity_plot
from scanvi_tutorial.plotting.embedding import Probe, cell_probe, figure6, umap
from scanvi_tutorial.plotting.evidence import evidence_plot
from scanvi_tutorial.plotting.fits import (
    confusion_plot,
    history_plot,
    label_factor_plot,
    label_weight_plot,
    predictive_plot,
    probability_plot,
)
from scanvi_tutorial.plotting.style import palette

__all__ = [
    "Probe",
    "cell_probe",
    "confusion_plot",
    "count_table_plot",
    "coverage_plot",
    "evidence_plot",
    "figure6",
    "growth_plot",
    "history_plot",
    "label_factor_plot",
    "label_weight_plot",
    "library_size_plot",
    "mean_variance_plot",
    "metric_by_seeds",
    "paired_differences",
    "palette",
    "predictive_plot",
    "probability_plot",
    "rank_plot",
    "reliability_diagram",
    "seed_purity_plot",
    "timing_plot",
    "umap",
]

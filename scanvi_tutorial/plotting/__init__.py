"""Every figure of the book: arrays, tables or an AnnData in, a Matplotlib figure out (`cell_probe`: HTML); no model.

`embedding` holds Figure 6 and `probe` its map that can be asked (book/06_figure.md), `counts`
the pictures of the data (book/01_data.md), `fits` those of a fit (book/05_training.md),
`calibration` and `comparison` those of methods (book/08_evaluation.md), `gradient` and `ranks` those of
book/07_gradient.md and book/09_calibration.md, `speed` those of book/11_speed.md, `style` what all
share: the style file and one color a type.
"""

from scanvi_tutorial.plotting.calibration import reliability_diagram
from scanvi_tutorial.plotting.comparison import metric_by_seeds, paired_differences
from scanvi_tutorial.plotting.counts import count_table_plot, library_size_plot, mean_variance_plot, seed_purity_plot
from scanvi_tutorial.plotting.embedding import figure6, umap
from scanvi_tutorial.plotting.fits import confusion_plot, history_plot, predictive_plot, probability_plot
from scanvi_tutorial.plotting.gradient import label_factor_plot, label_weight_plot
from scanvi_tutorial.plotting.probe import cell_probe
from scanvi_tutorial.plotting.ranks import rank_plot
from scanvi_tutorial.plotting.speed import growth_plot, timing_plot
from scanvi_tutorial.plotting.style import palette

__all__ = [
    "cell_probe",
    "confusion_plot",
    "count_table_plot",
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

"""Evaluation: metrics, simpler methods, and comparisons on the same draws of seed cells.

Used in book/06_figure.md and book/08_evaluation.md. `metrics` has the metrics, `baselines` the methods that scANVI is
compared with, `comparison` the choice of scored cells and summaries over draws, `hidden` cross-validation on hidden
labels and the pooling of probabilities.
"""

from scanvi_tutorial.evaluation.baselines import (
    BASELINES,
    Baseline,
    Components,
    fit_components,
    fit_on_seeds,
    label_spreading,
    linear_classifier,
    logistic_regression,
    marker_score,
    nearest_neighbors,
    neighbor_graph,
    principal_components,
)
from scanvi_tutorial.evaluation.comparison import interval, score_table, scored_cells, scores, summary
from scanvi_tutorial.evaluation.hidden import (
    CrossFit,
    cross_fit,
    folds_of,
    pooled,
)
from scanvi_tutorial.evaluation.metrics import (
    METRICS,
    accuracy,
    all_metrics,
    calibration_error_by_chance,
    confusion,
    largest_class_rate,
    largest_class_scores,
    per_class,
    reliability,
)
from scanvi_tutorial.inputs.markers import log_cp10k

__all__ = [
    "BASELINES",
    "METRICS",
    "Baseline",
    "Components",
    "CrossFit",
    "accuracy",
    "all_metrics",
    "calibration_error_by_chance",
    "confusion",
    "cross_fit",
    "fit_components",
    "fit_on_seeds",
    "folds_of",
    "interval",
    "label_spreading",
    "largest_class_rate",
    "largest_class_scores",
    "linear_classifier",
    "log_cp10k",
    "logistic_regression",
    "marker_score",
    "nearest_neighbors",
    "neighbor_graph",
    "per_class",
    "pooled",
    "principal_components",
    "reliability",
    "score_table",
    "scored_cells",
    "scores",
    "summary",
]

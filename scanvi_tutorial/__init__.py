"""Semi-supervised cell annotation with scANVI in Pyro: the package under the book of the same name."""

from scanvi_tutorial import evaluation, plotting
from scanvi_tutorial.annotate import annotate
from scanvi_tutorial.batches import ConfoundedBatchWarning
from scanvi_tutorial.cache import fit_or_load
from scanvi_tutorial.checks import InputError, read_h5ad
from scanvi_tutorial.config import ModelConfig, RunConfig, TrainConfig
from scanvi_tutorial.datasets import load
from scanvi_tutorial.ensemble import recommended
from scanvi_tutorial.genes import select_genes
from scanvi_tutorial.history import History
from scanvi_tutorial.inference import bound_terms, label_probabilities, latent, posterior_predictive
from scanvi_tutorial.markers import marker_scores
from scanvi_tutorial.model import SCANVI
from scanvi_tutorial.plotting import figure6
from scanvi_tutorial.query import predict
from scanvi_tutorial.report import write_report
from scanvi_tutorial.seeds import purity, seed_labels
from scanvi_tutorial.streaming import read_selected
from scanvi_tutorial.training import fit

__all__ = [
    "SCANVI",
    "ConfoundedBatchWarning",
    "History",
    "InputError",
    "ModelConfig",
    "RunConfig",
    "TrainConfig",
    "annotate",
    "bound_terms",
    "evaluation",
    "figure6",
    "fit",
    "fit_or_load",
    "label_probabilities",
    "latent",
    "load",
    "marker_scores",
    "plotting",
    "posterior_predictive",
    "predict",
    "purity",
    "read_h5ad",
    "read_selected",
    "recommended",
    "seed_labels",
    "select_genes",
    "write_report",
]

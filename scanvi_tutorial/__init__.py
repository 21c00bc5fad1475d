"""Semi-supervised cell annotation with scANVI in Pyro: the package of the book of the same name."""

from scanvi_tutorial import evaluation, plotting
from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.files import annotate_files
from scanvi_tutorial.annotation.methods import recommended
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.annotation.reasons import evidence
from scanvi_tutorial.config import ModelConfig, RunConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.seeds import purity, seed_labels
from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.data.streaming import open_cells
from scanvi_tutorial.inference.predictions import label_probabilities, latent, posterior_predictive
from scanvi_tutorial.inputs.batches import ConfoundedBatchWarning
from scanvi_tutorial.inputs.errors import InputError, InputWarning
from scanvi_tutorial.inputs.files import read_h5ad
from scanvi_tutorial.inputs.markers import marker_scores
from scanvi_tutorial.model.bound import bound_terms
from scanvi_tutorial.model.persistence import PersistenceError
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.plotting import figure6
from scanvi_tutorial.report import write_report
from scanvi_tutorial.training.cache import fit_or_load
from scanvi_tutorial.training.history import History
from scanvi_tutorial.training.loop import fit

__all__ = [
    "SCANVI",
    "Annotator",
    "ConfoundedBatchWarning",
    "History",
    "InputError",
    "InputWarning",
    "ModelConfig",
    "PersistenceError",
    "RunConfig",
    "TrainConfig",
    "annotate",
    "annotate_files",
    "bound_terms",
    "evaluation",
    "evidence",
    "figure6",
    "fit",
    "fit_or_load",
    "label_probabilities",
    "latent",
    "load",
    "marker_scores",
    "open_cells",
    "plotting",
    "posterior_predictive",
    "predict",
    "purity",
    "read_h5ad",
    "recommended",
    "seed_labels",
    "select_genes",
    "write_report",
]

"""What a usable AnnData is: counts, labels, genes, cells, file; errors about it say what is wrong and what to do.

Used from book/01_data.md onward. Symbols: x_cg, the count of gene g in cell c; `codes`, the label of a cell as a
number, -1 where there is none. What cannot be used is refused by `InputError`; what can be used but makes a
result less certain is listed by `quality_warnings`.
"""

from scanvi_tutorial.inputs.batches import check_batches, confounding
from scanvi_tutorial.inputs.cells import Columns, check_cells, strip_to_inputs
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError, InputWarning, did_you_mean, listed
from scanvi_tutorial.inputs.files import read_h5ad
from scanvi_tutorial.inputs.genes import LEAST_OVERLAP, align_genes, check_genes
from scanvi_tutorial.inputs.labels import check_labels, label_name, label_warnings, means_no_label, quality_warnings

__all__ = [
    "LEAST_OVERLAP",
    "Columns",
    "InputError",
    "InputWarning",
    "align_genes",
    "check_batches",
    "check_cells",
    "check_counts",
    "check_genes",
    "check_labels",
    "confounding",
    "did_you_mean",
    "label_name",
    "label_warnings",
    "listed",
    "means_no_label",
    "quality_warnings",
    "read_h5ad",
    "strip_to_inputs",
]

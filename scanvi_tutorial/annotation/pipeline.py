"""Annotate a partly labeled AnnData in one call (book/10_your_data.md).

This is the recommended method (`methods.recommended`, book/12_labels.md), with checks of the data, warnings, and the
prediction sets and p-values of book/13_guarantee.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from anndata import AnnData

from scanvi_tutorial.annotation.annotator import Annotator, Said
from scanvi_tutorial.annotation.answer import check_asked, write_answer
from scanvi_tutorial.annotation.checks import doubtful_labels, said_of_hidden
from scanvi_tutorial.annotation.combined import answer_from_states, calibrated, components_of
from scanvi_tutorial.annotation.methods import Ensemble
from scanvi_tutorial.annotation.reasons import evidence_by_type
from scanvi_tutorial.annotation.rules import LearnedRules, StateClassifier
from scanvi_tutorial.config import UNLABELED, UNLABELED_TRAIN, ModelConfig, TrainConfig
from scanvi_tutorial.data.selection import chosen_genes
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs.batches import ConfoundedBatchWarning, confounding
from scanvi_tutorial.inputs.cells import Columns, allowed_of, check_cells, strip_to_inputs
from scanvi_tutorial.inputs.coarse import Coarse
from scanvi_tutorial.inputs.errors import InputError, check_seed, warn_of, whole_number
from scanvi_tutorial.inputs.files import home_path
from scanvi_tutorial.inputs.labels import check_labels, quality_warnings
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.model.persistence import is_saved

_MANY_CELLS = 500  # from here on fits take longer than starting processes for them


@usual_settings()
def annotate(
    adata: AnnData,
    labels_key: str = "label",
    *,
    unlabeled_category: object = UNLABELED,
    layer: str | None = None,
    batch_key: str | None = None,
    coarse: Coarse | str | None = None,
    genes: int = 2_000,
    coverage: float | None = None,
    reject: float | None = None,
    keep_labels: bool = True,
    model: str | Path | None = None,
    seed: int = 0,
    fits: int | None = None,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    jobs: int | None = None,
    folder: str | Path | None = None,
) -> None:
    """Annotate every cell of `adata`, using those that have a label; write the results into `adata`.

    The following is written; nothing else changes (`X` is unchanged, genes are chosen internally):

    - `obs["scanvi_label"]`: the label of every cell, categorical, as text (also where labels are whole numbers), or
      "none of these" for cells that `reject` rejects; a label that is kept is never rejected.
    - `obs["scanvi_probability"]`: the probability of that label.
    - `obs["scanvi_p_known"]`: a p-value for the cell being of any labeled type: the share of labeled cells that are at
      least as strange while their labels are hidden.
    - `obs["scanvi_set"]`, `obs["scanvi_set_size"]`, with `coverage`: the prediction set, the most probable type
      first, joined by " or "; a label that is kept is its own set, and a rejected cell has a set too.
      `obs["scanvi_coarse"]`, with coarse labels: the smallest coarse label that contains the set.
    - `obsm["scanvi_probabilities"]`: a table (cells, labels) of all probabilities, rows summing to one.
    - `obsm["X_scanvi"]`: the latent state z2 of every cell, float32 (cells, latent), for maps and neighbors.
    - `uns["scanvi"]`: details and diagnostics: `shares`, the estimated share of each type with an interval, and its
      share among labels; `doubtful_labels` (`cell`, `given`, `more_probable`, `probability`); `likeness`, a test
      whether labeled cells are similar to the others; `held_out`, the probabilities for hidden labels (`cells`,
      `given`, `probabilities`); `compared`, the accuracy of simpler methods on the same labels; `guarantee`, the
      guarantee of the sets and their coverage of hidden labels; `strangers` and `groups`, the rejected cells and their
      groups; `evidence`, genes that favor each type or the most probable other type; `history`, a row per epoch of the
      fit of `X_scanvi`, kept at `best_epoch`; `warnings`; `exponents`, `parameters`, `genes`, `label_names`,
      `versions`.

    scANVI is fitted several times without labels. A label model is then fitted to all cells
    (`label_model.LabelModel`), classification rules to labeled ones, and their probabilities are pooled (`combined`).
    To measure the accuracy, each label is hidden once while both learn from the others. This is fast, because the fits
    do not use labels. If no type has two labels, none can be hidden, and a warning is given.

    Args:
        adata: Raw counts, (cells, genes), of all measured genes; at least two types labeled.
        labels_key: Column of `obs` with the labels. Missing values, "", -1, "Unknown", "NA" and such mean none.
        unlabeled_category: A further name for "without a label".
        layer: Where the counts are, if not in `X`.
        batch_key: Column of `obs` with a batch to correct for; off unless asked, and where all cells are of one batch.
        coarse: Names in the column of labels that stand for several types, such as {"T": ["CD4 T", "CD8 T"]}: such a
            label helps its types and is none itself. Or a column of `obs` with the parent of every cell.
        genes: Number of genes in the model: those detected in most cells, markers of `uns["markers"]` first.
        coverage: Required coverage of the prediction sets, such as 0.9; None for no sets.
        reject: Share of known cells that may be rejected, such as 0.05; rejected cells are labeled "none of these" and
            have no probability. None rejects none.
        keep_labels: Whether labeled cells keep their label in `obs["scanvi_label"]`, whatever the probabilities are.
        model: File for the trained annotator, for `predict` on new cells.
        seed: Draws folds, weights and minibatches; equal seeds and threads give equal answers.
        fits: How many fits are pooled; None takes six, and fewer from 2,700 cells on, but four at the least.
        model_config: `ModelConfig()` where it is None; fits take LayerNorm and BatchNorm in turn in any case.
        train_config: `UNLABELED_TRAIN` where it is None; its objective is "unlabeled" in any case.
        jobs: Fits at once, each in a process of its own on one thread; None takes a process a core from 500 cells on.
            Inside `joblib.parallel_config(backend="dask")` fits go to the workers of that cluster (book/14_scale.md).
        folder: Where fits are kept, unfinished ones too, so that a call that was cut off goes on from there when it is
            made again; on a cluster, a folder that its workers share. None keeps none.

    Raises:
        InputError: Where counts, labels, batches or names cannot be used; the message says what to do.
        ChildProcessError: Where processes that fit are killed over and over.
        PersistenceError: Where `model` is something else than a saved model, or lies in no folder.

    Warns:
        InputWarning: Where the data can be used but should be checked; given before the fits.
        ConfoundedBatchWarning: Where batches and labels are confounded.
    """
    check_cells(adata)
    check_asked(coverage, reject)
    genes, seed = whole_number(genes, "genes", 1), check_seed(seed)
    for name, value, kinds in (
        ("keep_labels", keep_labels, (bool, np.bool_)),
        ("model_config", model_config, (ModelConfig, type(None))),
        ("train_config", train_config, (TrainConfig, type(None))),
    ):
        if not isinstance(value, kinds):
            raise InputError(f"{name} must be of type {kinds[0].__name__}, and is of type {type(value).__name__}.")
    if model is not None:
        is_saved(model, kind="annotation")  # refuses what must not be replaced before anything is computed
    columns = Columns(labels_key, unlabeled_category, layer, batch_key, coarse)
    plain, warned = strip_to_inputs(adata, columns)
    warn_of(warned)
    batch_key = batch_key if batch_key in plain.obs else None
    cells, notes = chosen_genes(plain, adata.uns.get("markers"), genes)
    names, codes = check_labels(cells, labels_key)
    check_asked(coverage, reject, names)
    notes += [*warned, *quality_warnings(names, codes, genes=cells.n_vars)]
    if batch_key is not None and (text := confounding(names, codes, cells.obs[batch_key].array)):
        notes.insert(0, text)
        warnings.warn(text, ConfoundedBatchWarning, stacklevel=3)
    if jobs is None:
        jobs = joblib.cpu_count() if cells.n_obs >= _MANY_CELLS else 1
    model_config, train_config = model_config or ModelConfig(), train_config or UNLABELED_TRAIN
    place = None if folder is None else home_path(folder).absolute()  # workers may be in other folders
    ensemble = Ensemble(
        model_config, train_config, fits=fits, batch_key=batch_key, folder=place, keep=folder is not None, jobs=jobs
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConfoundedBatchWarning)  # every fit would say it
            fitted = ensemble.fit(cells, labels_key, seed)
    except FloatingPointError as error:
        raise InputError(f"The model could not be fitted to these counts. {error}") from error
    states, (loadings, components) = [latent(one, cells) for one, _ in fitted], components_of(cells)
    view = None if batch_key else components  # which know no batches
    answer = answer_from_states(states, view, cells, labels_key=labels_key, seed=seed)
    strangeness, strange, calibration = calibrated(answer, cells, labels_key=labels_key, seed=seed)
    about, hints = said_of_hidden(answer, components, cells, labels_key, seed)
    doubtful, of_doubtful = doubtful_labels(*allowed_of(cells, labels_key), answer.of_labels, cells.obs_names)
    first, history = fitted[0]
    frame = history.frame.copy()
    frame.attrs = {}
    parameters = {
        "labels_key": labels_key,
        "unlabeled_category": columns.unlabeled_category,
        "layer": layer,
        "batch_key": batch_key,
        "coarse": columns.coarse if isinstance(columns.coarse, str) else [*_lines(columns.coarse)] or None,
        "seed": seed,
        "fits": len(fitted),
        "keep_labels": keep_labels,
        "norms": ", ".join(one.config.norm for one, _ in fitted),
        "model": asdict(first.config),
        "train": asdict(train_config) | {"objective": "unlabeled", "seed": None},  # every fit has a seed of its own
    }
    about |= {
        "history": frame,
        "best_epoch": history.best_epoch,
        "seconds_of_fits": sum(history.seconds for _, history in fitted),
        "exponents": dict(zip(("label_model", "rules"), map(float, answer.exponents), strict=True)),
        "shares": answer.shares,
        "doubtful_labels": doubtful,
        "likeness": asdict(answer.likeness) | {"in_words": answer.likeness.in_words()},
        "warnings": [*hints, *of_doubtful, *notes],
        "genes": np.array(cells.var_names, dtype=object),
        "parameters": _storable(parameters),
    }
    annotator = Annotator(
        [one for one, _ in fitted],
        list(answer.probabilities),
        answer.exponents,
        answer.parameters,
        LearnedRules.of(StateClassifier(states), cells, labels_key=labels_key, seed=seed),
        strangeness,
        calibration,
        loadings if view is not None else None,
        cells.uns.get("coarse", {}),
        answer.likeness.alike,
    )
    said = Said(answer.probabilities.to_numpy(), states[0], strange, strangeness.component_of(answer.views, len(names)))
    kept = codes if keep_labels else None
    columns, refused, more, texts = annotator.promised(
        said, cells.obs_names, cells, coverage=coverage, reject=reject, kept=kept
    )
    if coverage is not None and batch_key is not None and len(calibration.codes):
        of_labels = cells.obs[batch_key].astype(str).to_numpy(dtype=object)[answer.fold >= 0]
        more["guarantee"]["by_batch"] = calibration.found_in_batches(of_labels, coverage)
    about |= more | {"evidence": evidence_by_type(annotator, cells, said.probabilities, refused)}
    about["warnings"] = [*texts, *about["warnings"]]
    write_answer(adata, answer.probabilities, states[0], about=about, columns=columns, kept=kept, refused=refused)
    if model is not None:
        annotator.save(model)


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings as an `.h5ad` file can hold them: no None, and lists for tuples."""
    how = {dict: _storable, tuple: list}
    return {name: how.get(type(value), lambda same: same)(value) for name, value in values.items() if value is not None}


def _lines(table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield what each coarse name stands for, since a file takes no names such as "A/B" for the keys of a dict."""
    for parent, children in table.items():
        yield f"{parent}: {', '.join(children)}"

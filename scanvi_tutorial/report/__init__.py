"""A report page on an annotation: figures, warnings and settings (book/10_your_data.md).

Its content comes from what `annotate` wrote into the AnnData, so a page can also be made from a saved file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.evaluation import calibration_error_by_chance, scores
from scanvi_tutorial.inputs.cells import probabilities_of, refuse_other_types
from scanvi_tutorial.inputs.errors import InputError, check_seed
from scanvi_tutorial.inputs.files import home_path
from scanvi_tutorial.inputs.writing import write_atomically
from scanvi_tutorial.report.figures import figures_of, held_out_of, in_words, labels_of, refused_in

__all__ = ["report_page", "write_report"]

_MOST_DOUBTFUL = 30  # labels on the page; all of them are in uns
_NEEDED = {"held_out", "parameters", "best_epoch", "history", "genes", "label_names", "versions", "warnings"}


def write_report(adata: AnnData, path: str | Path, *, title: str = "Annotated cells", seed: int = 0) -> Path:
    """Write the page of `report_page` to `path` atomically, and return the path."""
    path = home_path(path)
    page = report_page(adata, title=title, seed=seed).encode(errors="replace")
    try:
        with write_atomically(path) as part:
            part.write_bytes(page)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be written ({reason}). Name a file in a folder that is there.") from error
    return path


def report_page(adata: AnnData, *, title: str = "Annotated cells", seed: int = 0) -> str:
    """Return a self-contained HTML page on cells that `annotate` has labeled; it loads no external resources.

    Args:
        adata: What `annotate` wrote into, or an `.h5ad` of it read again.
        title: Of the page.
        seed: Draws the map.

    Raises:
        InputError: Where there is no annotation by `annotate`, or no cell.
    """
    refuse_other_types(adata)
    about = adata.uns.get("scanvi")
    whole = isinstance(about, dict) and about.keys() >= _NEEDED
    if not whole or not {*adata.obs, *adata.obsm} >= {"scanvi_label", "scanvi_probability", "scanvi_probabilities"}:
        raise InputError(
            "There is no annotation to report on, or a part of it is gone: call st.annotate(adata, labels_key=...)."
        )
    if list(probabilities_of(adata)) != [str(name) for name in about["label_names"]]:
        raise InputError(
            'obsm["scanvi_probabilities"] has other labels than uns["scanvi"] names: two annotations were joined, or '
            "columns were moved. Report on each part by itself, or call st.annotate on all cells."
        )
    seed = check_seed(seed)
    given, probabilities = held_out_of(adata)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scanvi_tutorial", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    parameters = dict(about["parameters"])
    shares, doubtful, evidence, groups = (
        pd.DataFrame(about.get(name, {})) for name in ("shares", "doubtful_labels", "evidence", "groups")
    )
    guarantee = dict(about.get("guarantee", {}))
    by_type, by_batch = (pd.DataFrame(guarantee.get(name, {})) for name in ("by_type", "by_batch"))
    settings = {name: value for name, value in parameters.items() if not isinstance(value, dict)}
    settings |= parameters["model"] | {f"train: {name}": value for name, value in parameters["train"].items()}
    return environment.get_template("page.html").render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        opening=_opening(adata),
        genes=len(about["genes"]),
        column=parameters["labels_key"],
        promise=guarantee.get("promise", ""),
        reject=guarantee.get("reject"),
        refused=guarantee.get("refused", 0),
        by_type=list(by_type.iterrows()),
        by_batch=list(by_batch.iterrows()),
        size=float(adata.obs["scanvi_set_size"].mean()) if "scanvi_set_size" in adata.obs else None,
        evidence=list(evidence.iterrows()),
        groups=list(groups.iterrows()),
        warnings=[str(text) for text in about["warnings"]],
        table=_table(adata),
        scores=None if not len(given) else scores(given, probabilities).round(3).to_dict(),
        hidden=len(given),
        by_chance=calibration_error_by_chance(probabilities).mean() if len(given) else None,
        figures=figures_of(adata, seed=seed),
        likeness=about.get("likeness", {}).get("in_words", ""),
        shares=list(shares.iterrows()),
        doubtful_labels=len(doubtful),
        doubtful=doubtful.head(_MOST_DOUBTFUL).to_dict("records"),
        compared=sorted(about.get("compared", {}).items(), key=lambda item: float(item[1]["log_loss"])),
        settings=sorted(settings.items()),
        versions=sorted(about["versions"].items()),
    )


def _opening(adata: AnnData) -> str:
    """Return sentences on how many cells had a label, kept it, were newly labeled, or have no label now."""
    _, given, now = labels_of(adata)
    labeled, named = given >= 0, now >= 0
    refused = refused_in(adata)
    empty = f" {refused.sum():,} are called none of these." if refused.any() else ""
    empty += f" {(~named & ~refused).sum():,} have no label now." if not (named | refused).all() else ""
    column = str(adata.uns["scanvi"]["parameters"]["labels_key"])
    if column not in adata.obs:
        return f'There are {adata.n_obs:,} cells; which came with a label is not known: obs["{column}"] is gone.{empty}'
    changed = (now != given)[labeled].sum()
    kept = f", of which {changed:,} changed" if changed else " and kept it"
    others = f"{(~labeled & named).sum():,} had none and were named"
    return f"Of {adata.n_obs:,} cells, {labeled.sum():,} came with a label{kept}; {others}.{empty}"


def _table(adata: AnnData) -> list[dict[str, str]]:
    """Return a row per label: cells with it before and now, and the probabilities of newly labeled cells."""
    names, given, now = labels_of(adata)
    probability = adata.obs["scanvi_probability"].to_numpy()
    rows = []
    for code, name in enumerate(names):
        sure = probability[(now == code) & (given < 0) & ~np.isnan(probability)]
        rows.append(
            {
                "label": name,
                "given": f"{(given == code).sum():,}",
                "now": f"{(now == code).sum():,}",
                "named": f"{((now == code) & (given < 0)).sum():,}",
                "median": in_words(np.median(sure)) if len(sure) else "",
                "low": f"{(sure < 0.5).sum():,}",
            }
        )
    return rows

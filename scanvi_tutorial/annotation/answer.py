"""Write an annotation into an AnnData: labels, probabilities, sets, states and metadata (book/10_your_data.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from scanvi_tutorial.annotation.guarantee import Calibration, percent, promise
from scanvi_tutorial.annotation.strangers import groups_of_refused
from scanvi_tutorial.config import NONE_OF_THESE
from scanvi_tutorial.inputs.cells import WRITTEN
from scanvi_tutorial.inputs.coarse import Coarse, smallest_parents
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.writing import names_in_file
from scanvi_tutorial.model.persistence import versions


def check_asked(coverage: object, reject: object, names: Sequence[str] = ()) -> None:
    """Raise `InputError` unless both are None or between 0 and 1, and where a type is called "none of these"."""
    if reject is not None and NONE_OF_THESE in names:
        raise InputError(
            f"A type is called {NONE_OF_THESE!r}, as refused cells are. Give it another name, or leave out reject."
        )
    for name, value, example in (("coverage", coverage, 0.9), ("reject", reject, 0.05)):
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
        if value is not None and not (number and 0 < value < 1):
            raise InputError(f"{name} must lie between 0 and 1, such as {name}={example}, and is {value!r}.")


def guaranteed(
    probabilities: pd.DataFrame,
    p_known: NDArray[np.float64],
    calibration: Calibration,
    *,
    coverage: float | None,
    reject: float | None,
    coarse: Coarse,
    alike: bool,
    kept: NDArray[np.integer] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Return columns of `obs`, an entry of `uns` about them, and warnings.

    Args:
        probabilities: (cells, labels).
        p_known: (cells,), as `Calibration.p_known` returns them.
        calibration: Predictions for labeled cells while their labels were hidden.
        coverage: Required coverage of the prediction sets; None for no sets.
        reject: Share of cells of known types that may be rejected; None rejects none.
        coarse: The types below each coarse name; empty where there are none.
        alike: Whether labeled cells are similar to the others of their type.
        kept: Labels that cells keep, as codes (cells,), -1 for none: their set is the label, and none is rejected.
    """
    names, p = list(probabilities), probabilities.to_numpy()
    columns = pd.DataFrame({"scanvi_p_known": p_known}, index=probabilities.index)
    about: dict[str, Any] = {}
    said: list[str] = []
    stands = np.zeros(len(p), dtype=bool) if kept is None else kept >= 0
    if reject is not None:
        refused, expected = int(((p_known <= reject) & ~stands).sum()), reject * (~stands).sum()
        about |= {"reject": float(reject), "refused": refused}
        said.append(
            f"{refused:,} cells are rejected. If all cells are similar to the labeled ones, about {expected:,.0f} are "
            "expected by chance" + ("." if alike else "; but most cells are not similar, so it may be more or fewer.")
        )
        smallest = 1 / (len(calibration.codes) + 1)
        if smallest > reject:
            said.append(
                f"With {len(calibration.codes)} hidden labels no p-value is below {smallest:.2g}, so that no cell can "
                f"be refused at {reject:g}. Label more cells."
            )
    if coverage is None:
        return columns, about, said
    sets = calibration.sets(p, coverage)
    if kept is not None:
        sets[stands] = np.eye(len(names), dtype=bool)[kept[stands]]
    columns["scanvi_set"] = pd.Categorical(_joined(names, p, sets))
    columns["scanvi_set_size"] = sets.sum(1)
    if coarse:
        columns["scanvi_coarse"] = pd.Categorical(smallest_parents(coarse, names, sets))
    about |= {"coverage": float(coverage), "promise": promise(calibration, names, coverage, alike=alike)}
    about["by_type"] = calibration.found(names, coverage)
    said.append(about["promise"])
    right = (calibration.probabilities.argmax(1) == calibration.codes).mean() if len(calibration.codes) else 0
    if right > coverage:
        said.append(
            f"The most probable type was right for {right:.0%} of hidden labels, more than the required "
            f"{percent(coverage)}. A set always includes it, so the coverage of the sets is higher than required."
        )
    return columns, about, said


def write_answer(
    adata: AnnData,
    probabilities: pd.DataFrame,
    states: NDArray[np.floating],
    *,
    about: Mapping[str, Any],
    columns: pd.DataFrame,
    kept: NDArray[np.integer] | None = None,
    refused: NDArray[np.bool_] | None = None,
) -> None:
    """Write an annotation into `adata`, which is not changed before everything has been checked.

    Args:
        adata: The cells.
        probabilities: (cells, labels), in the order of the cells. The table that is written has `names_in_file`,
            and `uns["scanvi"]["label_names"]` the names as they are.
        states: (cells, latent).
        about: Entries of `uns["scanvi"]` besides versions and names, of types that an `.h5ad` file can hold.
        columns: Further columns of `obs`, as `guaranteed` returns them.
        kept: Labels that cells keep whatever the probabilities are, as codes (cells,), -1 for none.
        refused: Cells whose label is "none of these", (cells,); their probability is missing.
    """
    p = probabilities.to_numpy()
    if not (np.isfinite(p).all() and np.isfinite(states).all()):
        raise InputError("The model's answer is not a number in some cells. Look for counts far beyond the others.")
    refused = np.zeros(len(p), dtype=bool) if refused is None else refused
    codes = p.argmax(1) if kept is None else np.where(kept >= 0, kept, p.argmax(1))
    names = list(probabilities.columns)
    with_none = [*names, NONE_OF_THESE] if refused.any() else names
    labels = pd.Categorical.from_codes(np.where(refused, len(names), codes), with_none)
    labels = labels.remove_unused_categories()  # scanpy cannot rank genes for no cell
    table = pd.DataFrame(p, index=pd.Index(adata.obs_names, name=None), columns=names_in_file(names))
    adata.obsm["scanvi_probabilities"] = table  # first, since AnnData checks it most strictly
    adata.obsm["X_scanvi"] = states
    _forget_colors(adata, "scanvi_label", labels)
    adata.obs["scanvi_label"] = labels
    adata.obs["scanvi_probability"] = np.where(refused, np.nan, p[np.arange(len(p)), codes])
    for name in WRITTEN[2:]:
        if name in columns:
            _forget_colors(adata, name, columns[name].array)
            adata.obs[name] = columns[name].array
        elif name in adata.obs:
            del adata.obs[name]  # of an earlier annotation
    texts = {"label_names": np.array(names, dtype=object), "warnings": np.array(about["warnings"], dtype=object)}
    adata.uns["scanvi"] = {**about, "versions": versions(), **texts}


def _forget_colors(adata: AnnData, column: str, values: Any) -> None:
    """Remove scanpy's colors of a column whose categories will change."""
    if column in adata.obs and isinstance(values, pd.Categorical):
        before = adata.obs[column].astype("category").cat.categories
        if list(before) != list(values.categories):
            adata.uns.pop(f"{column}_colors", None)


def strangers_table(
    names: pd.Index,
    cells: AnnData,
    p_known: NDArray[np.float64],
    refused: NDArray[np.bool_],
    free: NDArray[np.bool_],
    component: NDArray[np.integer],
) -> tuple[dict[str, Any], list[str]]:
    """Return tables of the rejected cells and their groups, and a sentence about each group.

    `names` are the names of all cells; `cells` are the rejected cells and others for comparison, with counts.
    `q` of a cell is the expected share of cells of known types among the unlabeled cells that are at least as strange
    (Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x).
    """
    shown, group = names.get_indexer(cells.obs_names), np.full(len(names), -1)
    group[shown], groups = groups_of_refused(cells, refused[shown], component[shown])
    q = np.full(len(p_known), np.nan)
    q[free] = false_discovery_control(p_known[free])
    rows = np.flatnonzero(refused)
    rows = rows[np.lexsort((p_known[rows], np.where(group[rows] < 0, len(group), group[rows])))]
    table = pd.DataFrame(
        {
            "cell": np.array(names[rows], dtype=object),
            "p_known": p_known[rows],
            "q": q[rows],
            "group": np.array([f"group {number + 1}" if number >= 0 else "" for number in group[rows]], dtype=object),
        },
        index=[str(number) for number in range(len(rows))],
    )
    said = [
        f"{row.cells} of the rejected cells are a group" + (f" with high {row.high}." if row.high else ".")
        for row in groups.itertuples()
    ]
    return {"strangers": table, "groups": groups}, said


def _joined(names: Sequence[str], p: NDArray[np.float64], sets: NDArray[np.bool_]) -> list[str]:
    """Return the names in each set, the most probable first, joined by "or"."""
    order = np.argsort(-p, axis=1, kind="stable")
    return [" or ".join(names[kind] for kind in own if inside[kind]) for own, inside in zip(order, sets, strict=True)]

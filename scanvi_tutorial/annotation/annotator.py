"""The trained annotator that `annotate` saves in one file, and its predictions for new cells (book/13_guarantee.md).

The fits, principal components, label model and rules give the label probabilities; `Strangeness` and `Calibration` give
prediction sets and p-values. The prediction of a cell depends only on its own counts, so new cells are read in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import softmax

from scanvi_tutorial.annotation.answer import guaranteed, strangers_table
from scanvi_tutorial.annotation.combined import pooled_tables
from scanvi_tutorial.annotation.guarantee import Calibration
from scanvi_tutorial.annotation.label_model import Parameters
from scanvi_tutorial.annotation.rules import LearnedRules
from scanvi_tutorial.annotation.strangers import Strangeness
from scanvi_tutorial.evaluation import Components
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.model.persistence import as_persistence_error, read_file, write_file
from scanvi_tutorial.model.scanvi import SCANVI

_PARTS = {
    "parameters": Parameters,
    "rules": LearnedRules,
    "strangeness": Strangeness,
    "calibration": Calibration,
    "components": Components,
}
_TENSOR = "__tensor__"  # key of the name of an array; not a possible coarse name


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Predictions for some cells."""

    probabilities: NDArray[np.float64]  # (cells, types)
    states: NDArray[np.float32]  # (cells, latent), of the first fit
    strangeness: NDArray[np.float64]  # (cells,)
    component: NDArray[np.integer]  # (cells,), the most probable of the unnamed components


@dataclass(frozen=True, slots=True, eq=False)
class Annotator:
    """The recommended method, trained, for new cells; `annotate(..., model=path)` saves it, and `predict` uses it."""

    fits: Sequence[SCANVI]
    label_names: Sequence[str]
    exponents: Sequence[float]  # of label model and rules
    parameters: Parameters  # of the label model
    rules: LearnedRules
    strangeness: Strangeness
    calibration: Calibration
    components: Components | None
    coarse: Mapping[str, Sequence[str]]  # coarse names and the types below each
    alike: bool  # whether labeled cells were like the others

    @property
    def genes(self) -> list[str]:
        """The genes of the fits, in their order."""
        return self.fits[0].genes

    def say(self, cells: AnnData) -> Said:
        """Return the predictions for cells with raw counts of `genes`, in that order, in `X`."""
        states = [latent(model, cells) for model in self.fits]
        views = states if self.components is None else [*states, self.components(cells)]
        tables = np.stack([softmax(self.parameters.log_joint(views), 1), self.rules(states)])
        probabilities = pooled_tables(tables, self.exponents)
        component = self.strangeness.component_of(views, len(self.label_names))
        return Said(probabilities, states[0], self.strangeness(views, probabilities), component)

    def promised(
        self,
        said: Said,
        names: pd.Index,
        cells: AnnData | None,
        *,
        coverage: float | None,
        reject: float | None,
        kept: NDArray[np.integer] | None = None,
    ) -> tuple[pd.DataFrame, NDArray[np.bool_], dict[str, Any], list[str]]:
        """Return columns of `obs`, which cells are rejected, entries of `uns` about both, and warnings.

        Args:
            said: Predictions for the cells.
            names: Names of the cells, (cells,).
            cells: All cells, or the rejected ones and some others, with raw counts of `genes` in `X`, to find genes
                that are high in rejected cells; None where no cells are rejected.
            coverage: Required coverage of the prediction sets; None for no sets.
            reject: Share of cells of known types that may be rejected; None rejects none.
            kept: Labels that cells keep, as codes (cells,), -1 for none.
        """
        probabilities = pd.DataFrame(said.probabilities, names, list(self.label_names))
        p_known = self.calibration.p_known(said.strangeness)
        free = np.ones(len(p_known), dtype=bool) if kept is None else kept < 0
        columns, about, texts = guaranteed(
            probabilities,
            p_known,
            self.calibration,
            coverage=coverage,
            reject=reject,
            coarse=self.coarse,
            alike=self.alike,
            kept=kept,
        )
        refused = np.zeros(len(p_known), dtype=bool) if reject is None else (p_known <= reject) & free
        more: dict[str, Any] = {"guarantee": about}
        if reject is not None:
            found, of_groups = strangers_table(names, cells, p_known, refused, free, said.component)
            more, texts = more | found, [*texts, *of_groups]
        return columns, refused, more, texts

    def save(self, path: str | Path) -> Path:
        """Write everything to one file of safetensors; raise `PersistenceError` where it cannot be written."""
        tensors: dict[str, torch.Tensor] = {}
        about: dict[str, Any] = {"fits": [fit.about() for fit in self.fits]}
        for number, fit in enumerate(self.fits):
            tensors |= {f"fit{number}.{name}": tensor for name, tensor in fit.state_dict().items()}
        for field in fields(self)[1:]:
            about[field.name] = _packed(getattr(self, field.name), field.name, tensors)
        return write_file(path, tensors, about, kind="annotation")

    @classmethod
    def load(cls, path: str | Path) -> Annotator:
        """Read what `save` wrote; raise `PersistenceError` for another kind of file, such as a single fit."""
        tensors, about = read_file(path, kind="annotation")
        with as_persistence_error(f"{path} holds no annotation", "Call st.annotate(..., model=path) again."):
            fits = []
            for number, of_fit in enumerate(about.pop("fits")):
                start = f"fit{number}."
                own = {name.removeprefix(start): part for name, part in tensors.items() if name.startswith(start)}
                fits.append(SCANVI.from_saved(own, of_fit))
            found = {name: _unpacked(value, tensors) for name, value in about.items()}
            found["strangeness"]["parameters"] = Parameters(**found["strangeness"]["parameters"])
            for name, kind in _PARTS.items():
                found[name] = found[name] and kind(**found[name])
            return cls(fits, **found)


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value as JSON types; arrays are added to `tensors` and replaced by their names."""
    if is_dataclass(value):
        return {
            field.name: _packed(getattr(value, field.name), f"{name}.{field.name}", tensors) for field in fields(value)
        }
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value))
        return {_TENSOR: name}
    if isinstance(value, list | tuple):
        return [_packed(part, f"{name}.{number}", tensors) for number, part in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]].numpy()
        return {name: _unpacked(part, tensors) for name, part in value.items()}
    return [_unpacked(part, tensors) for part in value] if isinstance(value, list) else value

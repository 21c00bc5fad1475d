"""Checkpoints: save an unfinished fit to a file, so that an interrupted fit can be continued.

The file holds everything that the rest of the fit depends on, and hashes of the inputs of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.inputs.arrays import Cells
from scanvi_tutorial.model.persistence import PersistenceError, as_persistence_error, is_saved, read_file, write_file
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.history import FitState

_OF_THE_FIT = ("rows", "best", "best_epoch", "seconds")  # of `FitState`, beside its tensors


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file with the checkpoint of a fit."""

    path: str | Path  # in an existing folder
    origin: Mapping[str, str]  # hashes of the inputs of the fit, by name

    def write(self, fit_state: FitState, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Save the current state of the fit; an earlier checkpoint is replaced."""
        adam = optimizer.state_dict()
        parts = {"model": model.state_dict(), "best": fit_state.best_state or {}}
        parts |= {f"optimizer.{number}": state for number, state in adam["state"].items()}
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        about = {
            "origin": dict(self.origin),
            "groups": adam["param_groups"],
            "schedule": schedule.state_dict(),
            **{name: getattr(fit_state, name) for name in _OF_THE_FIT},
        }
        write_file(self.path, tensors, about, kind="checkpoint")

    def restore(self, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> FitState:
        """Restore the saved state of the fit; without a saved checkpoint, leave everything unchanged.

        Raises:
            PersistenceError: Where the file is something else, a damaged checkpoint, or one of another fit.
        """
        if not is_saved(self.path, kind="checkpoint"):
            return FitState()
        tensors, about = read_file(self.path, kind="checkpoint")
        if differing := [name for name, value in self.origin.items() if about["origin"].get(name) != value]:
            raise PersistenceError(
                f"{self.path} is the checkpoint of another fit: it differs in {', '.join(differing)}. "
                "Delete it to begin anew, or name another file for this fit."
            )
        with as_persistence_error(f"{self.path} is damaged", "Delete it, and the fit begins anew."):
            model.load_state_dict(_part(tensors, "model"))
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            states = {number: _part(tensors, f"optimizer.{number}") for number in range(len(parameters))}
            for parameter, state in zip(parameters, states.values(), strict=True):
                for name, value in state.items():
                    if value.ndim:  # in the memory layout of the parameter, which a fused optimizer step requires
                        state[name] = torch.empty_like(parameter).copy_(value)
            optimizer.load_state_dict({"state": states, "param_groups": about["groups"]})
            schedule.load_state_dict(about["schedule"])
            kept = {name: about[name] for name in _OF_THE_FIT}
            return FitState(**kept, best_state=_part(tensors, "best") or None)

    def remove(self) -> None:
        """Delete the file."""
        Path(self.path).unlink(missing_ok=True)


def origin(model: SCANVI, cells: Cells, config: TrainConfig, device: str, processes: int) -> dict[str, str]:
    """Return hashes of the inputs of a fit, by name, so that its checkpoint can be recognized."""
    made_from = {
        "the version of torch": str(torch.__version__),
        "the device": device,
        "the number of processes": processes,
        "the genes": model.genes,
        "the names of the labels": model.label_names,
        "the batches": [model.batches and asdict(model.batches), cells.batch_codes],
        "the initial weights": {name: value.numpy(force=True) for name, value in model.state_dict().items()},
        "the counts": [cells.counts.shape, cells.counts.indptr, cells.counts.indices, cells.counts.data],
        "the labels": [cells.codes, cells.allowed],
    }
    for settings in (model.config, config):
        made_from |= {f"{type(settings).__name__}.{name}": value for name, value in asdict(settings).items()}
    return {name: joblib.hash(value, coerce_mmap=True) for name, value in made_from.items()}


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

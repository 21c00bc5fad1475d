"""Keep where an unfinished fit stands in a file, so that a fit that was killed goes on from there.

A checkpoint holds all that the rest of a fit depends on: parameters and running statistics, the state of the optimizer
and of its schedule, the random number generators, the best state so far and the history. It also holds hashes of what
the fit was made from, so that nobody goes on with a fit of other data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import joblib
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.inputs.arrays import Cells
from scanvi_tutorial.model.persistence import PersistenceError, as_persistence_error, is_saved, read_file, write_file
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.history import FitState

__all__ = ["Checkpoint", "origin"]


class Checkpoint:
    """A file that holds where a fit stands.

    Args:
        path: Of the file, in a folder that is there.
        origin: Hashes of what the fit is made from, by name.
    """

    def __init__(self, path: str | Path, origin: Mapping[str, str]) -> None:
        self.path, self.origin = Path(path), dict(origin)

    def write(
        self,
        fit_state: FitState,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        rng: Generator,
    ) -> None:
        """Keep where the fit stands, in place of where it stood."""
        adam = optimizer.state_dict()
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (fit_state.best_state or {}).items()}
        for number, state in adam["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        for number, generator in enumerate(_generators(model)):
            tensors[f"generator.{number}"] = generator.get_rng_state()
        about = {
            "origin": self.origin,
            "groups": adam["param_groups"],
            "schedule": schedule.state_dict(),
            "rng": rng.bit_generator.state,
            "rows": fit_state.rows,
            "best": fit_state.best,
            "best_epoch": fit_state.best_epoch,
            "seconds": fit_state.seconds,
        }
        write_file(self.path, tensors, about, kind="checkpoint")

    def restore(self, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, rng: Generator) -> FitState:
        """Put everything back to where the checkpoint says the fit stands; without one, leave it at the start.

        Call it within `torch.random.fork_rng`: torch's global generator is put back too.

        Raises:
            PersistenceError: Where the file is something else, a damaged checkpoint, or one of another fit.
        """
        if not is_saved(self.path, kind="checkpoint"):
            return FitState()
        tensors, about = read_file(self.path, kind="checkpoint")
        with as_persistence_error(f"{self.path} is damaged", "Delete it, and the fit begins anew."):
            if differing := [name for name, value in self.origin.items() if about["origin"].get(name) != value]:
                raise PersistenceError(
                    f"{self.path} is the checkpoint of another fit: it differs in {', '.join(differing)}. "
                    "Delete it to begin anew, or name another file for this fit."
                )
            model.load_state_dict(_part(tensors, "model"))
            _restore_optimizer(optimizer, _part(tensors, "optimizer"), about["groups"])
            schedule.load_state_dict(about["schedule"])
            rng.bit_generator.state = about["rng"]
            for number, generator in enumerate(_generators(model)):
                generator.set_rng_state(tensors[f"generator.{number}"])
            best = _part(tensors, "best") or None
            return FitState(about["rows"], about["best"], about["best_epoch"], best, about["seconds"])

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def origin(model: SCANVI, cells: Cells, config: TrainConfig, device: torch.device) -> dict[str, str]:
    """Return hashes of what a fit is made from, by name, for a checkpoint to tell it from others."""
    made_from = {
        "the version of torch": str(torch.__version__),
        "the device": str(device),
        "the genes": model.genes,
        "the names of the labels": model.label_names,
        "the batches": [model.batches and asdict(model.batches), cells.batch_codes],
        "the initial weights": {name: value.numpy(force=True) for name, value in model.state_dict().items()},
        "the counts": [cells.counts.shape, cells.counts.indptr, cells.counts.indices, cells.counts.data],
        "the labels": cells.codes,
    }
    for settings in (model.config, config):
        made_from |= {f"{type(settings).__name__}.{name}": value for name, value in asdict(settings).items()}
    return {name: joblib.hash(value, coerce_mmap=True) for name, value in made_from.items()}


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.ndim:  # laid out as the parameter is: a fused step walks through both in the order of memory
                state[name] = torch.empty_like(parameter).copy_(value)


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _generators(model: nn.Module) -> list[ModuleType]:
    """Return the modules whose generators a fit of `model` draws from."""
    device = next(model.parameters()).device.type
    return [torch] if device == "cpu" else [torch, getattr(torch, device)]

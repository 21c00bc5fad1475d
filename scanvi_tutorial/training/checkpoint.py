"""Where an unfinished fit stands, kept in a folder, so that it goes on as if nothing had happened.

Explained in book/10_your_data.md. A checkpoint holds all that the rest of a fit depends on: parameters and running
statistics, the state of the optimizer and of its schedule, both random number generators, the best state so far and
the history. It is written and replaced as a whole (persistence.py), and holds digests of what the fit was made from:
nobody can go on with a fit of other data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.inputs.arrays import Cells
from scanvi_tutorial.model.persistence import (
    PersistenceError,
    holds,
    read_folder,
    refusing,
    remove_folder,
    write_folder,
)
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.history import FitState

__all__ = ["Checkpoint", "digest", "origin"]


class Checkpoint:
    """A folder that holds where a fit stands.

    Args:
        folder: Made where it does not exist.
        origin: What the fit is made from: texts by name, and digests of whatever is long.
    """

    def __init__(self, folder: str | Path, origin: Mapping[str, str]) -> None:
        self.folder, self.origin = Path(folder), dict(origin)

    def write(
        self,
        progress: FitState,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        rng: np.random.Generator,
    ) -> None:
        """Keep where the fit stands, in place of where it stood."""
        groups = optimizer.state_dict()
        table = pd.DataFrame(progress.rows)
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (progress.best_state or {}).items()}
        for number, state in groups["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        tensors["history"] = torch.from_numpy(table.to_numpy(dtype=np.float64))
        tensors["generator"] = _generator_state(_device(model))
        about = {
            "origin": self.origin,
            "columns": list(table.columns),
            "groups": groups["param_groups"],
            "schedule": schedule.state_dict(),
            "rng": rng.bit_generator.state,
            "best": repr(progress.best),  # JSON knows no infinity
            "best_epoch": progress.best_epoch,
            "seconds": progress.seconds,
        }
        write_folder(self.folder, tensors, about, kind="checkpoint")

    def restore(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        rng: np.random.Generator,
    ) -> FitState:
        """Put everything back to where the checkpoint says the fit stands; without one, leave it at the start.

        Call it within `torch.random.fork_rng`: torch's global generator is put back too.

        Raises:
            PersistenceError: Where the folder holds something else, a damaged checkpoint, or one of another fit.
        """
        if not holds(self.folder, kind="checkpoint"):
            return FitState()
        tensors, about = read_folder(self.folder, kind="checkpoint")
        with refusing(f"{self.folder} is damaged", f"Delete {self.folder}, and the fit begins anew."):
            self._refuse_another(about["origin"])
            history = tensors["history"].numpy()
            best = _part(tensors, "best")
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(tensors, "optimizer").items():
                number, _, what = name.partition(".")
                states.setdefault(int(number), {})[what] = value
            model.load_state_dict(_part(tensors, "model"))
            _restore_optimizer(optimizer, states, about["groups"])
            schedule.load_state_dict(about["schedule"])
            rng.bit_generator.state = about["rng"]
            _set_generator_state(_device(model), tensors["generator"])
            return FitState(
                [dict(zip(about["columns"], map(float, row), strict=True)) for row in history],
                float(about["best"]),
                int(about["best_epoch"]),
                best or None,
                float(about["seconds"]),
            )

    def remove(self) -> None:
        """Delete what was written, and the folder if nothing else is in it."""
        remove_folder(self.folder)

    def _refuse_another(self, origin: Mapping[str, str]) -> None:
        differing = [name for name in self.origin if origin.get(name) != self.origin[name]]
        if differing:
            raise PersistenceError(
                f"{self.folder} holds the checkpoint of another fit: it differs in {', '.join(differing)}. "
                "Delete the folder to begin anew, or name another one for this fit."
            )


def origin(model: SCANVI, cells: Cells, config: TrainConfig, device: torch.device) -> dict[str, str]:
    """Say what a fit is made from, for a checkpoint to tell it from others."""
    said = {"the version of torch": torch.__version__, "the device": str(device)}
    for settings in (model.config, config):
        said |= {f"{type(settings).__name__}.{name}": repr(value) for name, value in asdict(settings).items()}
    weights = (part for pair in model.state_dict().items() for part in pair)
    return said | {
        "the genes": digest(model.genes),
        "the names of the labels": digest(model.label_names),
        "the batches": digest([model.batches, cells.batch_codes]),
        "the initial weights": digest(weights),
        "the counts": digest([cells.counts.shape, cells.counts.indptr, cells.counts.indices, cells.counts.data]),
        "the labels": digest([cells.codes]),
    }


def digest(parts: Iterable[Any]) -> str:
    """Return one short text that tells arrays, tensors and texts from any others."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode())
            found.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))  # no copy: counts may be large
        else:
            found.update(f"{part!r}\0".encode())
    return found.hexdigest()[:24]


def _restore_optimizer(optimizer: Optimizer, states: Mapping[int, Mapping[str, Tensor]], groups: list[Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        state = optimizer.state[parameter] = {}
        for name, value in states[number].items():
            if value.ndim == 0:  # the number of steps, which a fused optimizer counts where the parameter is
                state[name] = value.to(parameter.device if groups[0].get("fused") else "cpu")
            else:  # laid out as the parameter is: a fused step walks through both in the order of memory
                state[name] = torch.empty_like(parameter).copy_(value)
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        kept = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
        group |= {name: value for name, value in kept.items() if name != "params"}


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _generator_state(device: torch.device) -> Tensor:
    """Return the state of the generators that a fit on `device` draws from, one behind the other, (bytes,)."""
    extra = [] if device.type == "cpu" else [getattr(torch, device.type).get_rng_state()]
    return torch.cat([torch.get_rng_state(), *extra])


def _set_generator_state(device: torch.device, state: Tensor) -> None:
    own = len(torch.get_rng_state())
    torch.set_rng_state(state[:own].clone())
    if device.type != "cpu":
        getattr(torch, device.type).set_rng_state(state[own:].clone())

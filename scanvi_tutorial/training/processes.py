"""Data-parallel training: several processes share one fit and average their gradients and metrics.

Explained in book/14_scale.md. Every process holds the whole model and is given the same cells. A minibatch is divided
into equal parts, so that the mean over processes of their means over cells is the mean over all cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from scanvi_tutorial.inputs.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Processes:
    """The processes of one fit, started by Lightning Fabric; `Processes()` is a single process."""

    fabric: Fabric | None = None

    @property
    def count(self) -> int:
        """The number of processes."""
        return 1 if self.fabric is None else self.fabric.world_size

    @property
    def rank(self) -> int:
        """The index of this process, starting at 0."""
        return 0 if self.fabric is None else self.fabric.global_rank

    def part(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of this process; all processes get equally many, and a few rows at the end may be left out.

        If there are fewer than two rows per process, every process gets all rows, because BatchNorm needs two.
        """
        each = len(rows) // self.count
        return rows if each < 2 else rows[self.rank * each : (self.rank + 1) * each]

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor that is not None by its mean over processes.

        Raises:
            ConnectionError: Where another process has ended.
        """
        own = [tensor for tensor in tensors if tensor is not None]
        if self.count == 1 or not own:
            return
        flat = self._mean(torch.cat([tensor.reshape(-1) for tensor in own]))
        means = flat.split([tensor.numel() for tensor in own])
        for tensor, mean in zip(own, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean over processes of each value, the same in all of them; raises as `average`."""
        if self.count == 1:
            return values
        return dict(
            zip(values, self._mean(torch.tensor([*values.values()], dtype=torch.float64)).tolist(), strict=True)
        )

    def check_alike(self, what: object) -> None:
        """Raise `InputError` in every process if `what` (cells, settings, weights, epoch) differs between them.

        Each process compares its hash of `what` with the mean of the hashes.
        """
        own = torch.tensor([int(joblib.hash(what, coerce_mmap=True)[:10], 16)], dtype=torch.float64)  # 40 bits: exact
        if self.count > 1 and not torch.equal(self._mean(own.clone()), own):
            raise InputError(
                "The processes of this fit were given different cells, settings, initial weights or checkpoints. Give "
                "all of them the same, and a checkpoint in a folder that all of them see."
            )

    def _mean(self, values: Tensor) -> Tensor:
        try:
            return self.fabric.all_reduce(values, reduce_op="mean").to(values.device)
        except RuntimeError as error:
            raise ConnectionError(
                f"Another of the {self.count} processes of this fit has ended ({str(error).splitlines()[0]}). What it "
                "said is the cause. Start all of them again; with a checkpoint the fit goes on from there."
            ) from error


def launch(work: Callable[[Fabric], Any], count: int) -> Any:
    """Call `work` in `count` processes of this machine, each on a GPU or the CPU; return the result of the first one.

    `work` is pickled, so it must be a function of a module or a `functools.partial` of one; its result should be small.
    If one process ends early, the others are terminated.

    Raises:
        InputError: Where Lightning Fabric is not installed.
        ConnectionError: Where a process failed or was killed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
    except ImportError as error:
        raise InputError('Several processes need Lightning Fabric: pip install "scanvi-tutorial[cluster]".') from error
    accelerator = "cuda" if torch.cuda.device_count() >= count else "cpu"
    try:
        here = LightningEnvironment()  # so that settings of Slurm or torchrun are ignored
        return Fabric(accelerator=accelerator, devices=count, strategy="ddp_spawn", plugins=[here]).launch(work)
    except ProcessRaisedException as error:
        raise ConnectionError(f"A process of this fit failed. {str(error).splitlines()[-1]}") from error
    except ProcessExitedException as error:
        how = error.signal_name or f"exit code {error.exit_code}"
        raise ConnectionError(
            f"A process of this fit was killed ({how}), and the others were ended. Most often memory was short."
        ) from error

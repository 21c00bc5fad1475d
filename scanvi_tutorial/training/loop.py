"""Fit the model: minibatches, optimizer steps, a schedule, early stopping by the bound on held-out cells.

Explained in book/05_training.md; what a step minimizes is in objective.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from anndata import AnnData
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from scanvi_tutorial.config import Objective, TrainConfig, progress_bar
from scanvi_tutorial.inputs.arrays import Cells, chunks
from scanvi_tutorial.inputs.errors import InputError, listed, whole_number
from scanvi_tutorial.inputs.session import one_thread, usual_settings
from scanvi_tutorial.model.bound import BOUND_TERMS, bound_of, evaluating
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.checkpoint import Checkpoint, origin
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.history import FitState, History
from scanvi_tutorial.training.minibatches import (
    Half,
    Minibatch,
    Split,
    length_of,
    paired_minibatches,
    read_half,
    split_cells,
)
from scanvi_tutorial.training.objective import Engine, PyroEngine, loss_of
from scanvi_tutorial.training.processes import Processes

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ALONE = Processes()
_MANY_ENTRIES = 1 << 19  # cells × genes of a minibatch: larger ones use several threads (book/11_speed.md)


def run_epoch(
    engine: Engine,
    minibatches: Iterable[Minibatch],
    optimizer: Optimizer,
    schedule: LRScheduler | None = None,
    *,
    kl_weight: float = 1.0,
    objective: Objective = "labels",
    after_step: Callable[[], object] | None = None,
    processes: Processes = ALONE,
) -> float:
    """Take one optimizer step per minibatch; return the mean loss, in nats per cell.

    `after_step` is called after each step. Gradients are averaged over `processes`.

    Raises `FloatingPointError` where the loss is not finite.
    """
    engine.model.train()
    losses = []
    for minibatch in minibatches:
        loss = loss_of(engine, minibatch.to(engine.model.device), kl_weight, objective)
        _refuse_no_number(loss, optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss.backward()
        processes.average(p.grad for p in engine.model.parameters())
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
        if after_step is not None:
            after_step()
    return float(np.mean(losses))


def _refuse_no_number(loss: Tensor, rate: float) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"The loss is {loss.item()} at learning rate {rate:g}. Lower TrainConfig.learning_rate, and look for "
            "counts far beyond the others."
        )


@usual_settings()
def fit(
    model: SCANVI,
    adata: AnnData,
    config: TrainConfig | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    after_step: Callable[[], object] | None = None,
    fabric: Fabric | None = None,
) -> History:
    """Train `model` on `adata` in place and leave it on the CPU, in evaluation mode, in the state with the best bound.

    Counts, labels and batches are read from the columns and the layer given to `from_anndata`. The bound is monitored
    on held-out unlabeled cells, or on training cells where there are too few of them.

    If a file `checkpoint` is named, the state of the fit is saved to it every `checkpoint_every` epochs. If the fit is
    interrupted and `fit` is called again with an equal model, cells and configuration, it continues from there. With
    the same number of threads, the final parameters are identical to the bit. The file is removed after the fit.

    PyTorch uses one thread during the fit, unless minibatches are very large (cells times genes), because the overhead
    of several threads exceeds their gain in small operations. `after_step` is called after each step; if it is given,
    no progress bar is shown.

    With a Lightning `fabric`, launched by the caller, several processes share one fit, each on its own device
    (book/14_scale.md). They must be given the same model, cells and configuration. `batch_size` is the total over all
    processes; each minibatch is divided into equal parts, and the remaining cells are left out in that epoch.
    BatchNorm normalizes over the cells of one process. At the end the model is the same in all processes.

    Raises:
        InputError: Where counts, labels or batches cannot be used, or a label that is to be learned has no cell, or
            processes were given different cells.
        ConnectionError: Where another process of the fit has ended.
        FloatingPointError: Where the loss is not finite.
        PersistenceError: Where `checkpoint` is damaged, another kind of file, or of another fit.
    """
    checkpoint_every = whole_number(checkpoint_every, "checkpoint_every", 1)
    config = config or TrainConfig()
    cells = model.cells(adata)
    if config.objective == "unlabeled":
        cells = cells.without_labels()
    elif missing := [name for code, name in enumerate(model.label_names) if code not in cells.codes]:
        raise InputError(
            f"No cell is labeled {listed(missing)} in adata.obs[{model.columns.labels_key!r}]; a class without a seed "
            "cannot be learned. Label some of its cells, or make a new model with SCANVI.from_anndata."
        )
    split = split_cells(cells.codes, config)
    processes = Processes(fabric)
    device = choose_device(config.device) if fabric is None else fabric.device
    alone = checkpoint is None and processes.count == 1
    made_from = {} if alone else origin(model, cells, config, device.type, processes.count)
    processes.check_alike(made_from)
    kept = None if checkpoint is None else Checkpoint(checkpoint, made_from)
    small = config.batch_size * len(model.genes) < _MANY_ENTRIES
    with one_thread() if small else nullcontext():
        history = _Fit(model, cells, split, config, device, processes, after_step).run(kept, checkpoint_every)
    if kept is not None and processes.rank == 0:
        kept.remove()
    return history


class _Fit:
    """The state of one run of `fit`."""

    def __init__(
        self,
        model: SCANVI,
        cells: Cells,
        split: Split,
        config: TrainConfig,
        device: torch.device,
        processes: Processes,
        after_step: Callable[[], object] | None = None,
    ) -> None:
        self.model = model
        self.cells = cells
        self.split = split
        self.config = config
        self.processes = processes
        self.after_step = after_step
        self.epochs, self.steps = length_of(split, config)
        self.warm_epochs = min(round(config.warmup * self.epochs), self.epochs - 1)
        self.model.to(device)
        self.engine: Engine = FastEngine(model) if config.engine == "fast" else PyroEngine(model)
        self.optimizer = Adam(parameter_groups(model, config.learning_rate), fused=model.device.type != "mps")
        peaks, steps = [group["lr"] for group in self.optimizer.param_groups], self.epochs * self.steps + 1
        self.schedule = OneCycleLR(self.optimizer, peaks, total_steps=steps)
        # as many training cells as are held out, so that the two bounds can be compared
        learned = split.unlabeled_rows if len(split.unlabeled_rows) else split.labeled_rows
        some = np.random.default_rng(config.seed).permutation(learned)
        self.sample = np.sort(some[: max(len(split.held_out_rows), 2)])

    def run(self, checkpoint: Checkpoint | None, every: int) -> History:
        started, state = time.perf_counter(), (self.model, self.optimizer, self.schedule)
        so_far = FitState() if checkpoint is None else checkpoint.restore(*state)
        spent, first = so_far.seconds, len(so_far.rows)
        self.processes.check_alike(first)
        shown = self.after_step is None and self.processes.rank == 0
        with torch.random.fork_rng(), pyro.validation_enabled(False):
            bar = progress_bar(range(first, self.epochs), "fit", unit="epoch", shown=shown)
            for epoch in bar:
                kl_weight = min(1.0, (epoch + 1) / (self.warm_epochs + 1))
                row = self.processes.mean(self.learn(epoch, kl_weight) | self.watch())
                score = row["bound_held_out"]
                bar.set_postfix_str(f"loss {row['loss']:.1f}, held-out bound {row['bound_held_out']:.1f}")
                # during the warm-up the KL weight is below one
                so_far.add(row, score if epoch >= self.warm_epochs else -math.inf, self.model)
                if epoch - max(so_far.best_epoch, self.warm_epochs) >= self.config.patience:
                    break
                if checkpoint is not None and self.processes.rank == 0 and (epoch + 1) % every == 0:
                    so_far.seconds = spent + time.perf_counter() - started
                    checkpoint.write(so_far, *state)
        if so_far.best_state is None:
            raise FloatingPointError(
                "The bound on held-out cells was never a number. Look for counts far beyond the others."
            )
        self.model.load_state_dict(so_far.best_state)
        self.model.cpu().eval()
        for parameter in self.model.parameters():  # the fast engine stored one of them in column-major order
            parameter.data = parameter.data.contiguous()
        rows, seconds = so_far.rows, spent + time.perf_counter() - started
        return History(rows, so_far.best_epoch, len(rows) < self.epochs, seconds)

    def learn(self, epoch: int, kl_weight: float) -> dict[str, float]:
        """Train one epoch; its random draws depend on seed, epoch and process, so a fit can continue at any epoch."""
        config, split = self.config, self.split
        order, noise = (np.random.SeedSequence([config.seed, epoch, *of]) for of in ((), (1 + self.processes.rank,)))
        torch.manual_seed(int(noise.generate_state(1)[0]))
        minibatches = paired_minibatches(
            self.cells,
            split.unlabeled_rows,
            split.labeled_rows,
            batch_size=config.batch_size,
            labeled_batch_size=config.labeled_batch_size,
            min_depth=config.min_depth,
            sparse=self.engine.sparse,
            rng=np.random.default_rng(order),
            part=self.processes.part,
            molecules=np.random.default_rng(noise),
        )
        rate = self.schedule.get_last_lr()[0]
        loss = run_epoch(
            self.engine,
            minibatches,
            self.optimizer,
            self.schedule,
            kl_weight=kl_weight,
            objective=config.objective,
            after_step=self.after_step,
            processes=self.processes,
        )
        self.processes.average(part for part in self.model.buffers() if part.is_floating_point())  # of BatchNorm
        return {"loss": loss, "kl_weight": kl_weight, "learning_rate": rate}

    def watch(self) -> dict[str, float]:
        """Evaluate the bound and the cross-entropy with the same noise in every epoch."""
        split = self.split
        with evaluating(self.model, self.config.seed):
            part = self.processes.part
            held_out = self.mean_terms(part(split.held_out_rows if len(split.held_out_rows) else self.sample))
            train = self.mean_terms(part(self.sample))
            row = {"bound_train": bound_of(train), "bound_held_out": bound_of(held_out), **held_out}
            if len(split.labeled_rows):
                halves = list(self.halves(part(split.labeled_rows), labeled=True))
                said = [self.model.label_cross_entropy(self.engine.logits(half), half.y) for half in halves]
                row["cross_entropy"] = torch.cat(said).mean().item()
        return row

    def mean_terms(self, rows: np.ndarray) -> dict[str, float]:
        """Return the mean over cells of every term of U."""
        parts = [self.engine.terms(half) for half in self.halves(rows)]
        return {name: torch.cat([part[name] for part in parts]).mean().item() for name in BOUND_TERMS}

    def halves(self, rows: np.ndarray, *, labeled: bool = False) -> Iterator[Half]:
        """Yield the cells without downsampling, in blocks, on the device of the model."""
        for part in chunks(rows, 512):
            yield read_half(self.cells, part, labeled=labeled, sparse=self.engine.sparse).to(self.model.device)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA where there is one, then MPS, then the CPU.

    Raises `InputError` where there is no such device.
    """
    there = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    there = [*(there if torch.cuda.is_available() else ()), *["mps"] * torch.backends.mps.is_available(), "cpu"]
    if name not in ("auto", *there):
        raise InputError(f'There is no device {name!r} here. TrainConfig.device is "auto" or one of {listed(there)}.')
    return torch.device(there[0] if name == "auto" else name)


_PACE = 10  # Adam changes a parameter by about the learning rate per step, too slowly for log θ
_FAST = ("log_inverse_dispersion", "share_logits", "confusion_logits")  # parameters that are not network weights


def parameter_groups(model: SCANVI, rate: float) -> list[dict[str, Any]]:
    """Return the parameters with their peak learning rates, which are higher for θ, shares and confusion."""
    networks = [p for name, p in model.named_parameters() if name not in _FAST]
    others = [p for name, p in model.named_parameters() if name in _FAST]
    return [{"params": networks, "lr": rate}, *([{"params": others, "lr": _PACE * rate}] if others else [])]

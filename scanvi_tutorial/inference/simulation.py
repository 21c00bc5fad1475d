"""Let a model tell the model_trace of new cells, and teach its guide to tell those backward.

Used in book/09_calibration.md: where the cells come from the model itself, the truth about them is known, and so is the
target of the guide. The generative half stays as it is: z1, y, z2 and l are drawn from it, then x.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyro
import torch
from anndata import AnnData
from pyro import poutine
from scipy import sparse
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.model.bound import estimator, evaluating
from scanvi_tutorial.model.scanvi import SCANVI

__all__ = ["draw_cells", "fit_guide"]

_CELLS_AT_ONCE = 512
_NO_LIBRARY = "A model that reads the library size off the counts cannot draw any: use library='latent'."
_NO_COUNT = "The model draws cells without any count. Look at its library size and its dropout."


def draw_cells(
    model: SCANVI,
    cells: int,
    *,
    batch: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Let `model` tell the model_trace of new cells, and keep every latent variable.

    Returns counts (cells, genes), CSR; `obs` holds the type as `truth`, l as `library_size`
    and the column of labels, which says that nobody has told us any; `obsm` holds `z1` and
    `z2`. A cell without a count is drawn anew: that
    depends on x alone, so what is true given x stays true. A model that tells batches
    apart wants the name of one, which all cells are then of.

    Raises:
        InputError: Where the library size is no part of the model_trace, no cell has a count, or
            the batch is none of the model's.
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, got {cells}.")
    if model.config.library != "latent":
        raise InputError(_NO_LIBRARY)
    generative = poutine.uncondition(model.model)
    blank = torch.zeros(_CELLS_AT_ONCE, len(model.genes), device=model.device)
    b = _batch_of_all(model, batch)
    latents: dict[str, list[np.ndarray]] = {name: [] for name in ("z1", "y", "z2", "l")}
    counts: list[sparse.csr_matrix] = []
    with evaluating(model, seed):
        while sum(part.shape[0] for part in counts) < cells:
            model_trace = poutine.trace(generative).get_trace(blank, batch=b)
            seen = model_trace.nodes["x"]["value"].sum(-1) > 0
            if not seen.any():
                raise InputError(_NO_COUNT)
            for name, parts in latents.items():
                parts.append(model_trace.nodes[name]["value"][seen].cpu().numpy())
            counts.append(sparse.csr_matrix(model_trace.nodes["x"]["value"][seen].cpu().numpy()))
    drawn = {name: np.concatenate(parts)[:cells] for name, parts in latents.items()}
    x = sparse.vstack(counts, format="csr")[:cells]
    names = [f"cell{number:0{len(str(cells))}d}" for number in range(1, cells + 1)]
    obs = pd.DataFrame(
        {
            model.columns.labels_key: pd.Categorical([model.columns.unlabeled_category] * cells),
            "truth": pd.Categorical.from_codes(drawn["y"].argmax(-1), model.label_names),
            "library_size": drawn["l"][:, 0],
        },
        index=names,
    )
    if model.batches is not None:
        obs[model.batches.key] = pd.Categorical([batch] * cells)
    layers = {} if model.columns.layer is None else {model.columns.layer: x}
    var = pd.DataFrame(index=pd.Index(model.genes))
    states = {"z1": drawn["z1"], "z2": drawn["z2"]}
    return AnnData(x, obs=obs, var=var, obsm=states, layers=layers)


def fit_guide(
    model: SCANVI,
    adata: AnnData,
    *,
    steps: int = 1_000,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> np.ndarray:
    """Teach the guide of `model` the cells of `adata`, without labels; the generative half stays to the bit.

    Everything runs in evaluation mode: with cells enough there is nothing for dropout to prevent, and what is trained
    is what will be asked. Returns the loss −U of every step, in nats per cell, (steps,).

    Raises `FloatingPointError` where the loss stops being a number.
    """
    cells = model.cells(adata, labels=False)
    rng, elbo = np.random.default_rng(seed), estimator()
    losses = np.empty(steps)
    model.eval()
    with _only_the_guide_learns(model) as learning, torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        optimizer = Adam(learning)
        schedule = OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
        for step in range(steps):
            rows = rng.choice(adata.n_obs, min(batch_size, adata.n_obs), replace=False)
            x, b = cells.x(rows).to(model.device), cells.batch(rows)
            b = None if b is None else b.to(model.device)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Encountered NaN")  # said below
                loss = elbo.differentiable_loss(model.model, model.guide, x, None, None, b) / len(x)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"The loss is {loss.item()} in step {step}. Lower learning_rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[step] = loss.item()
    return losses


def _batch_of_all(model: SCANVI, name: str | None) -> Tensor | None:
    """Return b of the cells that are drawn at once, all of the batch `name`."""
    known = () if model.batches is None else model.batches.names
    if (name is not None or known) and name not in known:
        raise InputError(
            f"There is no batch {name!r} in this model, which knows {listed(known)}. "
            + ("Name one of them." if known else "Leave batch out.")
        )
    if not known:
        return None
    return model.batches.one_hot([known.index(name)] * _CELLS_AT_ONCE).to(model.device)


@contextmanager
def _only_the_guide_learns(model: SCANVI) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters of the guide; the others take no gradient meanwhile."""
    networks = (model.z2l_encoder, model.classifier, model.z1_encoder)
    learning = [parameter for network in networks for parameter in network.parameters()]
    ours = set(map(id, learning))
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield learning
    finally:
        for parameter in others:
            parameter.requires_grad_(True)

"""Simulate cells from a model, and train its guide on them.

Used in book/09_calibration.md: for cells simulated from the model, every latent variable is known.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyro
import torch
from anndata import AnnData
from pyro import poutine
from scipy import sparse
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from scanvi_tutorial.inference.predictions import dense_rows
from scanvi_tutorial.inputs.errors import InputError, listed
from scanvi_tutorial.model.bound import estimator, evaluating
from scanvi_tutorial.model.scanvi import SCANVI

_CELLS_AT_ONCE = 512
_BATCH_SIZE, _LEARNING_RATE = 128, 3e-3


def draw_cells(
    model: SCANVI,
    cells: int,
    *,
    batch: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Simulate new cells from `model`, with their latent variables.

    Returns counts (cells, genes), CSR; `obs` holds the type as `truth`, l as `library_size`
    and the column of labels, in which all cells are unlabeled; `obsm` holds `z1` and `z2`.
    Cells without a count are drawn again. This selection depends on x alone, so it does not
    change the posterior given x. A model with batches needs the name of one batch, to which
    all cells then belong.

    Raises:
        InputError: Where the library size of the model is not latent, no cell has a count,
            or the model does not have the batch.
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, got {cells}.")
    if model.config.library != "latent":
        raise InputError("The model draws no library size. Use ModelConfig(library='latent').")
    known = () if model.batches is None else model.batches.names
    if batch not in (known or (None,)):
        raise InputError(
            f"There is no batch {batch!r} in this model, which knows {listed(known)}. "
            + ("Name one of them." if known else "Leave batch out.")
        )
    generative = poutine.uncondition(model.model)
    blank = torch.zeros(_CELLS_AT_ONCE, len(model.genes), device=model.device)
    b = None
    if known:
        b = model.batches.one_hot([known.index(batch)] * _CELLS_AT_ONCE).to(model.device)
    latents: dict[str, list[np.ndarray]] = {name: [] for name in ("z1", "y", "z2", "l")}
    counts: list[sparse.csr_matrix] = []
    with evaluating(model, seed):
        while sum(part.shape[0] for part in counts) < cells:
            sites = poutine.trace(generative).get_trace(blank, batch=b).nodes
            seen = sites["x"]["value"].sum(-1) > 0
            if not seen.any():
                raise InputError("The model draws no counts. Look at its library size.")
            for name, parts in latents.items():
                parts.append(sites[name]["value"][seen].cpu().numpy())
            counts.append(sparse.csr_matrix(sites["x"]["value"][seen].cpu().numpy()))
    drawn = {name: np.concatenate(parts)[:cells] for name, parts in latents.items()}
    x = sparse.vstack(counts, format="csr")[:cells]
    names = [f"cell{number:0{len(str(cells))}d}" for number in range(1, cells + 1)]
    unlabeled = [model.columns.unlabeled_category] * cells
    obs = pd.DataFrame(
        {
            model.columns.labels_key: pd.Categorical(unlabeled),
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


def fit_guide(model: SCANVI, adata: AnnData, *, steps: int = 1_000, seed: int = 0) -> np.ndarray:
    """Train the guide of `model` on the cells of `adata`, without labels; the generative model is not changed.

    All networks are in evaluation mode, without dropout. Returns the loss −U of every step, in nats per cell, (steps,).

    Raises `FloatingPointError` where the loss is not finite.
    """
    cells = model.cells(adata, labels=False)
    rng, elbo = np.random.default_rng(seed), estimator()
    losses = np.empty(steps)
    guide = nn.ModuleList([model.z2l_encoder, model.classifier, model.z1_encoder])
    model.eval().requires_grad_(False)
    guide.requires_grad_(True)
    try:
        with torch.random.fork_rng(), pyro.validation_enabled(False):
            torch.manual_seed(seed)
            optimizer = Adam(guide.parameters())
            schedule = OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps + 1)
            for step in range(steps):
                x, b = dense_rows(model, cells, rng.choice(adata.n_obs, min(_BATCH_SIZE, adata.n_obs), replace=False))
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Encountered NaN")  # an error is raised below
                    loss = elbo.differentiable_loss(model.model, model.guide, x, None, None, b) / len(x)
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"The loss is {loss.item()} in step {step}. Look at model and counts.")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses[step] = loss.item()
    finally:
        model.requires_grad_(True)
    return losses

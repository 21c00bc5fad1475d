"""Predictions of a trained model: latent means, label probabilities, posterior predictive counts.

Used in book/05_training.md and book/06_figure.md. The model is in evaluation mode, and cells are processed in blocks.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from pyro import poutine
from torch import Tensor

from scanvi_tutorial.inputs.arrays import Cells, chunks
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.model.bound import evaluating
from scanvi_tutorial.model.scanvi import SCANVI

_CELLS_AT_ONCE = 512


@usual_settings()
def latent(model: SCANVI, adata: AnnData) -> np.ndarray:
    """Return the posterior mean of z2 of every cell, float32 (cells, latent), under q(z2 | x)."""
    out = np.empty((adata.n_obs, model.config.n_latent), dtype=np.float32)
    cells = model.cells(adata, labels=False, batches=False)
    with evaluating(model):
        for rows in chunks(np.arange(adata.n_obs), _CELLS_AT_ONCE):
            out[rows] = model.z2l_encoder(dense_rows(model, cells, rows)[0])[0].cpu().numpy()
    return out


@usual_settings()
def label_probabilities(
    model: SCANVI,
    adata: AnnData,
    *,
    samples: int = 25,
    seed: int = 0,
) -> pd.DataFrame:
    """Return p(y | x) of every cell as a table (cells, labels) whose rows sum to one.

    q(y | z2) is averaged over `samples` draws of z2 from q(z2 | x), so the uncertainty of the
    state contributes to that of the label. With `samples=0`, the classifier is evaluated at the
    posterior mean only. All cells share the same standard-normal draws, so the probabilities
    of a cell do not depend on the other cells.
    """
    if samples < 0:
        raise ValueError(f"samples must be 0 (plug-in) or more, got {samples}.")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(max(samples, 1), 1, model.config.n_latent, generator=generator)
    noise = noise.to(model.device) if samples else torch.zeros_like(noise, device=model.device)
    cells = model.cells(adata, labels=False, batches=False)
    # allocated once, because many small arrays would fragment memory
    out = np.empty((adata.n_obs, len(model.label_names)))
    with evaluating(model):
        for rows in chunks(np.arange(adata.n_obs), _CELLS_AT_ONCE):
            loc, scale, *_ = model.z2l_encoder(dense_rows(model, cells, rows)[0])
            logits = model.classifier(loc + scale * noise)  # (samples cells labels)
            out[rows] = logits.double().softmax(-1).mean(0).cpu().numpy()
    return pd.DataFrame(out, index=adata.obs_names, columns=model.label_names)


@usual_settings()
def posterior_predictive(model: SCANVI, adata: AnnData, *, seed: int = 0) -> pd.DataFrame:
    """Compare the observed counts with counts drawn from the posterior predictive distribution.

    For each cell, z2 and l are drawn from the guide and counts from the model. Returns a
    table (genes, 4): `observed_mean` and `predicted_mean` in counts per cell, and
    `observed_zeros` and `predicted_zeros` as shares of the cells.
    """
    generative = poutine.uncondition(model.model)  # x is sampled instead of observed
    sums = {name: np.zeros((2, len(model.genes))) for name in ("observed", "predicted")}
    cells = model.cells(adata, labels=False)
    with evaluating(model, seed):
        for rows in chunks(np.arange(adata.n_obs), _CELLS_AT_ONCE):
            x, batch = dense_rows(model, cells, rows)
            guide = poutine.trace(model.guide).get_trace(x)
            replayed = poutine.replay(generative, trace=guide)
            drawn = poutine.trace(replayed).get_trace(x, batch=batch)
            predicted = drawn.nodes["x"]["value"]
            for name, counts in (("observed", x), ("predicted", predicted)):
                both = torch.stack([counts.sum(0), (counts == 0).sum(0)])
                sums[name] += both.cpu().numpy()
    table = pd.DataFrame(index=pd.Index(model.genes, name="gene"))
    for row, what in enumerate(("mean", "zeros")):
        for name, values in sums.items():
            table[f"{name}_{what}"] = values[row] / adata.n_obs
    return table


def dense_rows(model: SCANVI, cells: Cells, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Return dense counts (rows, genes) of some cells and their batches, if any, on the device of the model."""
    batch = cells.batch(rows)
    return cells.x(rows).to(model.device), None if batch is None else batch.to(model.device)

"""From a trained model and cells to arrays: latent means, label probabilities, the bound term by term.

Used in book/04_model.md, book/05_training.md and book/06_figure.md. Everything runs in evaluation mode; counts become
dense one minibatch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from pyro import poutine
from pyro.poutine import Trace
from scipy.sparse import csr_matrix
from torch import Tensor

from scanvi_tutorial.batching import chunks, dense
from scanvi_tutorial.checks import check_counts, check_genes
from scanvi_tutorial.model import SCANVI

__all__ = [
    "BOUND_TERMS",
    "bound_of",
    "bound_terms",
    "evaluating",
    "label_probabilities",
    "latent",
    "posterior_predictive",
    "traces",
]

BOUND_TERMS = ("log_likelihood", "kl_l", "kl_z", "kl_y")
_CELLS_AT_ONCE = 512


@contextmanager
def evaluating(model: SCANVI, seed: int = 0) -> Iterator[None]:
    """Put `model` in evaluation mode, without gradients and with noise of its own; leave everything as it was."""
    was_training = model.training
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model.eval()
        try:
            yield
        finally:
            model.train(was_training)


def traces(
    model: SCANVI,
    x: Float[Tensor, "cells genes"],
    y: Float[Tensor, "cells labels"] | None = None,
    batch: Float[Tensor, "cells batches"] | None = None,
) -> tuple[Trace, Trace]:
    """Run the guide (one copy of y a label) and the model on its draws; return both traces with log-probabilities."""
    guide = poutine.trace(poutine.enum(model.guide, first_available_dim=-2)).get_trace(x, y)
    story = poutine.trace(poutine.replay(model.model, trace=guide)).get_trace(x, y, batch=batch)
    guide.compute_log_prob()
    story.compute_log_prob()
    return guide, story


def bound_terms(
    model: SCANVI,
    x: Float[Tensor, "cells genes"],
    y: Float[Tensor, "cells labels"] | None = None,
    batch: Float[Tensor, "cells batches"] | None = None,
) -> dict[str, Float[Tensor, " cells"]]:
    """Return the terms of the bound of every cell, in nats, from one draw of z1, z2 and l (chapter 4).

    The bound is `log_likelihood − kl_l − kl_z − kl_y`: U(x) without `y`, L(x, y) with it. The label term stands apart
    and is not part of it. A model of several batches wants to know which, one-hot.
    """
    guide, story = traces(model, x, y, batch)
    q_y = guide.nodes["y"]["log_prob"].exp() if y is None else x.new_ones(1, len(x))  # (labels cells)

    def mean_over_y(log_prob: Tensor) -> Tensor:
        return (q_y * log_prob).sum(0)

    def log_p(site: str) -> Tensor:
        return mean_over_y(story.nodes[site]["log_prob"])

    def log_q(site: str) -> Tensor:
        return mean_over_y(guide.nodes[site]["log_prob"]) if site in guide.nodes else x.new_zeros(len(x))

    has_library = "l" in guide.nodes
    return {
        "log_likelihood": log_p("x"),
        "kl_l": log_q("l") - log_p("l") if has_library else x.new_zeros(len(x)),
        "kl_z": log_q("z2") - log_p("z2") + log_q("z1") - log_p("z1"),
        "kl_y": log_q("y") - log_p("y"),
    }


def bound_of(terms: Mapping[str, Any]) -> Any:
    """Return the bound, in nats, from its terms: tensors or arrays (cells,), or numbers."""
    return terms["log_likelihood"] - terms["kl_l"] - terms["kl_z"] - terms["kl_y"]


def latent(model: SCANVI, adata: AnnData) -> np.ndarray:
    """Return the posterior mean of z2 of every cell, float32 (cells, latent), under q(z2 | x)."""
    out = np.empty((adata.n_obs, model.config.latent_dim), dtype=np.float32)
    with evaluating(model):
        for rows, x in _dense_chunks(model, adata):
            out[rows] = model.z2l_encoder(x)[0].cpu().numpy()
    return out


def label_probabilities(
    model: SCANVI,
    adata: AnnData,
    *,
    samples: int = 25,
    seed: int = 0,
) -> pd.DataFrame:
    """Return p(y | x) of every cell as a table (cells, labels) whose rows sum to one.

    Averages q(y | z2) over `samples` draws of z2 from q(z2 | x), so a cell whose state
    is uncertain gets an uncertain label; with `samples=0` the classifier is asked at the
    posterior mean alone. All cells share the standard-normal draws, so a cell's answer
    depends on nothing but the cell.
    """
    if samples < 0:
        raise ValueError(f"samples must be 0 (plug-in) or more, got {samples}.")
    latent_dim = model.config.latent_dim
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, 1, latent_dim, generator=generator)
    if samples == 0:
        noise = torch.zeros(1, 1, latent_dim)
    noise = noise.to(model.device)
    # all at once: small arrays that are kept among large ones would fragment memory
    out = np.empty((adata.n_obs, len(model.labels)))
    with evaluating(model):
        for rows, x in _dense_chunks(model, adata):
            loc, scale, *_ = model.z2l_encoder(x)
            logits = model.classifier(loc + scale * noise)  # (samples cells labels)
            out[rows] = logits.double().softmax(-1).mean(0).cpu().numpy()
    return pd.DataFrame(out, index=adata.obs_names, columns=model.labels)


def posterior_predictive(model: SCANVI, adata: AnnData, *, seed: int = 0) -> pd.DataFrame:
    """Let the model tell every cell again, and compare with what was counted.

    Each cell's z2 and l are drawn from the guide, its counts from the model. Returns a
    table (genes, 4): the columns `observed_mean` and `predicted_mean` in counts per cell,
    `observed_zeros` and `predicted_zeros` as shares of the cells.
    """
    forget = poutine.uncondition(model.model)  # x is drawn, not looked at
    sums = {"observed": np.zeros((2, len(model.genes)))}
    sums["predicted"] = sums["observed"].copy()
    with evaluating(model, seed):
        codes = None if model.batches is None else model.batches.codes(adata)
        for rows, x in _dense_chunks(model, adata):
            batch = None
            if codes is not None:
                batch = model.batches.one_hot(codes[rows]).to(model.device)
            guide = poutine.trace(model.guide).get_trace(x)
            again = poutine.replay(forget, trace=guide)
            retold = poutine.trace(again).get_trace(x, batch=batch)
            pair = {"observed": x, "predicted": retold.nodes["x"]["value"]}
            for name, counts in pair.items():
                both = torch.stack([counts.sum(0), (counts == 0).sum(0)])
                sums[name] += both.cpu().numpy()
    table = pd.DataFrame(index=pd.Index(model.genes, name="gene"))
    for row, what in enumerate(("mean", "zeros")):
        for name, values in sums.items():
            table[f"{name}_{what}"] = values[row] / adata.n_obs
    return table


def _dense_chunks(model: SCANVI, adata: AnnData) -> Iterator[tuple[np.ndarray, Tensor]]:
    counts: csr_matrix = check_counts(check_genes(adata, model.genes), model.layer)
    device = model.device
    for rows in chunks(np.arange(adata.n_obs), _CELLS_AT_ONCE):
        yield rows, dense(counts, rows).to(device)

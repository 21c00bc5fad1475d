"""Draws of log l and z2 of a cell given its counts, from the guide and from the exact posterior.

Used in book/09_calibration.md. Importance resampling converges to the exact posterior, but is much slower.

    quantities   log l, then the coordinates of z2: 1 + latent of them
    draws        (draws, cells, quantities)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from anndata import AnnData
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from scanvi_tutorial.evaluation.ranks import rank_among
from scanvi_tutorial.inference.predictions import dense_rows
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.model.bound import evaluating
from scanvi_tutorial.model.scanvi import SCANVI

_ROWS_AT_ONCE = 8_192  # copies of cells that are dense at once


@dataclass(frozen=True, eq=False, slots=True)
class Posterior:
    """Draws and type probabilities of each cell given its counts."""

    draws: np.ndarray  # (draws, cells, quantities): log l, then z2
    types: pd.DataFrame  # (cells, labels), p(y | x)
    effective: np.ndarray  # (cells,), the effective sample size


class ScaledGuide(Messenger):
    """Multiply the standard deviations of q(z2 | x) and of log l under q(l | x) by `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        family = {"z2": dist.Normal, "l": dist.LogNormal}.get(msg["name"])
        if family is not None:
            base = msg["fn"].base_dist
            msg["fn"] = family(base.loc, self.factor * base.scale).to_event(1)


def guide_posterior(model: SCANVI, adata: AnnData, *, draws: int = 99, scale: float = 1.0, seed: int = 0) -> Posterior:
    """Return independent draws of the guide, q(z2, l | x), and the mean of q(y | z2) over them.

    `scale` multiplies the standard deviations; for example, 0.5 makes the guide too narrow.
    """
    parts = []
    with evaluating(model, seed):
        for guide, x, _ in _guides(model, adata, draws, scale):
            types = _by_cell(guide.nodes["y"]["log_prob"].exp(), draws).mean(-1)  # (labels, cells)
            parts.append((_quantities(guide, draws), types, x.new_full(types.shape[-1:], draws)))
    return _joined(model, adata, parts)


def exact_posterior(
    model: SCANVI,
    adata: AnnData,
    *,
    draws: int = 99,
    proposals: int = 1_000,
    scale: float = 1.3,
    seed: int = 0,
) -> Posterior:
    """Return draws of p(z2, l | x), and p(y | x), by importance resampling.

    They converge to the exact posterior as `proposals` grows. The guide proposes z2, l and a
    z1 for every type; its standard deviations are multiplied by `scale` to cover the tails.
    The weight of a proposal is

        p(x | z2, l) p(l) / (q(z2 | x) q(l | x))
        · Σ_y p(y) p(z1_y) p(z2 | z1_y, y) / q(z1_y | z2, y),

    whose mean given z2 and l is p(x, z2, l) / q(z2, l | x) for any q(z1 | z2, y).
    `effective`, the effective sample size, is 1 / Σ weight²; a low value marks an
    unreliable sample.
    """
    parts = []
    with evaluating(model, seed):
        for guide, x, batch in _guides(model, adata, proposals, scale):
            replayed = poutine.replay(model.model, trace=guide)
            model_trace = poutine.trace(replayed).get_trace(x, batch=batch)
            model_trace.compute_log_prob()
            sites = "z1", "y", "z2", "l", "x"
            log_p = {name: model_trace.nodes[name]["log_prob"] for name in sites}
            log_q = {name: guide.nodes[name]["log_prob"] for name in ("z1", "z2", "l")}
            by_type = log_p["y"] + log_p["z1"] + log_p["z2"] - log_q["z1"]  # (labels, rows)
            log_weight = log_p["x"] + log_p["l"] - log_q["l"] - log_q["z2"]
            log_weight = _by_cell(log_weight + by_type.logsumexp(0), proposals)
            weight = log_weight.double().softmax(-1)  # (cells, proposals)
            of_type = _by_cell(by_type.softmax(0), proposals)
            types = (of_type * weight).sum(-1)  # (labels, cells)
            picked = torch.multinomial(weight, draws, replacement=True).T  # (draws, cells)
            values = _quantities(guide, proposals)
            values = values.gather(0, picked[..., None].expand(-1, -1, values.shape[-1]))
            parts.append((values, types, 1 / weight.square().sum(-1)))
    return _joined(model, adata, parts)


def sbc_ranks(adata: AnnData, posterior: Posterior) -> pd.DataFrame:
    """Return the rank of the true value among the draws, (cells, quantities), for cells from `draw_cells`.

    Raises `InputError` where the posterior belongs to other cells.
    """
    truth = np.column_stack([np.log(adata.obs["library_size"]), adata.obsm["z2"]])
    if posterior.draws.shape[1:] != truth.shape:
        raise InputError(
            f"The posterior has draws for {posterior.draws.shape[1]} cells × {posterior.draws.shape[2]} quantities, "
            f"and the truth is {truth.shape[0]} × {truth.shape[1]}. Ask for the posterior of these very cells."
        )
    names = ["log l", *(f"z2[{i}]" for i in range(1, truth.shape[1]))]
    return pd.DataFrame(rank_among(truth, posterior.draws), index=adata.obs_names, columns=names)


def _guides(model: SCANVI, adata: AnnData, times: int, scale: float) -> Iterator[tuple[Trace, Tensor, Tensor | None]]:
    """Yield the guide's trace, counts and batches of cells, each repeated `times` times, with y enumerated."""
    if model.config.library != "latent":
        raise InputError("Only a latent library size has a posterior. Use ModelConfig(library='latent').")
    cells = model.cells(adata, labels=False)
    pieces = min(adata.n_obs, -(-adata.n_obs * times // _ROWS_AT_ONCE))
    for rows in np.array_split(np.arange(adata.n_obs), pieces):
        x, batch = dense_rows(model, cells, np.repeat(rows, times))
        with ScaledGuide(scale):
            guide = poutine.trace(poutine.enum(model.guide, first_available_dim=-2)).get_trace(x)
        guide.compute_log_prob()
        yield guide, x, batch


def _by_cell(rows: Tensor, times: int) -> Tensor:
    """Return (*, cells · times) as (*, cells, times)."""
    return rows.reshape(*rows.shape[:-1], -1, times)


def _quantities(guide: Trace, times: int) -> Tensor:
    """Return (times, cells, quantities)."""
    joined = torch.cat([guide.nodes["l"]["value"].log(), guide.nodes["z2"]["value"]], dim=-1)
    return joined.reshape(-1, times, joined.shape[-1]).transpose(0, 1)


def _joined(model: SCANVI, adata: AnnData, parts: list[tuple[Tensor, Tensor, Tensor]]) -> Posterior:
    """Join draws (draws, cells, quantities), types (labels, cells) and effective sizes (cells,) of blocks of cells."""
    draws, types, effective = zip(*parts, strict=True)
    p = torch.cat(types, dim=1).double().T.cpu().numpy()
    return Posterior(
        torch.cat(draws, dim=1).double().cpu().numpy(),
        pd.DataFrame(p / p.sum(1, keepdims=True), index=adata.obs_names, columns=model.label_names),
        torch.cat(effective).double().cpu().numpy(),
    )

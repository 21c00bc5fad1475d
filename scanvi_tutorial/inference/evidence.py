"""Which genes make the model prefer one cell state to another, for some cells.

Given the state z2, the library size l and the batch of a cell, its genes are independent. So the log-likelihood of a
cell is a sum over genes, and so is the difference of its log-likelihoods under two states.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scanvi_tutorial.inference.predictions import dense_rows
from scanvi_tutorial.inputs.arrays import chunks
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.model.bound import evaluating
from scanvi_tutorial.model.scanvi import SCANVI

_CELLS_AT_ONCE = 512


@usual_settings()
def evidence(model: SCANVI, adata: AnnData, cells: ArrayLike, state: ArrayLike, rival: ArrayLike) -> pd.Series:
    """Return how much the counts of each gene favor `state` over `rival`, in nats per cell, the largest first.

    The value of a gene is the mean over the cells of log p(x_g | state, l) − log p(x_g | rival, l). The values of all
    genes add up to the mean of log p(x | state, l) − log p(x | rival, l). The library size l of a cell, in counts, is
    the exponential of the guide's mean of log l, or the total count where `model.config.library` is "observed". In
    a model with batches, the batch is that of the cell.

    Args:
        model: A fitted model.
        adata: Raw counts, (cells, genes).
        cells: Names or positions of some cells, or a mask of bool (cells,).
        state: A value of z2, (latent,), such as the mean of `latent` over the cells of a type.
        rival: The value of z2 to compare with, (latent,), such as that mean for the second most probable type.

    Returns:
        A series called "nats", indexed by the names of the model's genes.

    Raises:
        InputError: Where there are no such cells, where a state is not (latent,) or not finite, or
            where counts, genes or batches cannot be used.
    """
    rows = positions_of(adata, cells)
    z2, z2_rival = _state(model, state, "state"), _state(model, rival, "rival")
    prepared = model.cells(adata, labels=False)
    total = np.zeros(len(model.genes))
    with evaluating(model):
        for some in chunks(rows, _CELLS_AT_ONCE):
            x, batch = dense_rows(model, prepared, some)
            observed = model.config.library == "observed"
            ell = model.library(x, batch=batch) if observed else model.z2l_encoder(x)[2].exp()
            # in float64, so that the log-likelihood is float64 too
            p_x, p_x_rival = (model.counts(z.expand(len(x), -1), ell.double(), batch) for z in (z2, z2_rival))
            total += (p_x.log_prob(x) - p_x_rival.log_prob(x)).sum(0).cpu().numpy()
    nats = pd.Series(total / len(rows), index=pd.Index(model.genes, name="gene"), name="nats")
    return nats.sort_values(ascending=False, kind="stable")


def positions_of(adata: AnnData, cells: ArrayLike) -> NDArray[np.int64]:
    """Return the positions of cells that are given by name, by position or as a mask."""
    try:
        asked = np.atleast_1d(np.asarray(cells))
    except ValueError as error:
        raise InputError(f"Give names, positions or a mask of cells, and no {type(cells).__name__}.") from error
    if asked.dtype.kind in "biu":
        try:
            found = np.arange(adata.n_obs)[asked]
        except IndexError as error:
            raise InputError(f"There are {adata.n_obs} cells: {error}.") from error
    else:
        found = adata.obs_names.get_indexer(asked.astype(str))
        if (found < 0).any():
            raise InputError(f"There is no cell {str(asked[found < 0][0])!r} in adata.obs_names.")
    if not len(found):
        raise InputError("No cell is named. Give the names, positions or a mask of one or more.")
    return found


def _state(model: SCANVI, values: ArrayLike, name: str) -> Tensor:
    state, wanted = np.asarray(values, dtype=np.float32), (model.config.n_latent,)
    if state.shape != wanted or not np.isfinite(state).all():
        raise InputError(f"`{name}` must be finite numbers of shape {wanted}, one a dimension of z2; got {state!r}.")
    return torch.tensor(state, device=model.device)

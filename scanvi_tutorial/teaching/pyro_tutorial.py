"""Pyro's scANVI tutorial as a reference for comparison: its networks, guide and schedule, with their errors.

Rebuilt from https://github.com/pyro-ppl/pyro, examples/scanvi/scanvi.py and pyro/contrib/examples/scanvi_data.py of
Pyro 1.9 (Bingham et al. 2019). The errors that book/07_gradient.md describes are reproduced: BatchNorm at the end of
every network, a constant added to the mean of every gene, and a label term whose gradient is not that of its loss.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from anndata import AnnData
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from pyro.optim import MultiStepLR
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus

from scanvi_tutorial.config import progress_bar
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.labels import check_labels

_ALPHA = 0.01  # the tutorial's nominal weight of one labeled cell
_BATCH_SIZE, _LEARNING_RATE = 100, 5e-3
_EPSILON = 5e-3  # the constant that it adds to the mean of every gene
_LATENT = 10


class TutorialModel(nn.Module):
    """The tutorial's model and guide over its five networks.

    Args:
        genes: Number of genes.
        labels: Number of cell types.
        library_loc: Mean over cells of the log total counts.
        library_scale: Standard deviation over cells of the log total counts.
        scale: Factor of all log-probabilities; the tutorial uses 1 / (minibatch · genes).
        alpha: Nominal weight of a label.
        has_rsample: The `has_rsample` of the guide's factor; the tutorial sets False.
    """

    def __init__(
        self,
        genes: int,
        n_labels: int,
        *,
        library_loc: float,
        library_scale: float,
        scale: float,
        alpha: float = _ALPHA,
        has_rsample: bool = False,
    ) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.scale = scale
        self.alpha = alpha
        self.has_rsample = has_rsample
        self.library_loc, self.library_scale = library_loc, library_scale
        self.z2_decoder = _normalized_to_the_end(_LATENT + n_labels, 50, 2 * _LATENT)
        self.x_decoder = _normalized_to_the_end(_LATENT, 100, 2 * genes)
        self.z2l_encoder = _normalized_to_the_end(genes, 100, 2 * _LATENT + 2)
        self.classifier = _normalized_to_the_end(_LATENT, 50, n_labels)
        self.z1_encoder = _normalized_to_the_end(n_labels + _LATENT, 50, 2 * _LATENT)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """Sample the latent variables and observe counts x (cells, genes) and, if given, labels y (cells, labels)."""
        pyro.module("tutorial", self)
        theta = pyro.param("inverse_dispersion", 10 * x.new_ones(x.shape[-1]), constraint=constraints.positive)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(_LATENT)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(self.n_labels)), obs=y)
            z2 = pyro.sample("z2", dist.Normal(*_loc_and_scale(self.z2_decoder, z1, y)).to_event(1))
            ell = pyro.sample("l", dist.LogNormal(self.library_loc, self.library_scale * x.new_ones(1)).to_event(1))
            gate_logits, shares = self.x_decoder(z2).chunk(2, -1)
            logits = (ell * shares.softmax(-1) + _EPSILON).log() - (theta + _EPSILON).log()
            p_x = dist.ZeroInflatedNegativeBinomial(gate_logits=gate_logits, total_count=theta, logits=logits)
            pyro.sample("x", p_x.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """Sample the latent variables given x.

        A label adds a factor, which is in the score-function term unless `has_rsample`.
        """
        pyro.module("tutorial", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=self.scale):
            z2_loc, z2_scale, l_loc, l_scale = self.encode(x)
            pyro.sample("l", dist.LogNormal(l_loc, l_scale).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(z2_loc, z2_scale).to_event(1))
            q_y = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", q_y)
            else:
                loss = -self.alpha * q_y.log_prob(y)
                pyro.factor("classification_loss", loss, has_rsample=self.has_rsample)
            z1_loc, z1_scale = _loc_and_scale(self.z1_encoder, z2, y)
            pyro.sample("z1", dist.Normal(z1_loc, z1_scale).to_event(1))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return mean and standard deviation of z2, (cells, latent), then those of log l, (cells, 1)."""
        loc, raw_scale = self.z2l_encoder(x.log1p()).chunk(2, -1)
        scale = softplus(raw_scale)
        return loc[:, :-1], scale[:, :-1], loc[:, -1:], scale[:, -1:]


@dataclass(frozen=True, eq=False)
class TutorialFit:
    """The results of a run of the tutorial.

    Attributes:
        losses: A row per epoch with the mean loss of `unlabeled` and of `labeled` cells, in nats per cell.
        probabilities: Table (cells, labels) of the classifier's probabilities at the posterior mean of z2.
    """

    losses: pd.DataFrame
    probabilities: pd.DataFrame


def fit_tutorial(
    adata: AnnData,
    *,
    labels_key: str = "label",
    seed: int = 0,
    epochs: int = 60,
    alpha: float = _ALPHA,
    has_rsample: bool = False,
) -> TutorialFit:
    """Train the tutorial's model as the tutorial does; global state of Pyro and PyTorch is restored afterward.

    As in the tutorial, all counts are dense in memory: 4 bytes times cells times genes. The learning rate falls to a
    fifth after a third of the epochs. Two things differ, because they would stop a run with an error: distributions are
    not validated, since Pyro's ZINB rejects probabilities that round to one, and a last minibatch of one cell is merged
    with the one before.

    Args:
        adata: Raw counts in `X`, (cells, genes).
        labels_key: Column of `obs` with the cell types.
        seed: Draws weights, the order of the cells and all latent variables.
        epochs: Passes over all cells.
        alpha: Nominal weight of a label.
        has_rsample: The `has_rsample` of the guide's factor; the tutorial sets False.

    Raises:
        InputError: Where counts or labels cannot be used, or where the only cell is a labeled one.
        FloatingPointError: Where the loss is not finite.
    """
    counts = check_counts(adata)
    names, codes = check_labels(adata, labels_key)
    x, codes = torch.from_numpy(counts.toarray()), torch.as_tensor(codes)
    log_totals = x.sum(-1).log()
    with pyro.get_param_store().scope(), pyro.validation_enabled(False), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TutorialModel(
            x.shape[1],
            len(names),
            library_loc=log_totals.mean().item(),
            library_scale=log_totals.std().item(),
            scale=1 / (_BATCH_SIZE * x.shape[1]),
            alpha=alpha,
            has_rsample=has_rsample,
        )
        steps = {"optimizer": torch.optim.Adam, "optim_args": {"lr": _LEARNING_RATE}}
        optimizer = MultiStepLR(steps | {"milestones": [max(1, epochs // 3)], "gamma": 0.2})
        guide = config_enumerate(model.guide, "parallel", expand=True)
        svi = SVI(model.model, guide, optimizer, TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False))
        rows = []
        for _ in progress_bar(range(epochs), "Pyro's tutorial", unit="epoch"):
            rows.append(_run_epoch(svi, model, x, codes, _BATCH_SIZE))
            optimizer.step()
        model.eval()
        with torch.no_grad():
            probabilities = model.classifier(model.encode(x)[0]).double().softmax(-1).numpy()
    losses = pd.DataFrame(rows, index=pd.RangeIndex(epochs, name="epoch"))
    return TutorialFit(losses, pd.DataFrame(probabilities, index=adata.obs_names, columns=names))


def pyro_tutorial(adata: AnnData, *, labels_key: str = "label", seed: int = 0, epochs: int = 60) -> pd.DataFrame:
    """Return the probabilities (cells, labels) of `fit_tutorial`, with the interface of a `Baseline`."""
    return fit_tutorial(adata, labels_key=labels_key, seed=seed, epochs=epochs).probabilities


def _normalized_to_the_end(*widths: int) -> nn.Sequential:
    """Return linear layers, each followed by BatchNorm, the last one too, with ReLU in between."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _loc_and_scale(network: nn.Module, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate inputs, some of which may have an enumeration axis; return mean and standard deviation."""
    lead = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in inputs))
    joined = torch.cat([tensor.expand(*lead, -1) for tensor in inputs], -1)
    loc, raw_scale = network(joined.reshape(-1, joined.shape[-1])).reshape(*lead, -1).chunk(2, -1)
    return loc, softplus(raw_scale)


def _run_epoch(svi: SVI, model: TutorialModel, x: Tensor, codes: Tensor, size: int) -> dict[str, float]:
    """Take one step per minibatch, in random order; return the mean losses in nats per cell."""
    totals = {"unlabeled": 0.0, "labeled": 0.0}
    for kind, rows in _minibatches(codes, size):
        y = one_hot(codes[rows], model.n_labels).type_as(x) if kind == "labeled" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")  # an error is raised below
            loss = svi.step(x[rows], y)
        if not math.isfinite(loss) or loss == 0:  # Pyro skips NaN terms, even if all are NaN
            raise FloatingPointError(f"The loss of Pyro's tutorial is {loss}. Look for counts far beyond others.")
        totals[kind] += loss / model.scale
    cells = {"unlabeled": (codes < 0).sum().item(), "labeled": (codes >= 0).sum().item()}
    return {kind: total / cells[kind] if cells[kind] else np.nan for kind, total in totals.items()}


def _minibatches(codes: Tensor, size: int) -> Iterator[tuple[str, Tensor]]:
    """Yield rows of one epoch: minibatches of unlabeled or of labeled cells, never of both, shuffled."""
    queue = []
    for kind, mask in (("unlabeled", codes < 0), ("labeled", codes >= 0)):
        rows = torch.where(mask)[0]
        parts = list(rows[torch.randperm(len(rows))].split(size)) if len(rows) else []
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        queue += [(kind, part) for part in parts]
    for place in torch.randperm(len(queue)).tolist():
        yield queue[place]

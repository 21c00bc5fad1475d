"""scANVI in Pyro: the model p(z1, y, z2, l, x) and the guide q(z2, l, y, z1 | x) over the networks.

Derived in book/04_model.md; sketched in book/02_sketch.md; the networks are those of book/03_networks.md.

    z1  (*enum cells latent)   variation within a type       y  (*enum cells labels)  one-hot cell type
    z2  (cells latent)         cell state                    l  (cells 1)             library size, in counts
    x   (cells genes)          counts                        b  (cells batches)  one-hot batch, if the model has batches

A label is given as the types that it allows, (cells labels): one for an exact label, several for a coarse one. If
labels are exact and assumed to be right, the label is y. Otherwise y is summed over, with weights p(label | y)
(book/12_labels.md).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from anndata import AnnData
from jaxtyping import Float
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from scanvi_tutorial.config import UNLABELED, ModelConfig
from scanvi_tutorial.inputs.arrays import Cells
from scanvi_tutorial.inputs.batches import (
    Batches,
    ConfoundedBatchWarning,
    check_batches,
    check_given,
    confounding,
    log_total_moments,
)
from scanvi_tutorial.inputs.cells import Columns
from scanvi_tutorial.inputs.coarse import Coarse, allowed_types
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import check_seed
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.session import usual_settings
from scanvi_tutorial.model.likelihood import count_distribution
from scanvi_tutorial.model.networks import Classifier, XDecoder, Z1Encoder, Z2Decoder, Z2LEncoder
from scanvi_tutorial.model.persistence import as_persistence_error, read_file, write_file

_KEPT = ("genes", "label_names", "library_loc", "library_scale", "labeled_fraction", "n_cells")
_CELLS_IN_PRIOR, _LABELS_IN_PRIOR = 10.0, 100.0  # pseudo-counts per type in the priors of shares and confusion
_IMPOSSIBLE = 1e-30  # lower limit of p(label | y), so that its log is finite
_NEARLY_POISSON = math.log(1e4)  # upper limit of log θ: above it float32 loses the difference of lgammas


class SCANVI(nn.Module):
    """The scANVI model: its methods `model` and `guide` are Pyro programs that use its networks.

    Args:
        config: Likelihood, sizes and label weight.
        genes: Names of the genes, in the order of the columns of x.
        label_names: Names of the cell types, in the order of the entries of y.
        library_loc: Mean over cells of the log total counts.
        library_scale: Standard deviation over cells of the log total counts.
        labeled_fraction: Share of the cells that carry a label, in (0, 1].
        n_cells: The number of cells; a minibatch adds its share of the log priors of shares and confusion.
        columns: The columns and the layer of the AnnData with labels, counts and batches.
        batches: The batches of the model; None for a model without batches.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        genes: Sequence[str],
        label_names: Sequence[str],
        library_loc: float,
        library_scale: float,
        labeled_fraction: float,
        n_cells: int = 1,
        columns: Columns | None = None,
        batches: Batches | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.genes = list(genes)
        self.label_names = list(label_names)
        moments = library_loc, library_scale, labeled_fraction
        self.library_loc, self.library_scale, self.labeled_fraction = map(float, moments)
        self.n_cells = n_cells
        self.columns, self.batches = columns or Columns(), batches
        self.z2_decoder = Z2Decoder(len(label_names), config)
        self.x_decoder = XDecoder(len(genes), config, 0 if batches is None else len(batches.names))
        self.z2l_encoder = Z2LEncoder(len(genes), config, self.library_loc)
        self.z1_encoder = Z1Encoder(len(label_names), config)
        self.classifier = Classifier(len(label_names), config)
        free = None if config.gene_likelihood == "poisson" else nn.Parameter(torch.full((len(genes),), 10.0).log())
        self.register_parameter("log_inverse_dispersion", free)
        types = len(label_names)
        learned = nn.Parameter(torch.zeros(types)) if config.shares == "learned" else None
        self.register_parameter("share_logits", learned)
        learned = nn.Parameter(self.expected_confusion().log()) if config.confusion == "learned" else None
        self.register_parameter("confusion_logits", learned)
        self.z2l_encoder.start_library_at_total(library_scale)

    @classmethod
    @usual_settings()
    def from_anndata(
        cls,
        adata: AnnData,
        config: ModelConfig | None = None,
        *,
        labels_key: str = "label",
        unlabeled_category: object = UNLABELED,
        layer: str | None = None,
        batch_key: str | None = None,
        coarse: Coarse | None = None,
        seed: int = 0,
    ) -> SCANVI:
        """Return an untrained model with the sizes that `adata` needs; its weights are drawn with `seed`.

        Args:
            adata: Raw counts, (cells, genes), in `X` or in `layer`.
            config: `ModelConfig()` where it is None.
            labels_key: Column of `obs` with the cell types.
            unlabeled_category: Category of the cells without a type; missing values count as such too.
            layer: Where the counts are, if not in `X`.
            batch_key: Column of `obs` with the batch of every cell; the decoder models its effect on the counts.
            coarse: Labels that stand for several types, such as {"T": ["CD4 T", "CD8 T"]}.
            seed: Seed of the initial weights; global random generators are left unchanged.

        Raises:
            InputError: Where the counts, the labels or the batches cannot be used.

        Warns:
            ConfoundedBatchWarning: Where batches and labels of the labeled cells are confounded.
        """
        seed = check_seed(seed)
        counts = check_counts(adata, layer)
        columns = Columns(labels_key, unlabeled_category, layer, batch_key, coarse)
        names, codes = check_labels(adata, labels_key, unlabeled_category=unlabeled_category)
        names, codes, _ = allowed_types(names, codes, columns.coarse)
        log_totals = np.log(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
        batches = None if batch_key is None else Batches.from_anndata(adata, batch_key, log_totals)
        exact = np.where(codes < len(names), codes, -1)
        if batch_key is not None and (text := confounding(names, exact, check_batches(adata, batch_key))):
            warnings.warn(text, ConfoundedBatchWarning, stacklevel=3)
        loc, scale = log_total_moments(log_totals)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls(
                config or ModelConfig(),
                genes=list(adata.var_names),
                label_names=names,
                library_loc=loc,
                library_scale=scale,
                labeled_fraction=(codes >= 0).mean(),
                n_cells=adata.n_obs,
                columns=columns,
                batches=batches,
            )
        totals = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() + 0.5  # so that no share is zero
        model.x_decoder.start_shares_at(torch.from_numpy(np.log(totals / totals.sum())).float())
        return model

    @property
    def inverse_dispersion(self) -> Float[Tensor, " genes"] | None:
        """θ of every gene: the variance of a count is m + m² / θ before dropout. None for the Poisson."""
        return None if self.capped_log_theta is None else self.capped_log_theta.exp()

    @property
    def capped_log_theta(self) -> Float[Tensor, " genes"] | None:
        """Log θ with the upper limit that float32 needs, as used in the likelihood. None for the Poisson."""
        return None if (free := self.log_inverse_dispersion) is None else free.clamp(max=_NEARLY_POISSON)

    @property
    def exact(self) -> bool:
        """Whether every label is a single type and is assumed to be right."""
        return self.config.label_noise == 0 and not self.columns.coarse

    @property
    def log_shares(self) -> Float[Tensor, " labels"]:
        """Log p(y), the prior probability of each type."""
        equal = next(self.parameters()).new_zeros(len(self.label_names))
        return (equal if self.share_logits is None else self.share_logits).log_softmax(-1)

    @property
    def confusion(self) -> Float[Tensor, "labels labels"]:
        """The confusion matrix: p(label | type), labels in columns and types in rows."""
        return self.expected_confusion() if self.confusion_logits is None else self.confusion_logits.softmax(-1)

    def expected_confusion(self) -> Float[Tensor, "labels labels"]:
        """Return the confusion matrix that spreads `label_noise` evenly over the other types."""
        types, noise = len(self.label_names), self.config.label_noise
        same = torch.eye(types).to(next(self.parameters()))
        return same * (1 - noise) + (1 - same) * (noise / (types - 1))

    def log_label(self, y: Float[Tensor, "cells labels"]) -> Float[Tensor, "cells labels"]:
        """Return log p(label | type) for every type; `y` marks the types that each label allows."""
        return (y @ self.confusion.T).clamp(min=_IMPOSSIBLE).log()

    def label_cross_entropy(
        self, logits: Float[Tensor, "cells labels"], y: Float[Tensor, "cells labels"]
    ) -> Float[Tensor, " cells"]:
        """Return −log Σ_y q(y) p(label | y) of each label, in nats; for an exact label this is −log q(y)."""
        if self.exact:
            return nn.functional.cross_entropy(logits, y, reduction="none")
        return -(logits.log_softmax(-1) + self.log_label(y)).logsumexp(-1)

    def priors(self) -> dict[str, tuple[Distribution, Tensor]]:
        """Return, by site name, the priors and current values of the shares and the confusion, if they are learned."""
        found: dict[str, tuple[Distribution, Tensor]] = {}
        if self.share_logits is not None:
            shares = self.log_shares.exp()
            found["shares"] = dist.Dirichlet(torch.full_like(shares, 1 + _CELLS_IN_PRIOR)), shares
        if self.confusion_logits is not None:
            expected = 1 + _LABELS_IN_PRIOR * self.expected_confusion()
            found["confusion"] = dist.Dirichlet(expected).to_event(1), self.confusion
        return found

    @property
    def label_scale(self) -> float:
        """α = w · N / N_labeled, the weight of one labeled cell's cross-entropy in the sum over cells."""
        return self.config.label_weight / self.labeled_fraction

    def cells(self, adata: AnnData, *, labels: bool = True, batches: bool = True) -> Cells:
        """Read the counts of the model's genes from `adata`, and labels and batches where asked.

        Raises `InputError` where counts, genes, labels or batches cannot be used or are unknown to the model.
        """
        return Cells.from_anndata(
            adata,
            genes=self.genes,
            columns=self.columns,
            label_names=self.label_names if labels else None,
            batches=self.batches if batches else None,
        )

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def model(
        self,
        x: Float[Tensor, "cells genes"],
        y: Float[Tensor, "cells labels"] | None = None,
        depth: Float[Tensor, "cells 1"] | None = None,
        batch: Float[Tensor, "cells batches"] | None = None,
    ) -> Float[Tensor, "cells latent"]:
        """Sample z1, y, z2, l and x of cells; return their states z2.

        `y` marks the types that the label of each cell allows. `depth`, if given, is the share
        of molecules that each downsampled cell kept (chapter 5). `batch` is the one-hot batch,
        in a model with batches.
        """
        with poutine.scale(scale=len(x) / self.n_cells):  # the minibatch's share of each prior
            for name, (prior, value) in self.priors().items():
                pyro.sample(name, prior, obs=value)
        with pyro.plate("cells", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(self.config.n_latent), 1).to_event(1))
            known = y if self.exact else None
            type_ = pyro.sample("y", dist.OneHotCategorical(logits=self.log_shares), obs=known)
            if y is not None and known is None:
                pyro.factor("r", (type_ * self.log_label(y)).sum(-1))
            z2 = pyro.sample("z2", dist.Normal(*self.z2_decoder(z1, type_)).to_event(1))
            p_x = self.counts(z2, self.library(x, depth, batch), batch)
            pyro.sample("x", p_x.to_event(1), obs=x)
            if y is not None and self.config.label_weight > 0:
                self.label_term(z2, y)
        return z2

    def guide(
        self,
        x: Float[Tensor, "cells genes"],
        y: Float[Tensor, "cells labels"] | None = None,
        depth: Float[Tensor, "cells 1"] | None = None,
        batch: Float[Tensor, "cells batches"] | None = None,
    ) -> None:
        """Sample z2, l, y and z1 given x; y is summed over unless an exact label is given."""
        with pyro.plate("cells", len(x)):
            z2_loc, z2_scale, l_loc, l_scale = self.z2l_encoder(x)
            z2 = pyro.sample("z2", dist.Normal(z2_loc, z2_scale).to_event(1))
            if self.config.library == "latent":
                pyro.sample("l", dist.LogNormal(l_loc, l_scale).to_event(1))
            if y is None or not self.exact:
                logits = self.classifier(z2) + (0.0 if y is None else self.log_label(y))
                q_y = dist.OneHotCategorical(logits=logits)
                y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z1", dist.Normal(*self.z1_encoder(z2, y)).to_event(1))

    def library(self, x: Tensor, depth: Tensor | None = None, batch: Tensor | None = None) -> Float[Tensor, "cells 1"]:
        """Sample the library size, or take the total count where the configuration says "observed"."""
        prior = self.library_prior(batch)
        if self.config.library == "observed":
            return x.sum(-1, keepdim=True).clamp(min=1)  # a downsampled cell may have no count
        loc, scale = (x.new_tensor([part]) if batch is None else part for part in prior)
        loc = loc if depth is None else loc + depth.log()  # the expected total is proportional to the depth
        return pyro.sample("l", dist.LogNormal(loc, scale).to_event(1))

    def library_prior(self, batch: Tensor | None) -> tuple[float | Tensor, float | Tensor]:
        """Return location and scale of log l: numbers, or tensors (cells, 1) in a model with batches."""
        check_given(self.batches, batch)
        return self.batches.library_prior(batch) if self.batches else (self.library_loc, self.library_scale)

    def counts(
        self,
        z2: Float[Tensor, "*enum cells latent"],
        ell: Float[Tensor, "*enum cells 1"],
        batch: Float[Tensor, "cells batches"] | None = None,
    ) -> Distribution:
        """Return p(x | z2, l, b), one distribution for each gene."""
        log_mu, gate_logits = self.x_decoder(z2, batch)
        log_mean = ell.log() + log_mu  # in log space, so rare genes cannot underflow
        log_theta = self.capped_log_theta
        return count_distribution(self.config.gene_likelihood, log_mean, log_theta, gate_logits)

    def label_term(
        self,
        z2: Float[Tensor, "cells latent"],
        y: Float[Tensor, "cells labels"],
    ) -> None:
        """Add the classification loss as an observed site: α log Σ_y q(y | z2) p(label | y)."""
        logits = self.classifier(z2)
        with poutine.scale(scale=self.label_scale):
            if self.exact:
                pyro.sample("label", dist.OneHotCategorical(logits=logits), obs=y)
            else:
                pyro.factor("label", -self.label_cross_entropy(logits, y))

    def save(self, path: str | Path) -> Path:
        """Write parameters, running statistics, gene, label and batch names and configuration to the file `path`.

        An older model is replaced; raises `PersistenceError` where `path` is another file or cannot be written.
        """
        return write_file(path, self.state_dict(), self.about())

    def about(self) -> dict[str, Any]:
        """Return everything that is saved of a model besides its `state_dict`, as JSON types."""
        parts = {"config": self.config, "columns": self.columns, "batches": self.batches}
        return {name: part and asdict(part) for name, part in parts.items()} | {
            name: getattr(self, name) for name in _KEPT
        }

    @classmethod
    def load(cls, path: str | Path) -> SCANVI:
        """Return a model that `save` wrote, on the CPU and in evaluation mode; other files raise `PersistenceError`."""
        tensors, about = read_file(path)
        with as_persistence_error(f"{path} holds no scANVI model", "Train it again."):
            return cls.from_saved(tensors, about)

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> SCANVI:
        """Return a model in evaluation mode from its `state_dict` and the metadata of `about`."""
        rest = dict(about)
        config = ModelConfig(**rest.pop("config"))  # turns the lists of JSON into tuples
        rest["columns"] = Columns(**rest["columns"])
        rest["batches"] = rest["batches"] and Batches(**rest["batches"])
        with torch.random.fork_rng():  # initial weights are drawn, then replaced
            model = cls(config, **rest)
        model.load_state_dict(tensors)
        return model.eval()

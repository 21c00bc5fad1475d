"""`simulated`: counts drawn from known profiles, so that results can be compared with the truth.

Met in book/01_data.md, used as a yardstick in book/08_evaluation.md. For a cell c of type y in batch b and a gene g

    l_c   ~ LogNormal(location, scale)                      library size: expected total over all genes
    x_cg  ~ NB(mean l_c ρ_gby, inverse dispersion θ_g)      variance m + m² / θ_g
    ρ_gby ∝ exp(baseline_g + fold_gy + shift_gb),           Σ_g ρ_gby = 1

with a log-normal baseline, log-fold changes on the marker genes of a type alone, and of its branch where types come in
branches, and shifts of whole batches that cross the types. Given y, b and l the genes are independent, so that p(y | x)
is an integral over l alone: no method can be right more often than the most probable type under it
(`bayes_probabilities`).
"""

from __future__ import annotations

from string import ascii_uppercase

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.special import logsumexp

from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.inputs.counts import check_counts
from scanvi_tutorial.inputs.errors import InputError

LIBRARY = (np.log(150.0), 0.35)  # location and scale of log l: with 64 genes, half of all entries are zero
BASELINE_SCALE, SHIFT_SCALE = 1.5, 0.3  # spread of the log baseline over genes; of the shifts of a batch
DISPERSION = (np.log(3.0), 0.4)  # location and scale of log θ over genes
MARKERS_PER_TYPE, RAREST = 5, 0.05  # and the share of the last of many types, in that of the first
STEPS, REACH = 241, 6.0  # the grid on which p(y | x) is integrated: nodes, and how many scales of log l it reaches


def load_simulated(
    *,
    cells: int = 400,
    genes: int = 64,
    types: int = 4,
    branches: int = 0,
    batches: int = 1,
    effect: float = 2.0,
    per_label: int = 10,
    seed: int = 0,
) -> AnnData:
    """Return simulated raw counts, (cells, genes), with truth, marker-derived seeds and every latent variable.

    Kept: `obs["library_size"]` l, `obs["batch"]`; `var["inverse_dispersion"]` θ; `varm["profile"]` ρ (genes, batches,
    types), which survives a choice of genes; `uns["simulation"]`: names and shares of the types, location and scale of
    log l.

    Args:
        cells: Cells to draw.
        genes: Genes, of which five a type are markers.
        types: Types, of unequal shares: each is four fifths as common as the one before, but none is more than twenty
            times rarer than the first.
        branches: Branches of a tree that types belong to in turn, each with five markers of its own; 0 is no tree.
        batches: Batches; which one a cell is from does not depend on its type.
        effect: Mean log-fold change of a marker gene in its type; 0 makes types alike, 1.2 leaves the best
            rule wrong on 7 cells of 100, 2.0 on less than one.
        per_label: Seed cells per type.
        seed: Of everything drawn.

    Raises:
        InputError: Where there are too few genes for the markers, or too many or too few types.
    """
    if types < 2 or branches < 0 or batches < 1 or genes < (types + branches) * MARKERS_PER_TYPE:
        raise InputError(
            f"Simulated data need two types, a batch and at least {MARKERS_PER_TYPE} genes per type and branch; got "
            f"{types} types, {branches} branches, {batches} batches, {genes} genes."
        )
    rng = np.random.default_rng(seed)
    letters = types <= len(ascii_uppercase)
    names = (
        [f"type {letter}" for letter in ascii_uppercase[:types]]
        if letters
        else [f"type {n + 1:03d}" for n in range(types)]
    )
    runs = [f"batch {number}" for number in range(1, batches + 1)]
    symbols = [f"gene{number:0{len(str(genes))}d}" for number in range(1, genes + 1)]
    markers = rng.permutation(genes)[: (types + branches) * MARKERS_PER_TYPE].reshape(types + branches, -1)
    profile = _profile(rng, markers, types=types, genes=genes, batches=batches, effect=effect)
    theta = rng.lognormal(*DISPERSION, size=genes)
    truth = rng.choice(types, size=cells, p=type_shares(types))
    batch = rng.integers(batches, size=cells)
    library = rng.lognormal(*LIBRARY, size=cells)
    mean = library[:, None] * profile[:, batch, truth].T
    counts = rng.poisson(rng.gamma(theta, mean / theta))  # a Poisson whose rate is Gamma is negative binomial
    obs = pd.DataFrame(
        {
            "truth": pd.Categorical.from_codes(truth, names),
            "batch": pd.Categorical.from_codes(batch, runs),
            "library_size": library,
        },
        index=[f"cell{number:0{len(str(cells))}d}" for number in range(1, cells + 1)],
    )
    var = pd.DataFrame({"inverse_dispersion": theta}, index=symbols)
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var, varm={"profile": profile})
    adata.uns["dataset"] = "simulated"
    adata.uns["simulation"] = {
        "types": names,
        "batches": runs,
        "shares": type_shares(types),
        "library": np.array(LIBRARY),
        "effect": effect,
    }
    adata.uns["markers"] = {
        name: {"positive": [symbols[gene] for gene in sorted(own)], "negative": []}
        for name, own in zip(names, markers[:types], strict=True)
    }
    return seed_labels(adata, per_label)


def type_shares(types: int) -> np.ndarray:
    """Return the share of each type among the cells, (types,).

    >>> type_shares(4).round(2).tolist()
    [0.34, 0.27, 0.22, 0.17]
    """
    shares = max(0.8, RAREST ** (1 / (types - 1))) ** np.arange(types)
    return shares / shares.sum()


def bayes_probabilities(adata: AnnData) -> pd.DataFrame:
    """Return p(y | x, b) of simulated cells as the simulator itself implies it, (cells, types).

    The integral over log l is a sum over an even grid, which converges exponentially for a smooth integrand that is
    negligible at both ends. Of a choice of genes it is the posterior given those genes alone.

    Raises:
        InputError: Where `adata` does not come from `load_simulated`.
    """
    if "simulation" not in adata.uns or "profile" not in adata.varm:
        raise InputError("Exact probabilities exist for simulated cells alone: use load('simulated').")
    counts = check_counts(adata).astype(np.float64)
    theta, profile = adata.var["inverse_dispersion"].to_numpy(), adata.varm["profile"]
    simulation = adata.uns["simulation"]
    shares, (location, scale) = simulation["shares"], simulation["library"]
    standard = np.linspace(-REACH, REACH, STEPS)
    library = np.exp(location + scale * standard)
    log_joint = np.empty((adata.n_obs, len(shares)))
    for batch, run in enumerate(
        simulation["batches"]
    ):  # by name: anndata drops a category that no cell of a selection has
        rows = np.flatnonzero(adata.obs["batch"] == run)
        for code, share in enumerate(shares):
            mean = library * profile[:, batch, code, None]  # (genes, steps)
            log_total = np.log(mean + theta[:, None])
            # terms that depend on neither y nor l cancel when the types are normalized
            log_x = counts[rows] @ (np.log(mean) - log_total) - theta @ log_total
            log_joint[rows, code] = np.log(share) + logsumexp(log_x - standard**2 / 2, axis=1)
    log_joint -= logsumexp(log_joint, axis=1, keepdims=True)
    return pd.DataFrame(np.exp(log_joint), adata.obs_names, list(simulation["types"]))


def _profile(
    rng: np.random.Generator, markers: np.ndarray, *, types: int, genes: int, batches: int, effect: float
) -> np.ndarray:
    """Return ρ, (genes, batches, types), for marker genes of each type and then of each branch, (…, markers)."""
    fold = np.zeros((genes, len(markers)))
    for code, own in enumerate(markers):
        fold[own, code] = effect * rng.uniform(0.5, 1.5, size=len(own))
    fold, of_branches = fold[:, :types], fold[:, types:]
    if of_branches.shape[1]:
        fold = fold + of_branches[:, np.arange(types) % of_branches.shape[1]]
    baseline = rng.normal(0, BASELINE_SCALE, size=genes)
    shift = rng.normal(0, SHIFT_SCALE, size=(genes, batches)) if batches > 1 else np.zeros((genes, 1))
    profile = np.exp(baseline[:, None, None] + shift[:, :, None] + fold[:, None, :])
    return profile / profile.sum(axis=0)

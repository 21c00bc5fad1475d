"""The simulator draws from the law it states, and its Bayes rule is exact: both against SciPy."""

import numpy as np
import pytest
from anndata import read_h5ad
from scipy import stats
from scipy.integrate import quad
from sklearn.linear_model import LogisticRegression

from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.data.simulated import bayes_probabilities, load_simulated, type_shares
from scanvi_tutorial.inputs import InputError


@pytest.fixture(scope="module")
def many():
    """Return 8,000 cells of two batches, hard enough that the best rule errs."""
    return load_simulated(cells=8_000, batches=2, effect=0.8, seed=7)


def means(adata):
    """Return l ρ, (cells, genes), from what the simulator kept."""
    profile, codes = adata.varm["profile"], (adata.obs["batch"].cat.codes, adata.obs["truth"].cat.codes)
    return adata.obs["library_size"].to_numpy()[:, None] * profile[:, *codes].T


# the law of the counts


def test_counts_follow_the_negative_binomial_of_scipy(many):
    mean, theta = means(many)[:500], many.var["inverse_dispersion"].to_numpy()
    law, counts = stats.nbinom(theta, theta / (theta + mean)), many.X.toarray()[:500]
    below, at = law.cdf(counts - 1), law.pmf(counts)
    ranks = (
        below + np.random.default_rng(0).uniform(size=counts.shape) * at
    )  # uniform if, and only if, the law is right
    assert stats.kstest(ranks.ravel(), "uniform").pvalue > 1e-3


def test_library_sizes_are_log_normal(many):
    location, scale = many.uns["simulation"]["library"]
    law = stats.norm(location, scale)
    assert stats.kstest(np.log(many.obs["library_size"]), law.cdf).pvalue > 1e-3


def test_types_have_their_shares_and_batches_cross_them(many):
    observed = many.obs["truth"].value_counts(sort=False)
    assert stats.chisquare(observed, type_shares(4) * len(many)).pvalue > 1e-3
    table = many.obs.groupby(["truth", "batch"], observed=False).size().unstack()
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert (table > 0).all(axis=None)


def test_profiles_sum_to_one_and_types_differ_in_their_markers_alone():
    adata = load_simulated(effect=2.0, batches=3)
    profile = adata.varm["profile"]
    np.testing.assert_allclose(profile.sum(axis=0), 1)
    markers = [gene for sides in adata.uns["markers"].values() for gene in sides["positive"]]
    others = ~adata.var_names.isin(markers)
    ratio = profile / profile[others].sum(axis=0)  # against the genes that do not differ
    np.testing.assert_allclose(ratio[others], ratio[others][:, :, :1].repeat(4, axis=2))
    for code, sides in enumerate(adata.uns["markers"].values()):
        own = adata.var_names.isin(sides["positive"])
        fold = np.log(ratio[own][:, :, code] / np.delete(ratio[own], code, axis=2).max(axis=2))
        assert ((fold >= 1) & (fold <= 3)).all()  # effect × (0.5 … 1.5)


# the best rule there is


def by_scipy(adata, cell):
    """Return p(y | x, b) of one cell by adaptive quadrature over log l."""
    x, theta = adata.X[cell].toarray().ravel(), adata.var["inverse_dispersion"].to_numpy()
    shares, (location, scale) = adata.uns["simulation"]["shares"], adata.uns["simulation"]["library"]
    batch = adata.uns["simulation"]["batches"].index(adata.obs["batch"].iloc[cell])

    def log_density(u, code):
        mean = np.exp(location + scale * u) * adata.varm["profile"][:, batch, code]
        return stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum() + stats.norm.logpdf(u)

    grid = np.linspace(-5, 5, 41)
    shift = max(log_density(u, code) for u in grid for code in range(len(shares)))
    joint = []
    for code, share in enumerate(shares):
        peak = grid[np.argmax([log_density(u, code) for u in grid])]
        area = quad(lambda u, c=code: np.exp(log_density(u, c) - shift), -7, 7, points=[peak], limit=200)[0]
        joint.append(share * area)
    return np.array(joint) / sum(joint)


@pytest.mark.parametrize("genes", [64, 30])
def test_bayes_probabilities_are_those_of_adaptive_quadrature(many, genes):
    adata = select_genes(many[:6].copy(), genes)
    ours = bayes_probabilities(adata).to_numpy()
    np.testing.assert_allclose(ours, [by_scipy(adata, cell) for cell in range(6)], rtol=1e-5, atol=1e-10)


def test_bayes_probabilities_do_not_depend_on_the_other_cells(many):
    second = many[(many.obs["batch"] == "batch 2") & (many.obs["truth"] != "type A")].copy()
    expected = bayes_probabilities(many).loc[second.obs_names]
    np.testing.assert_allclose(bayes_probabilities(second), expected, rtol=1e-9)


def test_bayes_probabilities_are_right_as_often_as_they_say(many):
    probabilities = bayes_probabilities(many)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    right = (probabilities.idxmax(axis=1).to_numpy() == many.obs["truth"].astype(str)).to_numpy()
    said = probabilities.max(axis=1).to_numpy()
    for low, high in [(0, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)]:
        among = (said >= low) & (said < high)
        spread = np.sqrt((said[among] * (1 - said[among])).sum()) / among.sum()
        assert abs(right[among].mean() - said[among].mean()) < 4 * spread


def test_no_classifier_beats_the_bayes_rule(many):
    counts, truth = many.X.toarray(), many.obs["truth"].astype(str).to_numpy()
    values, train = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)), np.arange(len(many)) < 4_000
    fitted = LogisticRegression(C=0.05, max_iter=1_000).fit(values[train], truth[train])
    best = bayes_probabilities(many)[~train].idxmax(axis=1).to_numpy()
    assert (best == truth[~train]).mean() > fitted.score(values[~train], truth[~train])


def test_types_without_an_effect_cannot_be_told_apart():
    probabilities = bayes_probabilities(load_simulated(effect=0))
    np.testing.assert_allclose(probabilities, np.tile(type_shares(4), (400, 1)))


def test_a_larger_effect_makes_types_easier_to_tell():
    sure = [bayes_probabilities(load_simulated(effect=effect)).max(axis=1).mean() for effect in (0.4, 0.8, 1.2, 2.0)]
    assert sure == sorted(sure)
    assert sure[0] < 0.7 < 0.98 < sure[-1]


def test_a_file_keeps_all_that_the_bayes_rule_needs(tmp_path):
    adata = load_simulated(cells=60, batches=2)
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(bayes_probabilities(read_h5ad(tmp_path / "a.h5ad")), bayes_probabilities(adata))


# seeds, and what is refused


def test_the_same_seed_gives_the_same_counts_and_another_gives_others():
    first, again, other = (load_simulated(seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X.toarray(), again.X.toarray())
    assert list(first.obs["label"]) == list(again.obs["label"])
    assert (first.X != other.X).nnz


def test_many_types_come_in_branches_with_markers_in_common_and_exact_probabilities():
    adata = load_simulated(cells=2_000, genes=200, types=30, branches=5, effect=1.5, per_label=2)
    p = bayes_probabilities(adata)
    assert p.columns[-1] == "type 030"
    right = p.idxmax(axis=1) == adata.obs["truth"].astype(str)
    assert right.mean() == pytest.approx(p.max(axis=1).mean(), abs=0.02)  # calibrated, as only the truth is
    logs = np.log(adata.varm["profile"][:, 0])
    within, across = (np.corrcoef(logs[:, 0], logs[:, other])[0, 1] for other in (5, 6))
    assert within > across


@pytest.mark.parametrize("sizes", [{"genes": 19}, {"types": 1}, {"branches": 12}, {"branches": -1}, {"batches": 0}])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(InputError, match="Simulated data need"):
        load_simulated(**sizes)


def test_the_bayes_rule_of_other_cells_is_refused():
    adata = load_simulated()
    del adata.uns["simulation"]
    with pytest.raises(InputError, match="simulated cells alone"):
        bayes_probabilities(adata)

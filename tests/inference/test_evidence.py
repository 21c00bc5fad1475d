"""Evidence of each gene: it adds up to the log-likelihood, agrees with SciPy, and names the gene that was changed."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from scipy.sparse import csr_matrix
from scipy.stats import nbinom, poisson

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.inference.evidence import evidence
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.plotting.evidence import evidence_plot
from scanvi_tutorial.plotting.style import BLUE, ORANGE
from scanvi_tutorial.training.loop import fit

STATE, RIVAL = np.array([1.5, -1.0]), np.array([-0.5, 2.0])
SIZES = {"n_latent": 2, "gene_hidden": (8,), "label_hidden": (6,), "classifier_hidden": (5,)}


def moved(adata, batch_key=None, **options):
    """Return a model with no parameter where it started, in training mode."""
    model = SCANVI.from_anndata(adata, ModelConfig(**SIZES, **options), batch_key=batch_key)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def log_likelihoods(model, x, state, ell, batch=None):
    """Return log p(x | state, l, b) of every cell, cell by cell, in evaluation mode."""
    model.eval()
    sums = []
    for i in range(len(x)):
        own = None if batch is None else batch[[i]]
        p_x = model.counts(torch.tensor(state, dtype=torch.float32)[None], ell[[i]], own)
        sums.append(p_x.log_prob(x[[i]]).double().sum().item())
    return np.array(sums)


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("library", ["latent", "observed"])
def test_the_numbers_add_up_to_the_difference_of_log_likelihoods(tiny, likelihood, library):
    adata = tiny()
    model = moved(adata, gene_likelihood=likelihood, library=library)
    rows = [3, 7, 8, 21]
    table = evidence(model, adata, rows, STATE, RIVAL)
    assert model.training
    x = torch.as_tensor(adata.X[rows].toarray())
    ell = x.sum(1, keepdim=True) if library == "observed" else model.eval().z2l_encoder(x)[2].exp()
    wanted = log_likelihoods(model, x, STATE, ell) - log_likelihoods(model, x, RIVAL, ell)
    assert table.sum() == pytest.approx(wanted.mean(), abs=1e-4)


def test_each_cell_keeps_its_batch(tiny):
    adata = tiny()
    adata.obs["run"] = np.where(np.random.default_rng(1).random(30) < 0.5, "run 1", "run 2")
    model = moved(adata, batch_key="run", library="observed")
    x = torch.as_tensor(adata.X.toarray())
    batch = torch.as_tensor(pd.get_dummies(adata.obs["run"]).to_numpy(dtype=np.float32))
    table = evidence(model, adata, range(30), STATE, RIVAL)
    parts = (log_likelihoods(model, x, state, x.sum(1, keepdim=True), batch) for state in (STATE, RIVAL))
    assert table.sum() == pytest.approx(np.subtract(*parts).mean(), abs=1e-4)
    swapped = (log_likelihoods(model, x, state, x.sum(1, keepdim=True), batch.flip(1)) for state in (STATE, RIVAL))
    assert table.sum() != pytest.approx(np.subtract(*swapped).mean(), abs=1e-2)  # the batch matters here


@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_the_number_of_a_gene_is_that_of_scipy(tiny, likelihood):
    adata, rows, gene = tiny(), [0, 4, 5, 11], 2
    model = moved(adata, gene_likelihood=likelihood, library="observed")
    counts = adata.X.toarray()[rows].astype(int)
    table = evidence(model, adata, rows, STATE, RIVAL)
    model.eval()

    def log_p(state):
        share = model.x_decoder(torch.tensor(state, dtype=torch.float32)[None])[0].exp()[0, gene].item()
        mean = counts.sum(1) * share
        if likelihood == "poisson":
            return poisson.logpmf(counts[:, gene], mean)
        theta = model.inverse_dispersion[gene].item()
        return nbinom.logpmf(counts[:, gene], theta, theta / (theta + mean))

    assert table[f"gene{gene}"] == pytest.approx((log_p(STATE) - log_p(RIVAL)).mean(), rel=1e-5)


def test_many_cells_are_the_mean_of_a_few_at_a_time(tiny):
    adata = tiny(cells=1_300)  # more than are read at once
    model = moved(adata)
    rows = np.random.default_rng(0).permutation(1_300)[:1_200]
    parts = sum(evidence(model, adata, some, STATE, RIVAL)[model.genes] for some in np.split(rows, 4)) / 4
    np.testing.assert_allclose(evidence(model, adata, rows, STATE, RIVAL)[model.genes], parts, rtol=1e-5, atol=1e-7)


def test_large_counts_lose_no_digits(tiny):
    """In float32 a log-likelihood of some 1e6 nats is rounded to a tenth."""
    adata = tiny(cells=30)
    adata.X = csr_matrix(adata.X * 20_000, dtype=np.float32)
    model = moved(adata, gene_likelihood="poisson", library="observed").eval()
    table = evidence(model, adata, [0], STATE, RIVAL)
    x = adata.X[0].toarray()[0].astype(np.float64)
    log_mu, log_mu_rival = (
        model.x_decoder(torch.tensor(z, dtype=torch.float32)[None])[0][0].detach().double().numpy()
        for z in (STATE, RIVAL)
    )
    exact = x * (log_mu - log_mu_rival) - x.sum() * (np.exp(log_mu) - np.exp(log_mu_rival))
    np.testing.assert_allclose(table[model.genes], exact, rtol=1e-7)


def test_the_series_is_sorted_and_bears_names(tiny):
    model = moved(tiny())
    table = evidence(model, tiny(), [1, 2], STATE, RIVAL)
    assert table.name == "nats"
    assert table.dtype == np.float64
    assert set(table.index) == set(model.genes)
    assert (np.diff(table) <= 0).all()


def test_a_mask_says_the_same_as_positions(tiny):
    adata, model = tiny(), moved(tiny())
    mask = (adata.obs["truth"] == "B").to_numpy()
    by_position = evidence(model, adata, np.flatnonzero(mask), STATE, RIVAL)
    pd.testing.assert_series_equal(evidence(model, adata, mask, STATE, RIVAL), by_position)


def test_swapping_the_states_flips_the_signs(tiny):
    adata, model = tiny(), moved(tiny())
    there, back = evidence(model, adata, range(9), STATE, RIVAL), evidence(model, adata, range(9), RIVAL, STATE)
    assert (there != 0).all()
    pd.testing.assert_series_equal(there, -back[there.index])


def test_a_gene_raised_in_one_type_is_named_first():
    adata = load("simulated", cells=200, genes=60)
    of_type = {name: np.flatnonzero(adata.obs["truth"] == name) for name in ("type A", "type B")}
    markers = {gene for own in adata.uns["markers"].values() for gene in own["positive"]}
    means = pd.Series(np.asarray(adata.X.mean(0)).ravel(), adata.var_names).drop(markers)
    raised = means[means < 3].idxmax()  # a gene that tells no types apart, and is seen in most cells
    counts = adata.X.toarray()
    counts[of_type["type A"], adata.var_names.get_loc(raised)] *= 10
    adata.X = csr_matrix(counts)
    model = SCANVI.from_anndata(adata, ModelConfig(n_latent=3, gene_hidden=(32,), gene_likelihood="nb"))
    fit(model, adata, TrainConfig(max_epochs=25, batch_size=32))
    states = latent(model, adata)
    state, rival = (states[rows].mean(0) for rows in of_type.values())
    for_a = evidence(model, adata, of_type["type A"], state, rival)
    assert for_a.index[0] == raised
    assert for_a.sum() > 0
    for_b = evidence(model, adata, of_type["type B"], rival, state)  # the gene speaks for B where it is low
    assert for_b[raised] > 0
    assert for_b.sum() > 0


@pytest.mark.parametrize("rows", [[], np.zeros(30, dtype=bool), [30], [0.5], np.ones(7, dtype=bool)])
def test_where_no_cell_is_named_that_is_said(tiny, rows):
    with pytest.raises(InputError, match="cell"):
        evidence(moved(tiny()), tiny(), rows, STATE, RIVAL)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((1, 2)), 0.0, [np.nan, 0.0]])
def test_states_of_another_shape_are_refused(tiny, wrong):
    model = moved(tiny())
    with pytest.raises(InputError, match="`state`"):
        evidence(model, tiny(), [0], wrong, RIVAL)
    with pytest.raises(InputError, match="`rival`"):
        evidence(model, tiny(), [0], STATE, wrong)


@pytest.fixture
def drawn():
    """Return a function that draws and gives bars by color, the axes and the title in one line; closes the figure."""

    def draw(table, **options):
        figure = evidence_plot(table, names=("B", "T_$1"), **options)
        (axes,) = figure.axes
        bars = {
            color: [bar.get_width() for bar in axes.patches if to_hex(bar.get_facecolor()) == color]
            for color in (BLUE, ORANGE)
        }
        return bars, axes, axes.get_title(loc="left").replace("\n", " ")

    yield draw
    plt.close("all")


def test_the_figure_has_the_strongest_genes_of_each_direction_and_the_sums(drawn):
    values = [-0.5, 4.0, 0.25, 0.0, 2.0, -1.5, 1.0, -0.25]
    bars, axes, title = drawn(pd.Series(values, [f"g{i}" for i in range(8)], name="nats"), genes=2)
    assert bars == {BLUE: [4.0, 2.0], ORANGE: [-0.5, -1.5]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["g1", "g4", "g0", "g5"]
    assert axes.get_xlabel() == "nats per cell"
    assert title == r"B rather than T_\$1: 5.0 nats per cell, of which these genes give 4.0"


def test_the_figure_has_fewer_bars_where_fewer_genes_favor_a_type(drawn):
    bars, _, title = drawn(pd.Series([-3.0, -1.0, 0.0], list("abc")))
    assert bars == {BLUE: [], ORANGE: [-1.0, -3.0]}
    assert "−4.0 nats" in title


@pytest.mark.parametrize(("values", "genes"), [([0.0, 0.0], 3), ([1.0, -1.0], 0)])
def test_nothing_to_draw_is_refused(values, genes):
    with pytest.raises(InputError, match=r"genes must be|No gene"):
        evidence_plot(pd.Series(values, ["a", "b"]), names=("B", "T"), genes=genes)

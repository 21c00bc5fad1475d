"""Wrong and coarse labels, and shares, in the bound: Pyro's and the fast engine's against a bound written by hand."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from refused import refused
from scipy.sparse import csr_matrix

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.data.simulated import load_simulated
from scanvi_tutorial.inference.predictions import label_probabilities
from scanvi_tutorial.inputs.arrays import SparseCounts
from scanvi_tutorial.model.bound import bound_of, bound_terms, traces
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import Half, Minibatch
from scanvi_tutorial.training.objective import PyroEngine, loss_of

COARSE = {"lymphocyte": ["B", "T"]}
STORIES = {  # what is said of labels: settings of the model, whether some labels are coarse
    "shares": ({"shares": "learned", "norm": "layer"}, False),
    "noise": ({"label_noise": 0.2}, False),
    "confusion": ({"label_noise": 0.2, "confusion": "learned", "shares": "learned", "norm": "layer"}, False),
    "coarse": ({}, True),
    "all": ({"label_noise": 0.1, "confusion": "learned", "shares": "learned", "norm": "layer"}, True),
}


def coarsened(adata):
    """Return the cells with every second label of B and T coarse."""
    label = adata.obs["label"].astype(str).to_numpy()
    both = np.flatnonzero(np.isin(label, ["B", "T"]))
    label[both[::2]] = "lymphocyte"
    adata.obs["label"] = label
    return adata


def story(tiny, small_config, name):
    """Return a model in float64 with no parameter where it started, its cells, and both halves of a minibatch."""
    settings, coarse = STORIES[name]
    adata = coarsened(tiny()) if coarse else tiny()
    model = SCANVI.from_anndata(adata, replace(small_config, **settings), coarse=COARSE if coarse else None).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    cells = model.cells(adata)
    rows = np.flatnonzero(cells.codes < 0), np.flatnonzero(cells.codes >= 0)
    x = [torch.as_tensor(cells.counts[part].toarray(), dtype=torch.float64) for part in rows]
    return model, x, cells.y(rows[1]).double()


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_loss_and_every_gradient_are_those_of_the_bound_by_hand(tiny, small_config, name, kl_weight):
    model, (x, x_labeled), y = story(tiny, small_config, name)
    halves = Half(x), Half(x_labeled, y)
    noises = []
    for half in halves:
        torch.manual_seed(1)
        noises.append(oracle.noise_of(traces(model, half.x, half.y)[0]))
    for half, noise in zip(halves, noises, strict=True):
        wanted = oracle.minus_bound(model, half.x, noise, half.y, kl_weight) / len(half.x)
        gradients = oracle.gradients(model, wanted)
        whole = Minibatch(None, half) if half.y is not None else Minibatch(half, None)
        sparse = SparseCounts.from_csr(csr_matrix(half.x.numpy()))
        share = model.labeled_fraction if half.y is not None else 1 - model.labeled_fraction
        for engine, cells in ((PyroEngine(model), half.x), (FastEngine(model), sparse)):
            part = replace(half, x=cells)
            torch.manual_seed(1)
            loss = loss_of(engine, replace(whole, **{"unlabeled" if half.y is None else "labeled": part}), kl_weight)
            torch.testing.assert_close(loss, share * wanted, rtol=1e-9, atol=0)
            found = oracle.gradients(model, loss)
            assert found.keys() == gradients.keys()
            for site, value in gradients.items():
                torch.testing.assert_close(found[site], share * value, rtol=1e-6, atol=1e-9, msg=site)


@pytest.mark.parametrize("name", STORIES)
def test_terms_of_both_engines_add_up_to_the_bound_by_hand(tiny, small_config, name):
    model, (_, x), y = story(tiny, small_config, name)
    model = model.eval()
    with torch.no_grad():
        torch.manual_seed(1)
        noise = oracle.noise_of(traces(model, x, y)[0])
        torch.manual_seed(1)
        terms = bound_terms(model, x, y)
        torch.manual_seed(1)
        fast = FastEngine(model).terms(Half(SparseCounts.from_csr(csr_matrix(x.numpy())), y))
        model.config = replace(model.config, label_weight=0.0)
        of_priors = len(x) / model.n_cells * oracle.label_parameters(model, x)[2]
        by_hand = -oracle.minus_bound(model, x, noise, y) - of_priors
    torch.testing.assert_close(bound_of(terms).sum(), by_hand, rtol=1e-9, atol=0)
    for term, value in terms.items():
        torch.testing.assert_close(fast[term], value, rtol=1e-9, atol=1e-9, msg=term)


def test_a_label_that_allows_every_type_says_nothing(tiny, small_config):
    """U is the limit of a label that rules nothing out."""
    adata = tiny()
    adata.obs["label"] = adata.obs["label"].astype(str).replace("Unknown", "cell")
    model = SCANVI.from_anndata(adata, replace(small_config, label_weight=0.0), coarse={"cell": ["B", "NK", "T"]})
    cells = model.cells(adata)
    rows = np.flatnonzero(cells.codes == 3)
    x = cells.x(rows)
    with torch.no_grad():
        torch.manual_seed(1)
        said = bound_of(bound_terms(model.eval(), x, cells.y(rows)))
        torch.manual_seed(1)
        torch.testing.assert_close(said, bound_of(bound_terms(model, x)), rtol=1e-5, atol=1e-5)


def test_an_exact_label_is_the_limit_of_rare_errors(tiny, small_config):
    adata, noisy = tiny(), replace(small_config, label_noise=1e-9)
    models = [SCANVI.from_anndata(adata, config).double().eval() for config in (small_config, noisy)]
    models[1].load_state_dict(models[0].state_dict())
    cells = models[0].cells(adata)
    rows = np.flatnonzero(cells.codes >= 0)
    half = Half(cells.x(rows).double(), cells.y(rows).double())
    losses = []
    for model in models:
        draws = torch.Generator().manual_seed(0)
        noise = {site: torch.randn(len(rows), width, generator=draws, dtype=torch.float64) for site, width in SITES}
        if not model.exact:
            noise["z1"] = noise["z1"].expand(3, -1, -1)
        losses.append(oracle.minus_bound(model, half.x, noise, half.y))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)


SITES = (("z2", 2), ("l", 1), ("z1", 2))


def test_a_coarse_label_helps_its_types_and_is_none_itself(tiny, small_config):
    adata = coarsened(tiny(cells=90))
    model = SCANVI.from_anndata(adata, small_config, coarse=COARSE)
    assert model.label_names == ["B", "NK", "T"]
    fit(model, adata, TrainConfig(max_epochs=120, batch_size=16))
    coarse = (adata.obs["label"] == "lymphocyte").to_numpy()
    p = label_probabilities(model, adata)
    assert list(p) == ["B", "NK", "T"]
    assert p.loc[coarse, "NK"].to_numpy().max() < 0.1


def test_learned_shares_move_to_those_of_the_cells():
    """Balanced labels and steep shares: the model finds out that one type is common."""
    adata = load_simulated(cells=600, seed=1, effect=2.0)
    common = adata.obs["truth"].cat.categories[0]
    rows = np.flatnonzero(adata.obs["truth"] == common)
    others = np.flatnonzero(adata.obs["truth"] != common)[:60]
    adata = adata[np.sort(np.concatenate([rows, others]))].copy()
    cells = seed_labels(adata, 8, "random", 0)
    model = SCANVI.from_anndata(cells, ModelConfig(gene_hidden=(32,), shares="learned", norm="layer"))
    fit(model, cells, TrainConfig(batch_size=64))
    truth = (adata.obs["truth"] == common).mean()
    found = model.log_shares.exp()[model.label_names.index(common)].item()
    assert truth > 0.6
    assert abs(found - truth) < 0.15


def test_a_label_that_is_neither_type_nor_coarse_name_is_refused_with_its_cell(tiny, small_config):
    adata = coarsened(tiny())
    model = SCANVI.from_anndata(adata, small_config, coarse=COARSE)
    adata.obs["label"] = adata.obs["label"].astype(str)
    adata.obs.loc["cell3", "label"] = "granulocyte"
    said = refused(fit, model, adata, TrainConfig(max_epochs=1))
    assert "granulocyte" in said
    assert "cell3" in said


def test_the_story_survives_being_saved(tiny, small_config, tmp_path):
    adata = coarsened(tiny())
    config = replace(small_config, label_noise=0.1, confusion="learned", shares="learned", norm="layer")
    model = SCANVI.from_anndata(adata, config, coarse=COARSE)
    back = SCANVI.load(model.save(tmp_path / "model.safetensors"))
    assert (back.columns.coarse, back.n_cells, back.config) == (COARSE, adata.n_obs, config)
    torch.testing.assert_close(back.confusion, model.confusion)

"""What is left of the ten checks that no other file holds; book/09_calibration.md lists which test holds which.

1 the bound by hand, for a minibatch with both halves · 4 moments of the counts by sampling · 5 labels near the Bayes
rate · 8 a fitted model comes back · 9 no softmax twice · 10 nothing as large as cells × genes is ever dense.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import oracle
import pandas as pd
import pytest
import scipy.sparse
import torch
from pyro import poutine

from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data.seeds import seed_labels
from scanvi_tutorial.data.simulated import bayes_probabilities, load_simulated
from scanvi_tutorial.evaluation import accuracy, logistic_regression, scored_cells
from scanvi_tutorial.inference.predictions import label_probabilities, latent
from scanvi_tutorial.model.bound import traces
from scanvi_tutorial.model.likelihood import count_distribution
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.minibatches import Half, Minibatch
from scanvi_tutorial.training.objective import PyroEngine, loss_of

KINDS = ["zinb", "nb", "poisson"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_the_loss_of_a_minibatch_with_both_halves_is_the_bound_by_hand(tiny, small_config, kind, kl_weight):
    """Check 1, where the other oracle tests end: unequal halves, their weights, the label term, in every gradient."""
    adata = tiny()
    model = SCANVI.from_anndata(adata, replace(small_config, gene_likelihood=kind)).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    x, x_labeled = (torch.as_tensor(adata.X[rows].toarray()).double() for rows in (slice(0, 17), slice(17, 30)))
    y = torch.eye(3, dtype=torch.float64)[torch.arange(13) % 3]

    torch.manual_seed(1)
    pyros = loss_of(PyroEngine(model), Minibatch(Half(x), Half(x_labeled, y)), kl_weight)
    pyros_gradients = oracle.gradients(model, pyros)

    torch.manual_seed(1)
    noise = oracle.noise_of(traces(model, x)[0])
    labeled_noise = oracle.noise_of(traces(model, x_labeled, y)[0])
    fraction = 10 / 30  # every third of thirty cells is labeled
    by_hand = (1 - fraction) * oracle.minus_bound(model, x, noise, None, kl_weight) / 17
    by_hand = by_hand + fraction * oracle.minus_bound(model, x_labeled, labeled_noise, y, kl_weight) / 13
    by_hand_gradients = oracle.gradients(model, by_hand)

    torch.testing.assert_close(pyros, by_hand, rtol=1e-9, atol=0)
    assert pyros_gradients.keys() == by_hand_gradients.keys() == dict(model.named_parameters()).keys()
    for name in by_hand_gradients:
        torch.testing.assert_close(pyros_gradients[name], by_hand_gradients[name], rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mean", "theta", "gate"), [(0.2, 0.5, -2.0), (4.0, 2.0, 0.5), (60.0, 5.0, -1.0)])
def test_samples_have_the_mean_and_the_variance_that_the_distribution_says(kind, mean, theta, gate):
    """Check 4: within five standard errors, taken from the samples themselves."""
    torch.manual_seed(0)
    law = count_distribution(
        kind, *(torch.tensor([v], dtype=torch.float64) for v in (np.log(mean), np.log(theta), gate))
    )
    draws = law.sample(torch.Size([100_000])).numpy().ravel()
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - law.mean.item()) < 5 * error
    squares = (draws - law.mean.item()) ** 2
    assert abs(squares.mean() - law.variance.item()) < 5 * squares.std() / np.sqrt(len(draws))


@pytest.mark.slow
def test_with_plenty_of_cells_labels_come_within_six_points_of_the_bayes_rate():
    """Check 5: nobody can be right more often than the exact posterior of the simulator.

    The gap is not chance: 0.84 to 0.85 of 0.886 was measured, and more cells, labels or epochs did not close it.
    scikit-learn's network with as many labels reaches 0.86. Where the cells come from the model's own story, the gap is
    below 0.02 (test_simulation.py). Narrow the bound when the defaults get nearer.
    """
    adata = seed_labels(load_simulated(cells=10_000, effect=1.2), per_label=1_000, how="random", seed=0)
    others = scored_cells(adata)
    truth = adata.obs["truth"][others]
    best = accuracy(truth, bayes_probabilities(adata)[others])
    assert 0.85 < best < 0.95  # hard enough to be wrong, easy enough to be right
    model = SCANVI.from_anndata(adata, seed=0)
    fit(model, adata, TrainConfig(max_epochs=20))
    found = accuracy(truth, label_probabilities(model, adata)[others])
    assert found > best - 0.06
    assert found > accuracy(truth, logistic_regression(adata)[others])


def test_a_fitted_model_says_the_same_to_the_bit_after_a_journey_through_a_folder(tiny, small_config, tmp_path):
    """Check 8: probabilities, states and θ of a model whose every part has moved."""
    adata = tiny(cells=60)
    model = SCANVI.from_anndata(adata, small_config)
    start = model.inverse_dispersion.clone()
    fit(model, adata, TrainConfig(max_epochs=3, batch_size=16, warmup=0.0))
    assert (model.inverse_dispersion != start).all()
    back = SCANVI.load(model.save(tmp_path / "model"))
    assert torch.equal(back.inverse_dispersion, model.inverse_dispersion)
    pd.testing.assert_frame_equal(label_probabilities(back, adata), label_probabilities(model, adata), check_exact=True)
    np.testing.assert_array_equal(latent(back, adata), latent(model, adata))


@pytest.mark.parametrize("right", [True, False])
def test_a_classifier_that_is_sure_pays_nothing_where_it_is_right_and_dearly_where_it_is_wrong(tiny, right):
    """Check 9: logits of ±20. A softmax taken twice could not get below log(e + 2) − 1, about half a nat."""
    model = SCANVI.from_anndata(tiny(), ModelConfig(n_latent=2, gene_hidden=(8,), classifier_hidden=()))
    with torch.no_grad():
        head = model.classifier.heads.layers[-1]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([20.0, -20.0, -20.0]))
    x = torch.as_tensor(tiny().X.toarray())
    y = torch.eye(3)[torch.full((30,), 0 if right else 1)]
    _, story = traces(model, x, y)
    cross_entropy = -story.nodes["label"]["log_prob"] / model.label_scale
    if right:
        assert (cross_entropy < 0.01).all()
    else:
        torch.testing.assert_close(cross_entropy, torch.full((30,), 40.0))
    poutine.trace(model.guide).get_trace(x)  # and the guide can draw y from such logits


MEMORY = """
import json, re, sys
from pathlib import Path
import numpy as np
import scanvi_tutorial as st

def status(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

before = status("VmRSS")
adata = st.read_h5ad(sys.argv[1])
loaded = status("VmHWM")
sizes = {"n_latent": 2, "gene_hidden": (4,), "label_hidden": (4,), "classifier_hidden": ()}
config = st.ModelConfig(gene_likelihood="poisson", **sizes)
model = st.SCANVI.from_anndata(adata, config)
history = st.fit(model, adata, st.TrainConfig(max_epochs=1, batch_size=64, held_out=0.005))
fitted = status("VmHWM")
st.latent(model, adata)
st.select_genes(adata, 2_000)
st.evaluation.log_cp10k(adata.X)
print(json.dumps({"loading": loaded - before, "fitting": fitted - before, "using": status("VmHWM") - before}))
"""
CELLS = 20_000  # the size of the sorted PBMC of the tutorial
GENES = 21_932
DETECTED = 541


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_fitting_and_using_twenty_thousand_cells_make_no_dense_matrix(tmp_path):
    """Check 10: added peak memory of a process of its own, in MiB; the dense float32 matrix would take 1,673."""
    rng = np.random.default_rng(0)
    genes = rng.integers(GENES, size=(CELLS, DETECTED), dtype=np.int32)
    genes.sort(axis=1)
    counts = scipy.sparse.csr_matrix(
        (np.ones(genes.size, np.float32), genes.ravel(), np.arange(0, genes.size + 1, DETECTED)), (CELLS, GENES)
    )
    counts.sum_duplicates()
    label = np.where(np.arange(CELLS) < 200, np.array(["a", "b", "c", "d"])[np.arange(CELLS) % 4], "Unknown")
    adata = anndata.AnnData(counts, obs=pd.DataFrame({"label": pd.Categorical(label)}, index=map(str, range(CELLS))))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    del adata, counts, genes
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "cells.h5ad"],
        env=os.environ | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    added = json.loads(run.stdout)
    dense = CELLS * GENES * 4 / 2**20
    assert added["loading"] < 0.25 * dense, added
    assert added["using"] < 0.45 * dense, added

"""New cells go through a model that was fitted before: by name of genes, each cell by itself, in any process."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from threadpoolctl import threadpool_limits

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import ModelConfig, RunConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.inference.predictions import latent
from scanvi_tutorial.inputs import InputError, InputWarning

SMALL = ModelConfig(n_latent=4, gene_hidden=(16,), label_hidden=(8,), classifier_hidden=(8,))
QUICK = {"model_config": SMALL, "train_config": TrainConfig(max_epochs=4, batch_size=64), "fits": 2}


def learned(adata, folder, **options):
    """Return what annotate learned of cells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # of antibodies, say
        annotate(adata.copy(), model=folder / "model", **QUICK, **options)
    return Annotator.load(folder / "model")


@pytest.fixture(scope="module")
def reference():
    return load("simulated", cells=160, genes=40, per_label=6)


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    return learned(reference, tmp_path_factory.mktemp("model"))


@pytest.fixture
def query():
    return load("simulated", cells=60, genes=40)[:50].copy()


def answers(adata):
    return adata.obsm["scanvi_probabilities"].to_numpy(), adata.obsm["X_scanvi"]


def test_a_query_gets_what_the_model_says_of_it(model, query):
    cells = AnnData(query.X, obs=pd.DataFrame(index=query.obs_names), var=query.var[[]])
    said = model.say(cells)
    expected = said.probabilities, latent(model.fits[0], cells)
    before = query.copy()
    predict(model, query)
    for ours, theirs in zip(answers(query), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert (query.X != before.X).nnz == 0
    assert (query.obs["scanvi_label"].astype(str) == np.array(model.label_names)[expected[0].argmax(1)]).all()
    assert query.uns["scanvi"]["genes_found"] == 1


def test_order_of_genes_and_genes_beyond_the_models_do_not_matter(model, query):
    rng = np.random.default_rng(0)
    other = query[:, rng.permutation(query.n_vars)].copy()
    further = other.copy()
    further.var_names = [f"other{g}" for g in range(further.n_vars)]
    import anndata

    joined = anndata.concat([other, further], axis=1)
    predict(model, query)
    predict(model, joined)
    for ours, theirs in zip(answers(query), answers(joined), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_cells_answer_does_not_depend_on_the_cells_beside_it(model, query):
    few = query[:7].copy()
    predict(model, query)
    predict(model, few)
    np.testing.assert_allclose(answers(few)[0], answers(query)[0][:7], atol=1e-6)


def test_missing_genes_count_zero_and_their_share_is_said(model, query):
    there = query[:, 4:].copy()
    zeroed = query.copy()
    zeroed.X = sparse.csr_matrix(np.where(np.arange(40) < 4, 0, query.X.toarray()), dtype=np.float32)
    predict(model, there)
    predict(model, zeroed)
    np.testing.assert_array_equal(answers(there)[0], answers(zeroed)[0])
    assert there.uns["scanvi"]["genes_found"] == pytest.approx(0.9)
    assert "10.0% of the model's genes are missing" in there.uns["scanvi"]["warnings"][0]


def test_half_of_the_genes_is_enough_and_fewer_are_refused(model, query):
    predict(model, query[:, 20:].copy())
    with pytest.raises(InputError, match="Only 19 of the 40 genes"):
        predict(model, query[:, 21:].copy())


def renamed(query, names, **var):
    other = query.copy()
    other.var_names = names
    for name, column in var.items():
        other.var[name] = column
    return other


def test_a_hint_says_why_no_gene_is_found(model, reference, query, tmp_path):
    ids = [f"ENSG{g:011d}" for g in range(40)]
    symbols = list(query.var_names)
    with pytest.raises(InputError, match=r"adata.var\['symbol'\] holds the model's names"):
        predict(model, renamed(query, ids, symbol=symbols))
    with pytest.raises(InputError, match="These cells name genes by Ensembl ids, and the model by symbols"):
        predict(model, renamed(query, ids))
    with pytest.raises(InputError, match="agree but for capitals"):
        predict(model, renamed(query, [name.upper() for name in symbols]))
    ours = learned(renamed(reference, [f"{name}.2" for name in ids]), tmp_path)
    with pytest.raises(InputError, match=r"adata.var\['gene_id'\] holds the model's names"):
        predict(ours, renamed(query, symbols, gene_id=[f"{name}.3" for name in ids]))
    with pytest.raises(InputError, match="These cells keep 10 genes alone"):
        predict(model, query[:, :10].copy())
    with pytest.raises(InputError, match="Check species and reference"):
        predict(model, renamed(query, [f"x{g}" for g in range(40)]))


def test_versions_of_ensembl_ids_are_seen_through(reference, query, tmp_path):
    ids = [f"ENSG{g:011d}" for g in range(40)]
    model = learned(renamed(reference, ids), tmp_path)
    plain, other = renamed(query, ids), renamed(query, [f"{name}.7" for name in ids])
    for adata in (plain, other):
        predict(model, adata)
    np.testing.assert_array_equal(other.obsm["X_scanvi"], plain.obsm["X_scanvi"])
    assert other.uns["scanvi"]["genes_found"] == 1
    assert any("40 of the model's 40 genes were found under another form" in t for t in other.uns["scanvi"]["warnings"])
    joined = renamed(query, [f"GRCh38_{name.lower()}" for name in ids])
    predict(model, joined)
    np.testing.assert_array_equal(joined.obsm["X_scanvi"], plain.obsm["X_scanvi"])
    twice = renamed(query, [*(f"{name}.7" for name in ids[:-1]), f"{ids[0]}.8"])
    predict(model, twice)  # which of the two versions is meant cannot be said
    assert twice.uns["scanvi"]["genes_found"] == pytest.approx(38 / 40)
    with pytest.raises(InputError, match="The model names genes by Ensembl"):
        predict(model, query)


def test_a_cell_without_a_count_in_the_models_genes_is_named(model, query):
    counts = query.X.toarray()
    counts[3, :30] = 0
    counts[3, 39] = 1
    adata = query.copy()
    adata.X = counts
    with pytest.raises(InputError, match="cell04"):
        predict(model, adata[:, :30].copy())


def test_counts_may_be_in_another_layer_than_the_models_were(reference, query, tmp_path):
    layered = reference.copy()
    layered.layers["umi"] = layered.X
    model = learned(layered, tmp_path, layer="umi")
    query.layers["raw"] = query.X.copy()
    query.X = np.log1p(query.X.toarray())
    predict(model, query, layer="raw")
    with pytest.raises(InputError, match="layer='raw'"):
        predict(model, query)


@pytest.mark.slow
def test_another_process_gives_the_same_to_the_bit(model, query, tmp_path):
    path = model.save(tmp_path / "model.safetensors")
    query.write_h5ad(tmp_path / "query.h5ad")
    predict(path, query)
    code = (
        "import sys, numpy as np, scanvi_tutorial as st\n"
        "adata = st.read_h5ad(sys.argv[1]); st.predict(sys.argv[2], adata)\n"
        "np.save(sys.argv[3], adata.obsm['scanvi_probabilities'].to_numpy())\n"
    )
    out = tmp_path / "p.npy"
    subprocess.run([sys.executable, "-c", code, tmp_path / "query.h5ad", path, out], check=True)
    np.testing.assert_array_equal(np.load(out), answers(query)[0])


@pytest.mark.slow
def test_the_hundred_cells_that_facs_holds_out_are_named(tmp_path):
    place = RunConfig.from_env().data_dir
    if place is None or not (place / "pbmc_facs.RData").is_file():
        pytest.skip("pbmc_facs.RData is not at hand: set SCANVI_DATA_DIR to a folder that holds it")
    adata = load("facs", data_dir=place)
    adata.obs["kind"] = adata.obs["truth"]
    known, new = (adata[adata.obs["split"] == part].copy() for part in ("train", "test"))
    how = {"fits": 2, "train_config": TrainConfig(max_steps=150)}
    annotate(known, "kind", genes=1_000, model=tmp_path / "model", **how)
    predict(tmp_path / "model", new)  # of 16,791 genes, in their own order
    right = (new.obs["scanvi_label"].astype(str) == new.obs["truth"].astype(str)).mean()
    commonest = pd.Series(new.obs["truth"]).value_counts(normalize=True).max()
    assert new.n_obs == 100
    assert right > max(0.6, 2 * commonest)


def test_scanpy_ranks_genes_where_the_new_cells_lack_a_type(model, query):
    import scanpy as sc

    predict(model, query)
    assert (query.obs["scanvi_label"].value_counts() > 0).all()
    one = query[query.obs["scanvi_label"] == query.obs["scanvi_label"].iloc[0]].copy()
    predict(model, one)
    assert list(one.obs["scanvi_label"].cat.categories) == [one.obs["scanvi_label"].iloc[0]]
    assert list(one.obsm["scanvi_probabilities"]) == model.label_names
    named = query.obs["scanvi_label"].value_counts()
    with threadpool_limits():  # numba sets the threads of PyTorch too; this puts them back
        sc.pp.log1p(query)
        sc.tl.rank_genes_groups(query, "scanvi_label", groups=list(named.index[named > 1]))


def test_antibodies_that_the_model_was_fitted_on_are_read_and_others_are_not(reference, query, tmp_path):
    model = learned(reference[:, :35].copy(), tmp_path)  # which calls nothing an antibody
    few = query[:, :35].copy()
    query.var["feature_types"] = ["Gene Expression"] * 30 + ["Antibody Capture"] * 10
    predict(model, query)
    predict(model, few)
    assert query.uns["scanvi"]["genes_found"] == 1
    np.testing.assert_array_equal(answers(query)[0], answers(few)[0])

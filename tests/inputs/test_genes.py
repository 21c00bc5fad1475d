"""Features that are no genes are left out wherever genes are chosen."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.data.selection import select_genes
from scanvi_tutorial.inputs import InputError, InputWarning
from scanvi_tutorial.inputs.genes import gene_features, only_genes

KINDS = {
    "10x": ("feature_types", ["Gene Expression", "Antibody Capture", "Gene Expression"], [True, False, True]),
    "10x, with guides": ("feature_types", ["Gene Expression", "CRISPR Guide Capture", None], [True, False, True]),
    "a kind that nobody knows": (
        "feature_types",
        ["Gene Expression", "Nanobodies", "gene expression"],
        [True, False, True],
    ),
    "antibodies and peaks alone": ("feature_types", ["Antibody Capture", "Peaks", "Custom"], [False, False, False]),
    "names of R": ("feature_types", ["Gene.Expression", "Antibody.Capture", "Gene_Expression"], [True, False, True]),
    "a column of R": ("Feature.Types", ["mRNA", "AbSeq", "mRNA"], [True, False, True]),
    "kinds of CELLxGENE": ("feature_biotype", ["gene", "pseudogene", "spike-in"], [True, True, False]),
    "MuData": ("modality", ["rna", "prot", "atac"], [True, False, False]),
    "kinds of genes": ("feature_type", ["protein_coding", "lncRNA", "IG_V_gene"], [True, True, True]),
    "bytes": ("feature_types", [b"Gene Expression", b"Multiplexing Capture", b"Gene Expression"], [True, False, True]),
    "spike-ins": ("feature_biotype", ["gene", "spike-in", "gene"], [True, False, True]),
    "another column": ("kind", ["Antibody Capture"] * 3, [True, True, True]),
}


@pytest.mark.parametrize(("column", "kinds", "genes"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_genes_are_told_from_other_features(column, kinds, genes, dtype):
    var = pd.DataFrame({column: pd.array(kinds, dtype=object).astype(dtype)}, index=["a", "b", "c"])
    assert gene_features(var).tolist() == genes


def test_a_table_without_a_gene_is_refused():
    adata = AnnData(
        np.ones((2, 2)), var=pd.DataFrame({"feature_types": ["Antibody Capture"] * 2}, index=["CD3", "CD4"])
    )
    with pytest.raises(InputError, match="None of the 2 features is a gene"):
        only_genes(adata)


def with_antibodies(adata):
    """Return the cells with ten antibodies beside their genes, which are counted in every cell and tell nothing."""
    antibodies = np.random.default_rng(0).poisson(200, (adata.n_obs, 10)).astype(np.float32)
    kinds = ["Gene Expression"] * adata.n_vars + ["Antibody Capture"] * 10
    names = [*adata.var_names, *(f"antibody {i}" for i in range(10))]
    var = pd.DataFrame({"feature_types": kinds}, index=names)
    return AnnData(sparse.csr_matrix(sparse.hstack([adata.X, antibodies])), obs=adata.obs.copy(), var=var)


def test_antibodies_change_nothing_of_an_annotation():
    plain = load("simulated", cells=100, genes=40, per_label=6)
    del plain.uns["markers"]
    mixed = with_antibodies(plain)
    small = ModelConfig(n_latent=3, gene_hidden=(8,), label_hidden=(8,), classifier_hidden=(8,))
    quick = {"model_config": small, "train_config": TrainConfig(max_epochs=2, batch_size=32), "fits": 2, "genes": 30}
    annotate(plain, **quick)
    with pytest.warns(InputWarning, match="10 of 50 features are no genes"):
        annotate(mixed, **quick)
    np.testing.assert_array_equal(mixed.obsm["scanvi_probabilities"], plain.obsm["scanvi_probabilities"])
    assert any("10 of 50 features" in text for text in mixed.uns["scanvi"]["warnings"])


def test_selected_genes_are_genes():
    plain = load("simulated", cells=50, genes=40)
    with pytest.warns(InputWarning, match="Antibody Capture"):
        chosen = select_genes(with_antibodies(plain), 30)
    del plain.uns["markers"]
    assert list(chosen.var_names) == list(select_genes(plain, 30).var_names)

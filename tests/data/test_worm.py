"""The worm's neurons: what the file holds, and what is said where it is not there."""

import os
from pathlib import Path

import pytest
from refused import refused

from scanvi_tutorial.data import load
from scanvi_tutorial.data.download import DownloadError

FOLDER = os.environ.get("SCANVI_DATA_DIR", "")
there = pytest.mark.skipif(not (Path(FOLDER) / "worm_embryo.h5ad").is_file(), reason="worm_embryo.h5ad is not there")


@there
def test_counts_types_and_runs_are_those_of_the_source():
    adata = load("worm")
    assert adata.shape == (1_805, 10_000)
    assert adata.X.sum() == 1_248_505
    assert dict(adata.obs["truth"].value_counts()) == {
        "ADL": 477,
        "AWC": 318,
        "AWA": 236,
        "AWB": 212,
        "ASG": 173,
        "ADL_parent": 148,
        "Neuroblast_ASG_AWA": 142,
        "ASG_AWA": 99,
    }
    assert adata.obs["batch"].nunique() == 7
    seeds = adata.obs["label"] != "Unknown"
    assert seeds.sum() == 80
    assert (adata.obs["label"].astype(str) == adata.obs["truth"].astype(str))[seeds].all()


def test_a_file_that_is_not_there_is_named_with_its_source(tmp_path):
    with pytest.raises(DownloadError, match="monocle3") as caught:
        load("worm", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_another_file_of_that_name_is_refused(tmp_path):
    from anndata import AnnData
    from numpy import ones

    AnnData(ones((3, 4), dtype="float32")).write_h5ad(tmp_path / "worm_embryo.h5ad")
    assert "3 × 4" in refused(load, "worm", data_dir=tmp_path)

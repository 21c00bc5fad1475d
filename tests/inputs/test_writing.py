"""What cannot be written is found before a long computation, and named; what can be mended without loss is."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scanvi_tutorial.inputs import InputError, InputWarning
from scanvi_tutorial.inputs.writing import make_writable, nullable_strings_too, refuse_unwritable


@pytest.fixture
def adata():
    names = pd.DataFrame({"kind": ["a", "b"], "symbol": ["x", "y"]}, index=["x", "y"])
    adata = AnnData(np.ones((2, 2), dtype=np.float32), obs=names.copy(), var=names.copy())
    adata.raw = adata.copy()
    return adata


def can_be_written(adata, path):
    with nullable_strings_too():
        adata.write_h5ad(path)
    return anndata.read_h5ad(path)


FAULTS = {
    "adata.obs['s']": lambda adata: adata.obs.insert(0, "s", [1, "text"]),
    "adata.var['s']": lambda adata: adata.var.insert(0, "s", [(1, 2), None]),
    "adata.obs['day']": lambda adata: adata.obs.insert(0, "day", pd.to_datetime(["2024-01-01", "2024-01-02"])),
    "adata.raw.var['s']": lambda adata: adata.raw.var.insert(0, "s", [1, "text"]),
    "adata.uns['a']['b']": lambda adata: adata.uns.__setitem__("a", {"b": object()}),
    "adata.obs['two']": lambda adata: adata.obs.insert(0, "two", pd.Categorical(["T", b"T"])),
    "adata.obs.index": lambda adata: setattr(adata.obs, "index", pd.Index(["x", np.nan], dtype=object)),
    "adata.layers['l']": lambda adata: adata.layers.__setitem__("l", np.array([[1, "a"], [2, "b"]], dtype=object)),
}


@pytest.mark.parametrize(("where", "spoil"), FAULTS.items(), ids=FAULTS)
def test_a_part_that_cannot_be_written_is_named(adata, tmp_path, where, spoil):
    refuse_unwritable(adata)
    spoil(adata)
    with pytest.raises((TypeError, ValueError, anndata._io.specs.registry.IORegistryError)):
        can_be_written(adata, tmp_path / "a.h5ad")  # else we would refuse too much
    with pytest.raises(InputError) as refused:
        refuse_unwritable(adata)
    assert str(refused.value).startswith(f"{where} cannot be kept")


@pytest.mark.parametrize("table", ["obs", "var", "raw.var"])
def test_a_column_of_the_reserved_name_gets_another_and_keeps_its_values(adata, tmp_path, table):
    owner = adata.raw if table == "raw.var" else adata
    part = table.rpartition(".")[2]
    getattr(owner, part).insert(0, "_index", ["one", "two"])
    with pytest.warns(InputWarning, match=r"\['_index'\].*\['index'\]"):
        make_writable(adata)
    again = can_be_written(adata, tmp_path / "a.h5ad")
    assert list(getattr(again.raw if table == "raw.var" else again, part)["index"]) == ["one", "two"]


def test_an_index_called_like_another_column_loses_its_name_and_nothing_else(adata, tmp_path):
    adata.var.index.name = "kind"
    adata.obs.index.name = "symbol"  # a column with the same values
    with pytest.warns(InputWarning, match=r"adata\.var\.index\.name was 'kind'") as said:
        make_writable(adata)
    assert len(said) == 1
    again = can_be_written(adata, tmp_path / "a.h5ad")
    assert list(again.var["kind"]) == ["a", "b"]
    assert again.obs.index.name == "symbol"


def test_text_that_may_be_missing_is_written_as_it_is(adata, tmp_path):
    adata.obs["s"] = pd.array(["a", None], dtype="string")
    adata.obs.index = adata.obs.index.astype("string")
    make_writable(adata)
    again = can_be_written(adata, tmp_path / "a.h5ad")
    assert again.obs["s"].isna().tolist() == [False, True]
    assert list(again.obs_names) == ["x", "y"]

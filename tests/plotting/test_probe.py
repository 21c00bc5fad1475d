"""The map that can be asked says of each cell what the table says, and stays a figure where no script runs."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from scanvi_tutorial.data import load
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.plotting import cell_probe
from scanvi_tutorial.plotting.style import palette_of


@pytest.fixture
def adata():
    made = load("simulated", cells=60, genes=20)
    made.obs["label"] = "Unknown"
    rng = np.random.default_rng(0)
    names = made.obs["truth"].cat.categories
    made.obsm["scanvi_probabilities"] = pd.DataFrame(
        rng.dirichlet(np.ones(len(names)), size=60), index=made.obs_names, columns=names
    )
    return made


@pytest.fixture
def xy():
    return np.random.default_rng(1).normal(size=(60, 2))


def parts(probe):
    soup = BeautifulSoup(probe._repr_html_(), "html.parser")
    return soup, json.loads(soup.find("script", type="application/json").string)


def test_every_cell_has_its_probabilities_and_its_truth_from_the_least_certain_on(adata, xy):
    _, data = parts(cell_probe(adata, coordinates=xy))
    table = adata.obsm["scanvi_probabilities"].loc[data["cells"]]
    assert sorted(data["cells"]) == sorted(adata.obs_names)
    assert data["labels"] == list(table.columns)
    np.testing.assert_allclose(data["percent"], 100 * table, atol=0.5)
    assert (np.diff(table.max(axis=1)) >= 0).all()
    assert data["truth"] == adata.obs["truth"].loc[data["cells"]].astype(str).tolist()


def test_cells_lie_as_on_the_map_and_in_the_color_of_their_most_probable_type(adata, xy):
    soup, data = parts(cell_probe(adata, coordinates=xy))
    order = adata.obs_names.get_indexer(data["cells"])
    assert np.corrcoef(data["x"], xy[order, 0])[0, 1] > 0.999
    assert np.corrcoef(data["y"], xy[order, 1])[0, 1] < -0.999, "down the page is up on the map"
    drawn = {
        (int(x), int(y)): path["stroke"]
        for path in soup.find_all("path")
        for x, y in re.findall(r"M(\d+) (\d+)h0", path["d"])
    }
    best = adata.obsm["scanvi_probabilities"].loc[data["cells"]].idxmax(axis=1)
    colors = palette_of(adata, "truth", "label")
    assert drawn == {
        place: colors[name] for place, name in zip(zip(data["x"], data["y"], strict=True), best, strict=True)
    }


def test_without_a_script_the_least_certain_cell_is_shown_and_nothing_can_be_pressed(adata, xy):
    soup, data = parts(cell_probe(adata, coordinates=xy))
    ring = soup.find("circle")
    assert [int(ring["cx"]), int(ring["cy"])] == [data["x"][0], data["y"][0]]
    assert soup.p.get_text() == f"Cell {data['cells'][0]}, in truth {data['truth'][0]}"
    widths = [int(re.search(r"width:(\d+)%", bar["style"])[1]) for bar in soup.select(".bar")]
    assert widths == data["percent"][0]
    assert soup.find("label").has_attr("hidden")


def test_it_needs_nothing_from_elsewhere(adata, xy):
    html = cell_probe(adata, coordinates=xy).html
    assert not re.search(r"https?://|src=|@import|url\(", html)
    assert len(repr(cell_probe(adata, coordinates=xy))) < 100, "a notebook stores that, too"


def test_names_cannot_end_the_script_or_become_markup(adata, xy):
    table = adata.obsm["scanvi_probabilities"]
    nasty = '</script><b>"CD4"</b>'
    adata.obsm["scanvi_probabilities"] = table.rename(columns={table.columns[0]: nasty})
    soup, data = parts(cell_probe(adata, coordinates=xy))
    assert data["labels"][0] == soup.select(".name")[0].get_text() == nasty
    assert soup.find("b") is None


def test_a_cell_without_a_true_type_and_a_table_without_truth_are_no_trouble(adata, xy):
    adata.obs.loc[adata.obs_names[:30], "truth"] = np.nan
    _, data = parts(cell_probe(adata, coordinates=xy))
    assert data["truth"].count(None) == 30
    del adata.obs["truth"]
    soup, data = parts(cell_probe(adata, coordinates=xy))
    assert set(data["truth"]) == {None}
    assert "truth" not in soup.p.get_text()


def test_a_tie_after_rounding_goes_to_the_higher_probability(adata, xy):
    table = adata.obsm["scanvi_probabilities"]
    table.iloc[0] = 0.0
    table.iloc[0, :2] = 0.499, 0.501
    _, data = parts(cell_probe(adata, coordinates=xy))
    at = data["cells"].index(adata.obs_names[0])
    assert data["percent"][at][:2] == [50, 50]
    assert data["best"][at] == 1


def test_what_is_no_number_is_refused(adata, xy):
    with pytest.raises(InputError, match="not a finite number"):
        cell_probe(adata, coordinates=np.full_like(xy, np.nan))
    adata.obsm["scanvi_probabilities"].iloc[3, 1] = np.nan
    with pytest.raises(InputError, match="says nothing of some cells"):
        cell_probe(adata, coordinates=xy)


def test_of_many_cells_some_are_shown(adata, xy, monkeypatch):
    monkeypatch.setattr("scanvi_tutorial.plotting.embedding._MOST", 25)
    _, data = parts(cell_probe(adata, coordinates=xy))
    assert len(set(data["cells"])) == len(data["x"]) == len(data["percent"]) == 25


def test_what_is_missing_is_named(adata, xy):
    with pytest.raises(InputError, match=r"shape \(60, 2\), not \(59, 2\)"):
        cell_probe(adata, coordinates=xy[1:])
    del adata.obsm["scanvi_probabilities"]
    with pytest.raises(InputError, match="label_probabilities"):
        cell_probe(adata, coordinates=xy)

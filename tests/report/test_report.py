"""The page on an annotation holds all that it shows, can be read without seeing, and begins with the warnings."""

import re
from html import unescape
from html.parser import HTMLParser

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.figure import Figure
from matplotlib.text import Text

from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.evaluation import scores
from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.report import figures, report_page, write_report
from scanvi_tutorial.report.figures import held_out_of, in_words

SMALL = ModelConfig(n_latent=4, gene_hidden=(16,), label_hidden=(8,), classifier_hidden=(8,))
QUICK = {"model_config": SMALL, "train_config": TrainConfig(max_epochs=3, batch_size=64), "fits": 2}
STRANGE = {"type A": "CD4/CD8", "type B": "<b>$x_1$</b>", "type C": "γδ T & co", "type D": "10"}


class Page(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def named():
    adata = load("simulated", cells=120, genes=40, per_label=6)
    del adata.uns["markers"]
    adata.obs["kind"] = adata.obs["label"].astype(str).replace(STRANGE)
    annotate(adata, "kind", **QUICK)
    return adata


@pytest.fixture(scope="module")
def text(named):
    return report_page(named, title="Blood of <one> donor")


def test_the_page_asks_no_other_address_for_anything(text):
    page = Page(text)
    sources = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not page.all("script")
    assert not page.all("link")
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_can_be_read_without_seeing_it(text):
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    assert all(len(image["alt"]) > 30 for image in page.all("img"))
    assert all("scope" in cell for cell in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_all_figures_are_there(text):
    headings = ("Cells per label", "Maps", "Highest label probability", "Hidden labels", "Calibration")
    for heading in (*headings, "History of the fit"):
        assert f"<h2>{heading}</h2>" in text
    assert len(Page(text).all("img")) == 6


def test_names_are_shown_as_they_are_and_never_become_markup(text):
    assert "&lt;b&gt;$x_1$&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "Blood of &lt;one&gt; donor" in text


def test_every_warning_stands_before_the_first_figure(named, text):
    about = dict(named.uns["scanvi"])
    assert len(about["warnings"])
    first = text.index("<img")
    for warning in about["warnings"]:
        assert text.index(str(escape(str(warning)))) < first


def test_scores_are_those_of_the_labels_that_were_hidden(named, text):
    given, held_out = held_out_of(named)
    assert (given == named.obs["kind"][given.index]).all()
    accuracy = scores(given, held_out)["accuracy"]
    assert f"{accuracy:.1%} were predicted correctly" in text


def rows_of(text):
    """Return the cells of the first table, a list a row."""
    body = text.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r">([^<>]*)</t[hd]>", row) for row in body.strip().splitlines()]


def test_the_page_begins_with_who_was_labeled_and_who_was_named(named, text):
    none = (named.obs["kind"] == "Unknown").sum()
    assert f"Of 120 cells, {120 - none} came with a label and kept it; {none} had none and were named." in text
    p, label, kind = (named.obs[name].astype(object) for name in ("scanvi_probability", "scanvi_label", "kind"))
    for name, given, new, now, median, low in rows_of(text):
        name = unescape(name)
        fresh = (label == name) & (kind == "Unknown")
        expected = (kind == name).sum(), (label == name).sum(), fresh.sum(), (p[fresh] < 0.5).sum()
        assert tuple(map(int, (given, now, new, low))) == expected
        assert median == in_words(np.median(p[fresh].astype(float)))


def test_labels_that_changed_are_counted_where_they_may(named):
    other = named.copy()
    other.uns["scanvi"] = named.uns["scanvi"] | {
        "parameters": named.uns["scanvi"]["parameters"] | {"keep_labels": False}
    }
    labeled = np.flatnonzero(other.obs["kind"] != "Unknown")[:3]
    codes = other.obs["scanvi_label"].cat.codes.to_numpy().copy()
    codes[labeled] = (codes[labeled] + 1) % 4
    other.obs["scanvi_label"] = pd.Categorical.from_codes(codes, other.obs["scanvi_label"].cat.categories)
    assert "came with a label, of which 3 changed; " in report_page(other)


@pytest.mark.parametrize(
    ("p", "said"),
    [(1.0, "1.00"), (0.9999, "above 0.99"), (0.9949, "0.99"), (0.5, "0.50"), (0.0049, "below 0.01"), (0.0, "0.00")],
)
def test_a_probability_is_never_rounded_to_certainty(p, said):
    assert in_words(p) == said


def test_simpler_methods_stand_beside_ours_the_best_first(named, text):
    compared = named.uns["scanvi"]["compared"]
    order = sorted(compared, key=lambda name: compared[name]["log_loss"])
    places = [text.index(f'<th scope="row">{name}</th><td class="number">') for name in order]
    assert places == sorted(places)
    for name in order:
        assert f"{compared[name]['accuracy']:.1%}</td><td" in text
        assert f"{compared[name]['log_loss']:.3f}</td>" in text


def test_a_page_can_be_made_of_a_file_read_again(named, text, tmp_path):
    plain = named.copy()
    plain.write_h5ad(tmp_path / "a.h5ad")
    again = report_page(anndata.read_h5ad(tmp_path / "a.h5ad"), title="Blood of <one> donor")
    undated = [re.sub(r"Made [^.]*", "", page) for page in (text, again)]
    assert undated[0] == undated[1]


def test_drawing_leaves_no_figure_open(named):
    before = plt.get_fignums()
    report_page(named)
    assert plt.get_fignums() == before


def test_few_cells_and_no_hidden_labels_give_a_page_without_those_figures(named):
    few = named[:8].copy()
    few.uns["scanvi"] = dict(named.uns["scanvi"])
    few.uns["scanvi"]["held_out"] = {"cells": [], "given": [], "probabilities": np.empty((0, 4))}
    text = report_page(few)
    assert "<h2>Maps</h2>" not in text
    assert "<h2>Calibration</h2>" not in text
    assert "<h2>Highest label probability</h2>" in text


@pytest.mark.slow
def test_more_labels_than_colors_can_be_drawn():
    rng = np.random.default_rng(0)
    adata = load("simulated", cells=120, genes=40)
    del adata.uns["markers"]
    adata.obs["kind"] = pd.Series(rng.permutation(np.arange(120) % 40), adata.obs_names).astype(str)
    annotate(adata, "kind", **(QUICK | {"train_config": TrainConfig(max_epochs=1, batch_size=64)}))
    assert "<h2>Maps</h2>" in report_page(adata)


def test_cells_that_nobody_annotated_are_refused():
    with pytest.raises(InputError, match="no annotation to report on"):
        report_page(load("simulated", cells=60))


def test_a_report_is_written_whole(named, tmp_path):
    path = write_report(named, tmp_path / "page.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_page_can_be_made_whatever_became_of_the_label_column(named, text):
    other = named.copy()
    other.obs["scanvi_label"] = other.obs["scanvi_label"].astype(str)
    again = report_page(other, title="Blood of <one> donor")
    assert rows_of(again) == rows_of(text)


def test_a_part_that_is_gone_and_a_place_that_is_none_are_named(named, tmp_path):
    other = named.copy()
    del other.obs["scanvi_label"]
    with pytest.raises(InputError, match="a part of it is gone"):
        report_page(other)
    other = named.copy()
    other.uns["scanvi"] = {key: value for key, value in named.uns["scanvi"].items() if key != "best_epoch"}
    with pytest.raises(InputError, match="a part of it is gone"):
        report_page(other)
    for place in (tmp_path / "no" / "r.html", "."):
        with pytest.raises(InputError, match="cannot be written"):
            write_report(named, place)


def test_long_names_are_cut_in_figures_and_whole_in_the_table(named, monkeypatch):
    long = {
        name: f"CD{place}-positive, CD56-bright natural killer cell of the blood" for place, name in enumerate("ABCD")
    }
    other = named.copy()
    parameters = named.uns["scanvi"]["parameters"]
    names = list(long.values())
    other.uns["scanvi"] = named.uns["scanvi"] | {"label_names": np.array(names, dtype=object), "parameters": parameters}
    other.uns["scanvi"]["held_out"] = {"cells": [], "given": [], "probabilities": np.empty((0, 4))}
    old = list(other.obs["scanvi_label"].cat.categories)
    other.obs["kind"] = other.obs["kind"].replace(dict(zip(old, names, strict=True)))
    other.obs["scanvi_label"] = other.obs["scanvi_label"].cat.rename_categories(names)
    other.obsm["scanvi_probabilities"] = other.obsm["scanvi_probabilities"].set_axis(names, axis=1)
    legends = []
    original = Figure.legend
    monkeypatch.setattr(Figure, "legend", lambda self, *a, **k: legends.append(original(self, *a, **k)) or legends[-1])
    page = report_page(other)
    assert all(name in page for name in names)
    said = [text.get_text() for text in legends[-1].get_texts()]
    assert len(said) == 4
    assert all(len(text) <= 32 and text.endswith("…") for text in said)


# After the answer: what somebody has made of the cells since


def numbers(text):
    """Return the first table: label -> cells given, named and now."""
    return {unescape(name): tuple(map(int, rest[:3])) for name, *rest in rows_of(text)}


@pytest.fixture
def changed(named, monkeypatch):
    monkeypatch.setattr(figures, "umap", lambda adata, seed: adata.obsm["X_scanvi"][:, :2])  # a map takes seconds
    return named.copy()


def test_a_renamed_category_is_a_row_after_those_of_the_answer(changed, text):
    before = numbers(text)
    changed.obs["scanvi_label"] = changed.obs["scanvi_label"].cat.rename_categories({"10": "_ten $x$"})
    after = numbers(report_page(changed))
    assert list(after) == [*before, "_ten $x$"]
    assert after["_ten $x$"] == (0, before["10"][1], before["10"][2])
    assert after["10"] == (before["10"][0], 0, 0)


def test_merged_and_reordered_categories_are_counted_as_they_are(changed, text):
    before = numbers(text)
    label = changed.obs["scanvi_label"].astype(object).replace({"10": "CD4/CD8"})
    changed.obs["scanvi_label"] = pd.Categorical(label, categories=["γδ T & co", "CD4/CD8", "<b>$x_1$</b>"])
    after = numbers(report_page(changed))
    assert list(after) == list(before)
    assert after["CD4/CD8"][2] == before["CD4/CD8"][2] + before["10"][2]
    assert after["10"][2] == 0


def test_cells_without_a_label_are_counted_in_no_row(changed):
    changed.obs["scanvi_label"] = changed.obs["scanvi_label"].cat.remove_categories(["10"])
    lost = changed.obs["scanvi_label"].isna().sum()
    page = report_page(changed)
    assert f" {lost} have no label now." in page
    assert sum(now for _, _, now in numbers(page).values()) == 120 - lost
    changed.obs["scanvi_label"] = pd.Categorical([None] * 120)
    assert "120 have no label now." in report_page(changed)


def test_refused_cells_are_counted_as_such_and_are_no_type(changed, text):
    changed.obs["scanvi_label"] = changed.obs["scanvi_label"].cat.rename_categories({"10": "none of these"})
    refused = changed.obs["scanvi_label"] == "none of these"
    changed.obs.loc[refused, "scanvi_probability"] = np.nan
    page = report_page(changed)
    assert f" {refused.sum()} are called none of these." in page
    assert "have no label now" not in page
    assert list(numbers(page)) == list(numbers(text))
    assert sum(now for _, _, now in numbers(page).values()) == 120 - refused.sum()


def test_a_label_column_that_is_gone_is_said(changed):
    changed.obs = changed.obs.rename(columns={"kind": "sort"})
    page = report_page(changed)
    assert "which came with a label is not known" in page
    assert {given for given, _, _ in numbers(page).values()} == {0}


@pytest.mark.parametrize("dtype", [object, "category"])
def test_a_label_column_of_other_names_is_counted_as_it_is(changed, text, dtype):
    changed.obs["kind"] = changed.obs["kind"].astype(object).replace({"10": "ten"}).astype(dtype)
    assert numbers(report_page(changed))["ten"][0] == numbers(text)["10"][0]


def test_of_cells_that_all_came_with_a_label_there_is_a_page(changed):
    """Where none is left without one, its name is not in the column anymore."""
    changed.uns["scanvi"]["parameters"]["unlabeled_category"] = "not sorted"
    changed.obs["kind"] = changed.obs["kind"].astype(object).replace({"Unknown": "not sorted"})
    some = changed[changed.obs["kind"] != "not sorted"].copy()
    assert f"Of {some.n_obs} cells, {some.n_obs} came with a label" in report_page(some)


def test_colors_of_another_annotation_do_not_matter(changed, text):
    changed.uns["scanvi_label_colors"] = ["red"]
    assert numbers(report_page(changed)) == numbers(text)


def test_what_cannot_be_drawn_is_refused_in_words(changed):
    with pytest.raises(InputError, match="no cells"):
        report_page(changed[:0].copy())
    other = changed.copy()
    other.obsm["scanvi_probabilities"].iloc[3] = np.nan
    with pytest.raises(InputError, match="says nothing of some cells"):
        report_page(other)
    changed.obsm["scanvi_probabilities"] = changed.obsm["scanvi_probabilities"].to_numpy()
    with pytest.raises(InputError, match="does not name its labels"):
        report_page(changed)


def test_figures_bear_names_as_they_are_under_any_settings(named, text, monkeypatch):
    said = set()
    original = Figure.savefig

    def save(figure, *args, **kwargs):
        said.update(found.get_text().replace(r"\$", "$") for found in figure.findobj(Text))
        original(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", save)
    hostile = {"text.usetex": True, "axes.unicode_minus": False, "font.size": 30, "savefig.bbox": "tight"}
    with plt.style.context(["dark_background", hostile]):
        page = report_page(named, title="Blood of <one> donor")
    assert said >= set(STRANGE.values())
    images = [[image["src"] for image in Page(each).all("img")] for each in (page, text)]
    assert images[0] == images[1]

"""The sketch of book/02_sketch.md, as it stands there, tells the story of the finished model."""

import pytest
from chapters import ROOT, code_cells
from pyro.infer.inspect import get_model_relations

from scanvi_tutorial.config import ModelConfig
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.teaching.diagrams import differences

SKETCHES = ("model_sketch", "guide_sketch")


def sources():
    """Return the code cells of the chapter, without magics, up to the last that writes a sketch."""
    cells = [cell.source for cell in code_cells(ROOT / "book" / "02_sketch.md")]
    written = {name: [i for i, cell in enumerate(cells) if f"def {name}(" in cell] for name in SKETCHES}
    assert all(len(places) == 1 for places in written.values()), written
    cells = cells[: max(written["model_sketch"] + written["guide_sketch"]) + 1]
    return ["\n".join(line for line in cell.splitlines() if not line.startswith("%")) for cell in cells]


@pytest.fixture(scope="module")
def chapter():
    """Run the chapter as far as both sketches are written, and return its names."""
    names = {}
    for cell in sources():
        exec(compile(cell, "02_sketch.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def finished(chapter):
    return SCANVI.from_anndata(chapter["adata"])


def data_of(chapter, labeled):
    return (chapter["x"], chapter["y"]) if labeled else (chapter["x"],)


both = pytest.mark.parametrize("labeled", [False, True], ids=["(x,)", "(x, y)"])


@both
def test_the_sketch_of_the_model_lacks_nothing_but_the_label_term(chapter, finished, labeled):
    data = data_of(chapter, labeled)
    sketch, final = (get_model_relations(program, data) for program in (chapter["model_sketch"], finished.model))
    assert differences(sketch, final) == (["only the second has label"] if labeled else [])


@both
def test_the_sketch_of_the_guide_lacks_nothing(chapter, finished, labeled):
    data = data_of(chapter, labeled)
    sketch, final = (get_model_relations(program, data) for program in (chapter["guide_sketch"], finished.guide))
    assert differences(sketch, final) == []


@both
def test_the_sketch_has_the_arrows_of_the_equations(chapter, labeled):
    """Written out by hand from the model on paper, so that sketch and model cannot be wrong together."""
    data = data_of(chapter, labeled)
    story = get_model_relations(chapter["model_sketch"], data)
    assert story["sample_sample"] == {"z1": [], "y": [], "z2": ["z1", "y"], "l": [], "x": ["z2", "l"]}
    assert sorted(story["observed"]) == (["x", "y"] if labeled else ["x"])
    guess = {"z2": [], "l": [], "y": ["z2"], "z1": ["z2", "y"]}
    if labeled:
        guess = {"z2": [], "l": [], "z1": ["z2"]}
    assert get_model_relations(chapter["guide_sketch"], data)["sample_sample"] == guess


@pytest.mark.parametrize(
    ("name", "line", "drifted", "complaint"),
    [
        ("model_sketch", "z2_decoder(z1, y)", "z2_decoder(z1, every)", "z2 has parents ['z1'] in the first"),
        ("model_sketch", "dist.LogNormal(", "dist.Normal(", "l has family Normal in the first"),
        ("model_sketch", '"z1"', '"u"', "only the second has z1"),
        ("model_sketch", 'plate("cells"', 'plate("droplets"', "x has plates ['droplets'] in the first"),
        ("model_sketch", ", obs=x", "", "x has observed False in the first"),
        ("guide_sketch", "z1_encoder(z2, y)", "z1_encoder(z2, every)", "z1 has parents ['z2'] in the first"),
        ("guide_sketch", "classifier(z2)", "classifier(z2_loc)", "y has parents [] in the first"),
        ("guide_sketch", 'pyro.sample("l"', 'pyro.sample("library"', "only the second has l"),
    ],
)
def test_a_sketch_that_drifts_is_caught(chapter, finished, name, line, drifted, complaint):
    source = next(cell for cell in sources() if f"def {name}(" in cell)
    assert source.count(line) == 1
    names = {**chapter, "every": chapter["y"]}
    exec(compile(source.replace(line, drifted), "02_sketch.md", "exec"), names)
    final = finished.model if name == "model_sketch" else finished.guide
    data = data_of(chapter, labeled=False)
    found = differences(get_model_relations(names[name], data), get_model_relations(final, data))
    assert any(sentence.startswith(complaint) for sentence in found), found


def test_another_likelihood_is_another_story(chapter):
    other = SCANVI.from_anndata(chapter["adata"], ModelConfig(gene_likelihood="nb"))
    data = data_of(chapter, labeled=False)
    (found,) = differences(get_model_relations(chapter["model_sketch"], data), get_model_relations(other.model, data))
    assert found == "x has family ZeroInflatedNegativeBinomial in the first and NegativeBinomial in the second"

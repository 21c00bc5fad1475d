"""What chapters teach with does what chapters say it does."""

import functools
import inspect

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.patches import Ellipse, FancyArrow, Rectangle
from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate
from pyro.infer.inspect import get_model_relations
from torch.nn.functional import one_hot

from scanvi_tutorial.config import ModelConfig, RunConfig
from scanvi_tutorial.teaching import listings as teaching
from scanvi_tutorial.teaching.diagrams import Stub, differences, plate_diagram, same_structure
from scanvi_tutorial.teaching.listings import expect_error, say, show_source

CELLS = 5
GENES = 6
LABELS = 4
LATENT = 3
X = torch.arange(float(CELLS * GENES)).reshape(CELLS, GENES) % 7
Y = one_hot(torch.arange(CELLS) % LABELS, LABELS).float()

z2_decoder = Stub(LATENT + LABELS, LATENT, LATENT, positive=[1])
x_decoder = Stub(LATENT, GENES, GENES)
z2l_encoder = Stub(GENES, LATENT, LATENT, 1, 1, positive=[1, 3])
z1_encoder = Stub(LATENT + LABELS, LATENT, LATENT, positive=[1])
classifier = Stub(LATENT, LABELS)


def sketch(x, y=None):
    with pyro.plate("cells", len(x)):
        z1 = pyro.sample("z1", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
        y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(LABELS)), obs=y)
        z2 = pyro.sample("z2", dist.Normal(*z2_decoder(z1, y)).to_event(1))
        ell = pyro.sample("l", dist.LogNormal(x.new_zeros(1), 1.0).to_event(1))
        gate, shares = x_decoder(z2)
        rate = ell * shares.softmax(-1)
        pyro.sample("x", dist.ZeroInflatedPoisson(rate, gate_logits=gate).to_event(1), obs=x)


def sketch_guide(x, y=None):
    with pyro.plate("cells", len(x)):
        z2_loc, z2_scale, l_loc, l_scale = z2l_encoder(x.log1p())
        z2 = pyro.sample("z2", dist.Normal(z2_loc, z2_scale).to_event(1))
        pyro.sample("l", dist.LogNormal(l_loc, l_scale).to_event(1))
        if y is None:
            y = pyro.sample("y", dist.OneHotCategorical(logits=classifier(z2)))
        pyro.sample("z1", dist.Normal(*z1_encoder(z2, y)).to_event(1))


@pytest.fixture
def relations():
    with torch.random.fork_rng():
        return {
            "story": get_model_relations(sketch, (X,)),
            "labeled": get_model_relations(sketch, (X, Y)),
            "guide": get_model_relations(sketch_guide, (X,)),
        }


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    plt.close("all")


def markdown(shown):
    return shown.data


@pytest.mark.parametrize("thing", [RunConfig, RunConfig.from_env, say, RunConfig.train, ModelConfig.tutorial])
def test_a_listing_is_the_source_and_says_where_it_stands(thing):
    listing = markdown(show_source(thing))
    bare = thing.fget if isinstance(thing, property) else thing
    place, *code = listing.removeprefix("~~~~python\n").removesuffix("\n~~~~").splitlines()
    lines, first = inspect.getsourcelines(bare)
    module = inspect.getmodule(bare).__name__.replace(".", "/")
    assert place == f"# {module}.py, line {first}"
    assert [line.strip() for line in code] == [line.strip() for line in lines]
    assert not code[0].startswith(" "), "a method is shown as if it stood alone"


def test_a_listing_sees_through_decorators():
    @functools.wraps(say)
    def wrapper(*sentences):
        return say(*sentences)

    assert markdown(show_source(wrapper)) == markdown(show_source(say))


@pytest.mark.parametrize("thing", [len, 3, ModelConfig(), torch.randn])
def test_a_listing_of_what_has_no_python_source_is_refused(thing):
    with pytest.raises(TypeError, match="written in Python"):
        show_source(thing)


def test_say_joins_sentences_into_one_paragraph(monkeypatch):
    shown = []
    monkeypatch.setattr(teaching, "display", shown.append)
    say(f"There are **{6 * 7}** cells.", "  None is empty.")
    assert [markdown(item) for item in shown] == ["There are **42** cells. None is empty."]


def test_an_expected_error_is_shown_in_its_own_words(capsys):
    with expect_error(ValueError):
        ModelConfig(dropout_rate=2)
    assert capsys.readouterr().out == "ValueError: dropout_rate must be in [0, 1), got 2.\n"


def test_an_expected_error_that_does_not_come_fails():
    with pytest.raises(AssertionError, match="KeyError or ValueError"), expect_error(KeyError, ValueError):
        pass


def test_another_error_than_the_expected_one_passes_through():
    with pytest.raises(ZeroDivisionError), expect_error(ValueError):
        1 / 0  # noqa: B018


def test_a_stub_has_the_right_shapes_under_enumeration():
    loc, scale = Stub(7, 3, 3)(torch.zeros(5, 3), torch.zeros(4, 1, 4))
    assert loc.shape == scale.shape == (4, 5, 3)


def test_a_stub_with_one_output_returns_it_bare():
    assert Stub(3, 4)(torch.zeros(5, 3)).shape == (5, 4)


def test_a_stub_keeps_the_outputs_positive_that_it_is_told_to():
    free, scale = Stub(3, 50, 50, positive=[1])(torch.ones(2, 3))
    assert (scale > 0).all()
    assert (free < 0).any()


def test_a_stub_depends_on_its_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    weights = [Stub(3, 4, seed=seed).weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_stub_of_the_wrong_width_fails_where_it_is_called():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Stub(3, 4)(torch.zeros(5, 2))


@pytest.mark.parametrize("y", [None, Y], ids=["unlabeled", "labeled"])
def test_a_sketch_of_stubs_runs_under_enumeration(y):
    pyro.clear_param_store()
    elbo = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    svi = SVI(sketch, config_enumerate(sketch_guide, "parallel", expand=True), pyro.optim.Adam({"lr": 1e-3}), elbo)
    with torch.random.fork_rng():
        assert torch.isfinite(torch.tensor(svi.evaluate_loss(X, y)))


def test_an_observed_label_is_the_one_difference_between_the_cells(relations):
    found = differences(relations["story"], relations["labeled"])
    assert found == ["y has observed False in the first and True in the second"]


def test_a_changed_family_arrow_plate_or_site_is_another_story(relations):
    story = relations["story"]
    sites, families = story["sample_sample"], story["sample_dist"]
    for change, word in (
        ({"sample_dist": {**families, "l": "Gamma"}}, "family"),
        ({"sample_sample": {**sites, "x": ["z2"]}}, "parents"),
        ({"plate_sample": {}}, "plates"),
        (
            {
                "sample_sample": {**story["sample_sample"], "b": []},
                "sample_dist": {**story["sample_dist"], "b": "Normal"},
            },
            "b",
        ),
    ):
        found = differences(story, {**story, **change})
        assert any(word in line for line in found), word
        assert not same_structure(story, {**story, **change})


def test_the_order_of_sites_and_parents_tells_nothing(relations):
    story = relations["story"]
    turned = {site: parents[::-1] for site, parents in reversed(story["sample_sample"].items())}
    assert same_structure(story, {**story, "sample_sample": turned})


def test_sites_that_are_named_are_left_out_of_the_comparison(relations):
    guide, story = relations["guide"], relations["story"]
    assert differences(story, guide, besides=["x", "z1", "z2", "y"]) == []


def artists(fig, kind):
    return [artist for artist in fig.axes[0].get_children() if type(artist) is kind]


def test_a_diagram_has_a_circle_a_site_an_arrow_a_parent_and_a_box_a_plate(relations):
    fig = plate_diagram(relations["story"])
    drawn = [circle for circle in artists(fig, Ellipse) if circle.get_edgecolor()[3] > 0]
    arrows = sum(map(len, relations["story"]["sample_sample"].values()))
    assert len(drawn) == 5
    assert len(artists(fig, FancyArrow)) == arrows == 4
    words = {text.get_text() for text in fig.axes[0].texts}
    assert {
        "$z_1$",
        "$z_2$",
        "$y$",
        r"$\ell$",
        "$x$",
        "cells",
        "Normal",
        "Log\nNormal",
        "One\nHot\nCategorical",
    } <= words


def test_what_is_observed_is_shaded(relations):
    shaded = {}
    for name in ("story", "labeled"):
        circles = [c for c in artists(plate_diagram(relations[name]), Ellipse) if c.get_edgecolor()[3] > 0]
        shaded[name] = sum(circle.get_facecolor()[:3] != (1.0, 1.0, 1.0) for circle in circles)
    assert shaded == {"story": 1, "labeled": 2}


def test_diagrams_stand_side_by_side_under_their_titles_and_fit_the_page(relations):
    fig = plate_diagram({"an unlabeled cell": relations["story"], "a labeled cell": relations["labeled"]})
    assert {"an unlabeled cell", "a labeled cell"} <= {text.get_text() for text in fig.axes[0].texts}
    assert fig.get_figwidth() < 7.2


def test_data_that_a_guide_reads_are_squares_with_arrows_of_their_own(relations):
    plain = plate_diagram(relations["guide"])
    fig = plate_diagram(relations["guide"], given={"x": ["z2", "l"]})
    assert len(artists(fig, Rectangle)) == len(artists(plain, Rectangle)) + 1
    assert len(artists(fig, FancyArrow)) == len(artists(plain, FancyArrow)) + 2


def test_sites_of_another_model_are_laid_out_apart_from_each_other():
    def other():
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pyro.plate("genes", 3):
            theta = pyro.sample("theta", dist.Gamma(rate, 1.0))
            with pyro.plate("cells", 4):
                depth = pyro.sample("depth", dist.LogNormal(0.0, 1.0))
                pyro.sample("counts", dist.Poisson(theta * depth), obs=torch.ones(4, 3))

    with torch.random.fork_rng():
        fig = plate_diagram(get_model_relations(other))
    centers = [circle.center for circle in artists(fig, Ellipse) if circle.get_edgecolor()[3] > 0]
    gaps = [((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5 for i, a in enumerate(centers) for b in centers[:i]]
    assert len(centers) == 4
    assert min(gaps) > 1.0


def test_a_diagram_of_nothing_or_of_unknown_sites_is_refused(relations):
    with pytest.raises(ValueError, match="no site at all"):
        plate_diagram({})
    with pytest.raises(ValueError, match="no site z9"):
        plate_diagram(relations["guide"], given={"x": ["z9"]})

"""Settings refuse what makes no sense, and the environment is read in the order that the README gives."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scanvi_tutorial.config import DATASETS, ModelConfig, RunConfig, TrainConfig, no_progress, progress_bar


@pytest.mark.parametrize(
    ("environ", "smoke"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "1", "SCANVI_SMOKE": ""}, True),
        ({"SCANVI_SMOKE": "1"}, True),
        ({"SCANVI_SMOKE": "ON", "CI": ""}, True),
        ({"CI": "true", "SCANVI_SMOKE": "0"}, False),
    ],
)
def test_scanvi_smoke_is_asked_before_ci(environ, smoke):
    assert RunConfig.from_env(environ).smoke is smoke


def test_the_full_profile_runs_on_real_counts_unless_told_otherwise():
    assert RunConfig.from_env({"SCANVI_DATASET": "facs"}).dataset == "facs"
    assert RunConfig.from_env({}).dataset == RunConfig.from_env({"SCANVI_DATASET": ""}).dataset == "pbmc68k"


def test_the_smoke_profile_runs_on_simulated_counts_whatever_data_set_is_named():
    assert RunConfig.from_env({"SCANVI_SMOKE": "1", "SCANVI_DATASET": "pbmc"}).dataset == "simulated"


def test_the_data_folder_is_taken_from_the_environment_with_the_home_folder_filled_in():
    assert RunConfig.from_env({}).data_dir is None
    assert RunConfig.from_env({"SCANVI_DATA_DIR": ""}).data_dir is None
    assert RunConfig.from_env({"SCANVI_DATA_DIR": "~/counts"}).data_dir == Path.home() / "counts"


def test_the_environment_of_the_process_is_read_by_default(monkeypatch):
    monkeypatch.setenv("SCANVI_SMOKE", "0")
    monkeypatch.setenv("SCANVI_DATASET", "facs-t")
    assert RunConfig.from_env() == RunConfig(dataset="facs-t", data_dir=RunConfig.from_env().data_dir, quiet=True)


def test_an_unknown_data_set_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(ValueError, match="'pbmc3k'") as error:
        RunConfig.from_env({"SCANVI_DATASET": "pbmc3k"})
    assert all(name in str(error.value) for name in DATASETS)


@pytest.mark.parametrize("name", ["SCANVI_SMOKE", "TQDM_DISABLE"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or 0, got 'perhaps'"):
        RunConfig.from_env({name: "perhaps"})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ModelConfig, "gene_likelihood", "gaussian"),
        (ModelConfig, "library", "guessed"),
        (ModelConfig, "norm", "group"),
        (ModelConfig, "n_latent", 0),
        (ModelConfig, "label_weight", -1.0),
        (ModelConfig, "label_weight", float("nan")),
        (ModelConfig, "dropout_rate", 1.0),
        (ModelConfig, "gene_hidden", (128, 0)),
        (TrainConfig, "max_epochs", 0),
        (TrainConfig, "max_steps", 0),
        (TrainConfig, "min_depth", 0.0),
        (TrainConfig, "objective", "both"),
        (TrainConfig, "batch_size", 1),
        (TrainConfig, "labeled_batch_size", 0),
        (TrainConfig, "patience", 0),
        (TrainConfig, "learning_rate", 0.0),
        (TrainConfig, "warmup", 1.5),
        (TrainConfig, "held_out", 0.6),
        (RunConfig, "dataset", "mnist"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(kind, name, value):
    with pytest.raises(ValueError, match="SCANVI_DATASET" if kind is RunConfig else name):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("classifier_hidden", ()), ("dropout_rate", 0.0), ("label_weight", 0.0), ("n_latent", 1), ("norm", "none")],
)
def test_settings_at_their_limits_are_accepted(name, value):
    assert getattr(replace(ModelConfig(), **{name: value}), name) == value


def test_the_tutorials_sizes_are_those_of_pyro():
    tutorial = ModelConfig.tutorial()
    assert (tutorial.gene_hidden, tutorial.label_hidden, tutorial.classifier_hidden) == ((100,), (50,), (50,))
    assert tutorial.n_latent == 10


def test_the_smoke_profile_changes_sizes_and_not_the_kind_of_training():
    smoke, full = RunConfig(smoke=True, dataset="simulated"), RunConfig()
    assert smoke.train.max_epochs < full.train.max_epochs
    assert (smoke.train.objective, smoke.train.seed, smoke.train.device) == (
        full.train.objective,
        full.train.seed,
        "auto",
    )
    assert smoke.draws < full.draws


def test_a_progress_bar_shows_steps_unless_the_environment_is_quiet(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(progress_bar(range(3), "fitting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert list(progress_bar(range(3), "fitting", unit="epoch")) == [0, 1, 2]
    shown = capsys.readouterr()
    assert "fitting" in shown.err
    assert "3/3" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("before", [None, "0"])
def test_bars_are_silenced_in_the_block_alone(monkeypatch, before):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if before is not None:
        monkeypatch.setenv("TQDM_DISABLE", before)
    with no_progress():
        inside = os.environ["TQDM_DISABLE"]
    assert inside == "1"
    assert os.environ.get("TQDM_DISABLE") == before


def test_whole_numbers_may_come_as_fractions_and_widths_as_a_list():
    assert TrainConfig(max_epochs=25.0, seed=3.0) == TrainConfig(max_epochs=25, seed=3)
    assert ModelConfig(gene_hidden=[64.0, 32]) == ModelConfig(gene_hidden=(64, 32))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"max_epochs": True}, "max_epochs must be a whole number, got True"),
        ({"max_epochs": 2.5}, "max_epochs must be a whole number, got 2.5"),
        ({"batch_size": "128"}, "batch_size must be a whole number, got '128'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
    ],
)
def test_a_setting_of_another_type_is_refused_in_words(settings, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**settings)


def test_a_width_alone_is_refused_in_words():
    with pytest.raises(ValueError, match=r"gene_hidden must be a list of whole numbers, .* got 128"):
        ModelConfig(gene_hidden=128)

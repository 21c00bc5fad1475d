"""The command line does what the package does, says errors in a paragraph, and never leaves half a file."""

import os
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from scanvi_tutorial import cli
from scanvi_tutorial.annotation.answer import write_answer
from scanvi_tutorial.cli import cells as commands
from scanvi_tutorial.cli import main
from scanvi_tutorial.cli.shared import write, write_csv
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.model.scanvi import SCANVI

SMALL = ModelConfig(n_latent=4, gene_hidden=(16,), label_hidden=(8,), classifier_hidden=(8,))
SHORT = TrainConfig(max_epochs=2, batch_size=64)


def run(*words, code=0):
    """Run a command; its exit code must be `code`, and no exception may reach the user."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def file(tmp_path):
    adata = load("simulated", cells=100, genes=40, per_label=5)
    del adata.uns["markers"]
    adata.obs["kind"] = adata.obs["label"].astype(str).replace({"type A": "CD4/CD8", "Unknown": "not sorted"})
    adata.layers["umi"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture(autouse=True)
def _short_fits(monkeypatch):
    """Make fits of a second of the whole ones; which options reach them is tested here, and not how good they are."""
    whole = commands.annotate_cells
    quick = {"model_config": SMALL, "train_config": SHORT, "fits": 2}
    monkeypatch.setattr(commands, "annotate_cells", lambda *a, **k: whole(*a, **(k | quick)))
    of_files = commands.annotate_files
    monkeypatch.setattr(commands, "annotate_files", lambda *a, **k: of_files(*a, **(k | quick)))
    monkeypatch.setattr(commands, "TrainConfig", lambda seed: TrainConfig(max_epochs=2, seed=seed))


def test_annotate_writes_cells_table_report_and_model_and_predict_uses_it(file, tmp_path):
    names = ["out.h5ad", "out.csv", "out.html", "model.safetensors"]
    out, csv, report, model = (tmp_path / name for name in names)
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--layer", "umi", "--seed", 3]
    output = run(*words, "--out", out, "--csv", csv, "--report", report, "--model", model)
    adata, table = anndata.read_h5ad(out), pd.read_csv(csv, index_col="cell")
    assert list(adata.obs["scanvi_label"]) == list(table["scanvi_label"])
    np.testing.assert_allclose(table["CD4/CD8"], adata.obsm["scanvi_probabilities"]["CD4|CD8"])
    assert "CD4/CD8" in adata.uns["scanvi"]["label_names"]
    assert adata.uns["scanvi"]["parameters"]["seed"] == 3
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "Note: Fewer than 10 labeled cells" in output
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", *names}

    run("predict", file, "--model", model, "--layer", "umi", "--out", tmp_path / "again.h5ad", "--quiet")
    again = anndata.read_h5ad(tmp_path / "again.h5ad")
    np.testing.assert_allclose(again.obsm["X_scanvi"], adata.obsm["X_scanvi"], atol=1e-5)


def test_coarse_labels_come_from_a_table_or_from_a_column(file, tmp_path):
    adata = anndata.read_h5ad(file)
    adata.obs["parent"] = np.where(adata.obs["truth"].isin(["type B", "type C"]), "B or C", "")
    names = sorted(set(adata.obs["kind"]) - {"not sorted"})
    adata.write_h5ad(tmp_path / "parents.h5ad")
    table = adata.obs["kind"].astype(str)
    table[(adata.obs["kind"] == "not sorted") & (adata.obs["parent"] == "B or C")] = "B or C"
    adata.obs["kind"] = table
    adata.write_h5ad(tmp_path / "coarse.h5ad")
    (tmp_path / "tree.csv").write_text("B or C,type B\nB or C,type C\n")
    words = ["--labels", "kind", "--unlabeled", "not sorted", "--quiet", "--out"]
    run("annotate", tmp_path / "parents.h5ad", *words, tmp_path / "1.h5ad", "--coarse", "parent")
    run("annotate", tmp_path / "coarse.h5ad", *words, tmp_path / "2.h5ad", "--coarse", tmp_path / "tree.csv")
    tables = [anndata.read_h5ad(tmp_path / f"{n}.h5ad").obsm["scanvi_probabilities"] for n in (1, 2)]
    pd.testing.assert_frame_equal(*tables)
    assert [name.replace("|", "/") for name in tables[0]] == names
    (tmp_path / "tree.csv").write_text("B or C,type B,type C\n")
    words = ["annotate", tmp_path / "coarse.h5ad", *words, tmp_path / "3.h5ad", "--coarse", tmp_path / "tree.csv"]
    assert "two columns" in run(*words, code=1)


def test_doubtful_labels_are_written_as_a_table(file, tmp_path):
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--quiet", "--out", tmp_path / "o.h5ad"]
    run(*words, "--doubtful", tmp_path / "doubtful.csv")
    assert list(pd.read_csv(tmp_path / "doubtful.csv")) == ["cell", "given", "more_probable", "probability"]


def test_given_labels_are_kept_unless_rename_is_said(file, tmp_path):
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--quiet", "--overwrite"]
    out = tmp_path / "out.h5ad"
    for extra, kept in ((), True), (["--rename"], False):
        assert run(*words, "--out", out, *extra) == ""
        assert anndata.read_h5ad(out).uns["scanvi"]["parameters"]["keep_labels"] == kept


def test_train_keeps_one_fit_which_predict_refuses(file, tmp_path):
    said = run("train", file, "--labels", "kind", "--unlabeled", "not sorted", "--model", tmp_path / "model")
    assert "held-out bound" in said
    assert SCANVI.load(tmp_path / "model").label_names
    said = run("predict", file, "--model", tmp_path / "model", "--out", tmp_path / "out.h5ad", code=1)
    assert "a single fit" in said
    assert not (tmp_path / "out.h5ad").exists()


def test_sets_and_cells_of_no_type_are_asked_for_by_options(file, tmp_path):
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--layer", "umi"]
    asked = ["--coverage", 0.8, "--reject", 0.2]
    report = tmp_path / "out.html"
    run(*words, *asked, "--out", tmp_path / "out.h5ad", "--model", tmp_path / "model", "--report", report)
    adata = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert {"scanvi_set", "scanvi_set_size", "scanvi_p_known"} <= set(adata.obs)
    assert adata.uns["scanvi"]["guarantee"]["coverage"] == 0.8
    page = report.read_text(encoding="utf-8")
    assert page.index("What is promised") < page.index("Read this first")
    words = ["predict", file, "--model", tmp_path / "model", "--layer", "umi", *asked]
    run(*words, "--out", tmp_path / "again.h5ad", "--quiet")
    again = anndata.read_h5ad(tmp_path / "again.h5ad")
    assert (again.obs["scanvi_set"].astype(str) == adata.obs["scanvi_set"].astype(str)).mean() > 0.8


@pytest.mark.parametrize("what", ["out", "csv", "report", "model"])
def test_nothing_is_overwritten_and_nothing_computed_unless_asked(file, tmp_path, monkeypatch, what):
    monkeypatch.setattr(commands, "annotate_cells", None)  # would fail if it were called
    paths = {name: tmp_path / f"x.{name}" for name in ("csv", "report", "model")} | {"out": tmp_path / "x.h5ad"}
    paths[what].write_text("mine")
    options = [word for name, path in paths.items() for word in (f"--{name}", path)]
    assert "exists already" in run("annotate", file, "--labels", "kind", *options, code=1)
    assert paths[what].read_text() == "mine"


def test_a_folder_that_is_not_there_is_said_before_anything_is_computed(file, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "annotate_cells", None)
    assert "There is no folder" in run("annotate", file, "--labels", "kind", "--out", tmp_path / "no/out.h5ad", code=1)


FAULTS = {
    "no file": (["annotate", "nowhere.h5ad", "--labels", "kind"], "There is no file"),
    "no column": (["annotate", "in.h5ad", "--labels", "kidn"], "did you mean 'kind'?"),
    "no layer": (["annotate", "in.h5ad", "--labels", "kind", "--layer", "counts"], "There is no layer 'counts'"),
    "no model": (["predict", "in.h5ad", "--model", "nowhere"], "There is no file nowhere"),
    "one label": (["annotate", "one.h5ad", "--labels", "kind"], "one.h5ad: adata.obs['kind'] holds one label alone"),
    "no counts": (["annotate", "logs.h5ad", "--labels", "kind"], "say --layer 'umi'"),
    "no batch": (["train", "in.h5ad", "--labels", "kind", "--model", "m", "--batch", "run"], "no column 'run'"),
}


@pytest.mark.parametrize(("words", "said"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_used_is_one_paragraph_and_exit_code_1(file, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    adata = anndata.read_h5ad(file)
    adata.X = np.log1p(adata.X)
    adata.write_h5ad("logs.h5ad")
    adata.X, adata.obs["kind"] = adata.layers["umi"], ["CD4", "Unknown"] * 50
    adata.write_h5ad("one.h5ad")
    out = [] if words[0] == "train" else ["--out", "out.h5ad"]
    output = run(*words, *out, code=1)
    assert output.startswith("Error: ")
    assert said in output
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", "logs.h5ad", "one.h5ad"}


@pytest.mark.parametrize("words", [["annotate"], ["annotate", "in.h5ad", "--out", "x"], ["fly"], ["--seed"]])
def test_a_command_that_is_not_understood_is_exit_code_2(words):
    assert "Usage:" in run(*words, code=2)


@pytest.mark.parametrize("command", [[], ["annotate"], ["train"], ["predict"], ["datasets", "fetch"]])
def test_help_shows_an_example(command):
    assert "Example" in run(*command, "--help")
    assert "scanvi-tutorial " + " ".join(command) in run(*command, "--help")


@pytest.fixture
def donors(file, tmp_path):
    (tmp_path / "donors").mkdir()
    whole = anndata.read_h5ad(file)
    for name, rows in (("a", slice(0, 50)), ("b", slice(50, 100))):
        whole[rows].copy().write_h5ad(tmp_path / "donors" / f"{name}.h5ad")
    return tmp_path / "donors"


def test_a_folder_of_files_is_annotated_into_a_folder_and_their_cells_are_counted(donors, tmp_path):
    words = ["annotate", donors, "--labels", "kind", "--unlabeled", "not sorted", "--layer", "umi", "--learn-from", 60]
    said = run(*words, "--out", tmp_path / "out", "--report", tmp_path / "out.html")
    assert "Learned from 60 of the 100 cells in 2 files." in said
    copies = [anndata.read_h5ad(tmp_path / "out" / f"{name}.h5ad") for name in "ab"]
    labels = pd.concat([copy.obs["scanvi_label"].astype(str) for copy in copies])
    for name, cells in labels.value_counts().items():
        assert f"{cells:>8,}  {name}" in said
    assert "(2 files)" in (tmp_path / "out.html").read_text()
    assert "exists already" in run(*words, "--out", tmp_path / "out", code=1)
    assert "--csv works with one file" in run(*words, "--out", tmp_path / "new", "--csv", tmp_path / "t.csv", code=1)
    report = ["--report", donors / "a.h5ad", "--overwrite"]
    assert "the file that is read" in run(*words, "--out", tmp_path / "new", *report, code=1)
    assert not (tmp_path / "new").exists()


def test_train_takes_several_files_and_leaves_no_counts_behind(donors, tmp_path):
    words = ["train", donors / "a.h5ad", donors / "b.h5ad", "--labels", "kind", "--unlabeled", "not sorted"]
    said = run(*words, "--model", tmp_path / "model.safetensors")
    assert "2 epochs" in said
    assert SCANVI.load(tmp_path / "model.safetensors").n_cells == 100
    assert not list(tmp_path.glob("counts-*"))


@pytest.mark.slow
def test_train_with_two_processes_keeps_one_model(donors, tmp_path):
    words = ["train", donors, "--labels", "kind", "--unlabeled", "not sorted", "--processes", "2"]
    command = [
        sys.executable,
        "-m",
        "scanvi_tutorial",
        *map(str, words),
        "--model",
        str(tmp_path / "model.safetensors"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "held-out bound" in done.stdout
    assert SCANVI.load(tmp_path / "model.safetensors").n_cells == 100


def test_bars_are_drawn_on_a_terminal_alone(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--overwrite"]
    assert "2 fits" not in run(*words, "--out", tmp_path / "out.h5ad")
    # click's runner puts a stream of its own in the place of stderr, so a terminal is made of that
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    said = run(*words, "--out", tmp_path / "out.h5ad")
    assert "2 fits: 100%" in said
    assert "fit: " not in said.replace("fits: ", "")
    assert os.environ["TQDM_DISABLE"] == "0"


def test_data_sets_are_listed_fetched_and_found(tmp_path, monkeypatch):
    assert "pbmc68k" in run("datasets", "list") == run("datasets")
    run("datasets", "fetch", "simulated", "--out", tmp_path / "s.h5ad")
    assert anndata.read_h5ad(tmp_path / "s.h5ad").n_obs == 400
    assert "did you mean" in run("datasets", "fetch", "facts", code=1)
    monkeypatch.setenv("SCANVI_DATA_DIR", str(tmp_path))
    assert run("datasets", "where").strip() == str(tmp_path)


def test_the_doctor_says_versions_device_and_cache():
    said = run("doctor")
    for word in ("torch", "pyro-ppl", "device", "cores", "fits of the book"):
        assert word in said


def test_what_cannot_be_written_leaves_the_old_file_whole(file, tmp_path):
    adata = anndata.read_h5ad(file)
    out = tmp_path / "out.h5ad"
    out.write_bytes(b"old")
    adata.uns["mine"] = object()
    with pytest.raises(ValueError, match="could not be written"):
        write(adata, out)
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", "out.h5ad"}


@pytest.mark.slow
def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "scanvi_tutorial", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage: scanvi-tutorial" in done.stdout
    assert cli.main.name == "main"


CLASHES = {
    "a table over the cells": ({"out": "x.h5ad", "csv": "x.h5ad"}, "x.h5ad is the name of another result already"),
    "a page over the table": (
        {"out": "x.h5ad", "csv": "x", "report": "./x"},
        "x is the name of another result already",
    ),
    "a table over what is read": ({"out": "x.h5ad", "csv": "in.h5ad"}, "in.h5ad is the file that is read already"),
    "a page over what is read": ({"out": "in.h5ad", "report": "in.h5ad"}, "in.h5ad is the"),
    "a name without its ending": ({"out": "x.txt"}, "x.txt is not an .h5ad file, by its name"),
}


@pytest.mark.parametrize(("places", "said"), CLASHES.values(), ids=CLASHES)
def test_no_result_takes_the_place_of_another_or_of_what_is_read(file, tmp_path, monkeypatch, places, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "annotate_cells", None)  # would fail if it were called
    before = file.read_bytes()
    options = [word for name, place in places.items() for word in (f"--{name}", place)]
    assert said in run("annotate", "in.h5ad", "--labels", "kind", "--overwrite", *options, code=1)
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad"}


def test_cells_may_be_written_over_what_was_read_if_asked(file):
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--out", file]
    assert "exists already" in run(*words, code=1)
    run(*words, "--overwrite")
    assert "scanvi_label" in anndata.read_h5ad(file).obs


def test_settings_of_the_book_do_not_stop_commands_for_own_cells(file, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANVI_DATASET", "mine")
    monkeypatch.setenv("SCANVI_SMOKE", "perhaps")
    run("annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--out", tmp_path / "out.h5ad")
    assert "must be 1 or 0" in run("datasets", "where", code=1)


def test_one_batch_is_passed_over_by_train_too(file, tmp_path):
    adata = anndata.read_h5ad(file)
    adata.obs["run"] = "one"
    adata.write_h5ad(file)
    words = ["train", file, "--labels", "kind", "--unlabeled", "not sorted", "--batch", "run"]
    assert "All cells are of one batch" in run(*words, "--model", tmp_path / "m")


def test_labels_called_like_columns_of_the_table_stay_apart(file, tmp_path):
    adata = anndata.read_h5ad(file)
    names = ["cell", "scanvi_label", "T"]
    table = pd.DataFrame(1 / 3, index=adata.obs_names, columns=names)
    write_answer(adata, table, np.zeros((adata.n_obs, 2)), about={"warnings": []}, columns=table[[]])
    write_csv(adata, tmp_path / "out.csv")
    columns = ["cell", "scanvi_label", "scanvi_probability", "label cell", "label scanvi_label", "T"]
    assert list(pd.read_csv(tmp_path / "out.csv")) == columns


def test_what_a_kill_left_behind_is_removed_a_day_later(file, tmp_path):
    old, fresh = (tmp_path / f".{name}.scanvi-part" for name in ("0a", "0b"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    write(anndata.read_h5ad(file), tmp_path / "out.h5ad")
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", "out.h5ad", fresh.name}


# nothing that was computed is lost


def fails(error):
    """Return a function that raises `error` whatever it is called with."""

    def fail(*_args, **_options):
        raise error

    return fail


ERRORS = {
    "no space": OSError(28, "No space left on device"),
    "read-only disk": OSError(30, "Read-only file system"),
    "no permission": PermissionError(13, "Permission denied"),
    "a folder that is gone": FileNotFoundError(2, "No such file or directory"),
    "a disk error": OSError(5, "Input/output error"),
    "no memory": MemoryError(),
    "anndata": RuntimeError("cannot write"),
    "a key": KeyError("_index"),
    "HDF5": TypeError("Can't implicitly convert non-string objects to strings"),
    "a key pressed": KeyboardInterrupt(),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("step", ["the cells", "the page"])
def test_labels_are_kept_whatever_fails_at_the_last_step(file, tmp_path, monkeypatch, step, error):
    if step == "the cells":
        monkeypatch.setattr("anndata.AnnData.write_h5ad", fails(error))
    else:
        monkeypatch.setattr(commands, "write_report", fails(error))
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted"]
    out, report = tmp_path / "out.h5ad", tmp_path / "r.html"
    output = run(*words, "--out", out, "--report", report, code=1)
    place = tmp_path / "out_labels.csv" if step == "the cells" else out
    assert f"The labels are kept in {place}" in output
    if step == "the cells":
        table = pd.read_csv(place, index_col="cell")
        assert len(table) == 100
        assert {"CD4/CD8", "scanvi_label"} <= set(table)
    else:
        assert "scanvi_label" in anndata.read_h5ad(out).obs
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", place.name}


def test_labels_are_kept_in_another_folder_where_that_of_the_result_is_gone(file, tmp_path, monkeypatch):
    gone, here = tmp_path / "gone", tmp_path / "here"
    gone.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    whole = commands.annotate_cells
    monkeypatch.setattr(commands, "annotate_cells", lambda *a, **k: (whole(*a, **k), gone.rmdir()))
    (here / "out_labels.csv").write_text("mine")
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted"]
    assert "The labels are kept in" in run(*words, "--out", gone / "out.h5ad", code=1)
    assert (here / "out_labels.csv").read_text() == "mine"
    (kept,) = (path for path in here.iterdir() if path.name != "out_labels.csv")
    assert len(pd.read_csv(kept)) == 100


def test_a_model_that_cannot_be_saved_loses_no_label(file, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "scanvi_tutorial.annotation.annotator.Annotator.save", fails(OSError(28, "No space left on device"))
    )
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--model", tmp_path / "m"]
    assert "The labels are kept in" in run(*words, "--out", tmp_path / "out.h5ad", code=1)
    assert len(pd.read_csv(tmp_path / "out_labels.csv")) == 100


def test_what_cannot_be_written_is_refused_before_the_fits(file, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "annotate_cells", None)  # would fail if it were called
    monkeypatch.setattr(commands, "predict_cells", None)
    adata = anndata.read_h5ad(file)
    adata.obs["mixed"] = [1, "a"] * 50
    monkeypatch.setattr(commands, "read_h5ad", lambda _path: adata)
    for words in (["annotate", file, "--labels", "kind"], ["predict", file, "--model", file]):
        assert "adata.obs['mixed'] cannot be kept" in run(*words, "--out", tmp_path / "out.h5ad", code=1)


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_cells_that_came_compressed_are_written_so(file, tmp_path, compression):
    anndata.read_h5ad(file).write_h5ad(file, compression=compression)
    run("annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--out", tmp_path / "out.h5ad")
    for path in (file, tmp_path / "out.h5ad"):
        with h5py.File(path) as store:
            assert store["X/data"].compression == compression


def test_doubts_about_the_data_are_said_before_the_fits_and_once(file, tmp_path, monkeypatch):
    adata = anndata.read_h5ad(file)
    adata.obs["kind"] = adata.obs["kind"].astype(str).replace({"type B": "CD4 / CD8"})
    adata.write_h5ad(file)
    words = ["annotate", file, "--labels", "kind", "--unlabeled", "not sorted", "--overwrite"]
    whole = run(*words, "--out", tmp_path / "out.h5ad")
    assert whole.count("may be one type written in several ways") == 1
    monkeypatch.setattr("scanvi_tutorial.annotation.methods.Ensemble.fit", fails(FloatingPointError("here")))
    assert "may be one type" in run(*words, "--out", tmp_path / "out.h5ad", code=1)
    assert "Note" not in run(*words, "--out", tmp_path / "out.h5ad", "--quiet", code=1)


def test_the_home_may_be_written_as_a_tilde(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--labels", "kind", "--unlabeled", "not sorted", "--out=~/out.h5ad", "--csv=~/out.csv"]
    run("annotate", f"~/{file.name}", *words)
    assert {"out.h5ad", "out.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_a_model_that_is_read_and_what_is_no_file_are_not_replaced(file, tmp_path):
    model = tmp_path / "m.safetensors"
    run("train", file, "--labels", "kind", "--unlabeled", "not sorted", "--model", model)
    before = model.read_bytes()
    words = ["predict", file, "--model", model, "--out", tmp_path / "out.h5ad", "--overwrite", "--csv"]
    assert "is the model that is read" in run(*words, model, code=1)
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in run(*words, tmp_path / "pipe", code=1)
    assert model.read_bytes() == before


def test_a_link_stays_a_link_and_a_private_file_stays_private(file, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.h5ad").touch(mode=0o600)
    (elsewhere / "real.h5ad").chmod(0o600)
    link = tmp_path / "out.h5ad"
    link.symlink_to(elsewhere / "real.h5ad")
    write(anndata.read_h5ad(file), link)
    assert link.is_symlink()
    assert anndata.read_h5ad(elsewhere / "real.h5ad").n_obs == 100
    assert (elsewhere / "real.h5ad").stat().st_mode & 0o777 == 0o600

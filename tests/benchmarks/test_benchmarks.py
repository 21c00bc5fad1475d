"""What benchmarks print can be traced to code and hardware, and no method sees more than another, or the truth."""

import inspect
import json
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from chapters import ROOT

import scanvi_tutorial as st

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))
peers, peers_worker, provenance = map(import_module, ("peers", "peers_worker", "provenance"))

# calls every cell by the first label, and tells what it was shown
FAKE = """
import os, sys
import pandas as pd

def first_label(adata, *, labels_key, seed, dies_on=None):
    if seed == dies_on:
        sys.exit("the cells were spilt")
    names = [name for name in adata.obs[labels_key].cat.categories if name != "Unknown"]
    table = pd.DataFrame(0.0, adata.obs_names, names)
    table[names[0]] = 1.0
    parts = ("uns", "obsm", "varm", "obsp", "varp", "layers")
    seen = {part: list(getattr(adata, part)) for part in parts} | {"obs": list(adata.obs), "var": list(adata.var)}
    table.attrs = {"seen": seen, "seed": seed, "omp": os.environ["OMP_NUM_THREADS"], "first": names[0]}
    return table
"""


@pytest.fixture
def fake(tmp_path):
    """Return a maker of methods that run `first_label` in a process of their own, by the true worker."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "fake_method.py").write_text(FAKE)
    python = script(folder / "python", f'PYTHONPATH="{folder}" exec "{sys.executable}" "$@"')
    return lambda **settings: peers.Method("fake_method:first_label", settings, python)


def script(path: Path, line: str) -> Path:
    """Write an executable that stands for a Python."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def simulated(seed: int):
    return st.seed_labels(st.load("simulated", cells=80, genes=30), 3, "random", seed)


def test_provenance_tells_date_versions_hardware_and_commit():
    told = provenance.provenance()
    assert set(told) == {"date", "python", "versions", "hardware", "git"}
    assert abs(datetime.now(UTC) - datetime.fromisoformat(told["date"])) < timedelta(minutes=2)
    assert {"torch", "pyro-ppl", "scikit-learn", "scanvi-tutorial"} <= set(told["versions"])
    assert set(told["hardware"]) == {"processor", "cores", "memory_gib", "threads", "system"}
    assert told["hardware"]["processor"]
    assert told == json.loads(json.dumps(told))


def test_provenance_names_neither_machine_nor_folder():
    told = json.dumps(provenance.provenance())
    assert not re.search(rf"\b{re.escape(platform.node() or 'nameless')}\b", told)
    assert not re.search(r'"[^"]*(^|\W)/\w+/', told), "a path"


def test_provenance_says_whether_code_was_changed_since_the_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.provenance()["git"] is None
    (tmp_path / "scanvi_tutorial").mkdir()
    (tmp_path / "scanvi_tutorial" / "model.py").write_text("w = 50\n")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (["init"], ["add", "."], [*author, "commit", "--no-verify", "-m", "A model"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    before = provenance.provenance()["git"]
    (tmp_path / "notes.md").write_text("not code\n")
    assert provenance.provenance()["git"] == before
    assert not before["uncommitted"]
    (tmp_path / "scanvi_tutorial" / "model.py").write_text("w = 200\n")
    assert provenance.provenance()["git"] == before | {"uncommitted": True}


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_results_file_is_whole_or_the_old_one(monkeypatch, tmp_path):
    out = provenance.write_json(tmp_path / "new" / "results.json", {"rows": [1]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        provenance.write_json(out, {"rows": [float("nan")]})
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        provenance.write_json(out, {"rows": [1, 2]})
    assert json.loads(out.read_text()) == {"rows": [1]}
    assert list(out.parent.iterdir()) == [out]


def test_a_method_is_shown_counts_and_seed_labels_alone():
    adata = simulated(0)
    adata.layers["more"], adata.raw = adata.X.copy(), adata.copy()
    shown = peers.bare(adata)
    assert list(shown.obs) == ["label"]
    assert [list(getattr(shown, part)) for part in ("var", "uns", "obsm", "varm", "obsp", "varp", "layers")] == [[]] * 7
    assert shown.raw is None
    assert (shown.X != adata.X).nnz == 0


@pytest.mark.slow
def test_each_method_runs_apart_on_the_same_draws_and_is_scored_here(fake):
    methods = {"one": fake(), "another": fake()}
    results = peers.compare(methods, simulated, [3])
    rows, adata = results["rows"], simulated(3)
    first, scored = adata.obs["truth"].cat.categories[0], adata.obs["label"] == "Unknown"
    assert [(row["method"], row["seed"]) for row in rows] == [("one", 3), ("another", 3)]
    for row in rows:
        assert row["accuracy"] == pytest.approx((adata.obs["truth"][scored] == first).mean(), abs=1e-5)
        assert 0 <= row["added_mb"] < row["peak_mb"]
    told = results["methods"]["another"]["resolved"]
    assert (told["seed"], told["omp"]) == (3, "1")
    assert {part: names for part, names in told["seen"].items() if names} == {"obs": ["label"]}
    assert results["data"]["seed_cells"] == 12


@pytest.mark.slow
def test_a_method_that_dies_is_named_with_the_end_of_what_it_said_and_earlier_draws_are_kept(
    fake, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(peers, "METHODS", {"clumsy": fake(dies_on=1)})
    out = tmp_path / "results" / "peers.json"
    with pytest.raises(SystemExit, match=r"clumsy failed on draw 1: .* exit code 1 .*\n  the cells were spilt"):
        peers.main(["--dataset", "simulated", "--draws", "3", "--out", str(out)])
    kept = out.read_text()
    assert [row["seed"] for row in json.loads(kept)["rows"]] == [0]
    assert json.loads(kept)["settings"]["how"] == "random"
    assert str(tmp_path) not in kept
    assert str(ROOT) not in kept
    assert list(out.parent.iterdir()) == [out]
    assert "draw 0: clumsy: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo out of luck; kill -9 $$", r"was killed by signal 9 \(out of memory\?\).*\n  out of luck$"),
        ("seq 100; exit 3", r"ended with exit code 3 .*\n  86\n(  \d+\n)*  100$"),
        ("true", r"ended with exit code 0 and left no answer.*\n  \(nothing\)$"),
    ],
)
def test_however_a_process_ends_without_an_answer_the_error_says_so(tmp_path, line, said):
    method = peers.Method("any:thing", {}, script(tmp_path / "python", line))
    with pytest.raises(peers.WorkerError, match=rf"^theirs failed on draw 7: its process {said}"):
        peers.work("theirs", method, tmp_path / "cells.h5ad", tmp_path, seed=7)


def test_without_the_environment_of_the_peers_the_error_names_the_command(tmp_path):
    method = peers.Method("any:thing", {}, tmp_path / "missing" / "python")
    with pytest.raises(peers.WorkerError, match=r"theirs has no Python to run under: .*`make peers` makes it"):
        peers.work("theirs", method, tmp_path / "cells.h5ad", tmp_path, seed=0)


def test_the_table_shows_the_mean_and_the_range_over_draws():
    rows = [
        {"method": name, "seed": seed, "accuracy": right, "log_loss": 1.0, "seconds": 9.6, "peak_mb": 512.4}
        for name, seed, right in (("ours", 0, 0.4), ("theirs", 0, 0.5), ("ours", 1, 0.7), ("theirs", 1, 0.5))
    ]
    head, ours, theirs = (re.split(r"\s{2,}", line.strip()) for line in peers.show(rows).splitlines())
    assert head == ["accuracy", "log-loss", "seconds", "peak MB"]
    assert ours == ["ours", "0.550 (0.400–0.700)", "1.000 (1.000–1.000)", "10 (10–10)", "512 (512–512)"]
    assert theirs[:2] == ["theirs", "0.500 (0.500–0.500)"]


@pytest.mark.parametrize("name", peers.METHODS)
def test_every_method_takes_the_settings_that_it_is_given(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "scvi", ModuleType("scvi"))  # it lives in another environment
    monkeypatch.delitem(sys.modules, "peers_scvi", raising=False)
    method = peers.METHODS[name]
    module, function = method.call.split(":")
    call = getattr(import_module(module), function)
    inspect.signature(call).bind("cells", labels_key="label", seed=0, **method.settings)
    json.dumps(dict(method.settings))
    monkeypatch.delitem(sys.modules, "peers_scvi", raising=False)


def test_our_method_is_the_fit_of_the_book(tiny):
    adata = tiny()
    config = st.TrainConfig(seed=5, max_epochs=2)
    model = st.SCANVI.from_anndata(adata, st.ModelConfig(gene_likelihood="nb"), seed=5)
    st.fit(model, adata, config)
    ours = partial(import_module("peers_ours").scanvi, model={"gene_likelihood": "nb"}, train={"max_epochs": 2})
    table = ours(adata, seed=5)
    assert table.equals(st.label_probabilities(model, adata, seed=5))
    json.dumps(table.attrs)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells mapped files from other memory")
def test_pages_of_a_mapped_file_are_not_memory_that_is_held(tmp_path):
    np.save(tmp_path / "mapped.npy", np.ones(10**8 // 8))
    added = {}
    for mode in ("r", None):
        with peers_worker.Held() as held:
            block = np.load(tmp_path / "mapped.npy", mmap_mode=mode)
            assert block.sum() == 10**8 // 8
            time.sleep(0.1)
        added[mode] = held.added
        del block
    assert added["r"] < 10
    assert abs(added[None] - 100) < 10

"""The grid of chapter 8: every task once, nothing lost, no method that sees the truth."""

import json
import sys
from dataclasses import asdict
from importlib import import_module

import numpy as np
import pytest
from chapters import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
grid = import_module("grid")

CHOSEN = [grid.Task("simulated", "random", 10, draw, "baselines") for draw in range(3)]


def row_of(task):
    return [asdict(task) | {"method": "none", "accuracy": 0.5}]


def test_tasks_are_unique_and_those_of_fewer_draws_are_among_those_of_more():
    every = grid.tasks(5)
    assert len(set(every)) == len(every)
    assert set(grid.tasks(2)) <= set(every)


def test_a_run_that_was_cut_short_does_only_what_is_missing(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(grid, "work", lambda task: done.append(task) or row_of(task))
    path = tmp_path / "grid.json"
    grid.run(CHOSEN[:2], path)
    table = grid.run(CHOSEN, path)
    assert done == CHOSEN
    assert sorted(table["draw"]) == [0, 1, 2]


def test_rows_of_other_code_are_put_aside_and_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "work", row_of)
    path = tmp_path / "grid.json"
    grid.run(CHOSEN, path)
    monkeypatch.setattr(grid, "code_digest", lambda *paths: "other")
    assert len(grid.run(CHOSEN[:1], path)) == 1
    assert len(json.loads((tmp_path / "grid.old.json").read_text())["rows"]) == 3


def test_accepted_rows_are_gone_on_from_and_keep_the_commit_of_their_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "work", row_of)
    path = tmp_path / "grid.json"
    monkeypatch.setattr(grid, "provenance", lambda: measured("one"))
    grid.run(CHOSEN[:2], path)
    before = json.loads(path.read_text())
    monkeypatch.setattr(grid, "code_digest", lambda *paths: "other")
    grid.accept(path)
    assert json.loads(path.read_text()) == before | {"code": "other"}
    monkeypatch.setattr(grid, "provenance", lambda: measured("two"))
    assert len(grid.run(CHOSEN, path)) == 3
    after = json.loads(path.read_text())
    assert after["git"] == {"commit": "one"}
    assert [part["git"]["commit"] for part in after["continued"]] == ["two"]


def test_rows_of_other_libraries_are_put_aside_whatever_has_been_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "work", row_of)
    path = tmp_path / "grid.json"
    grid.run(CHOSEN, path)
    monkeypatch.setattr(grid, "versions", lambda packages: {"torch": "0.1"})
    grid.accept(path)
    assert len(grid.run(CHOSEN[:1], path)) == 1


def measured(commit):
    return {"versions": grid.versions(grid.PACKAGES), "git": {"commit": commit}}


def test_a_task_that_fails_is_named_and_what_came_before_is_kept(tmp_path, monkeypatch):
    def work(task):
        if task.draw == 1:
            raise ValueError("broken")
        return row_of(task)

    monkeypatch.setattr(grid, "work", work)
    path = tmp_path / "grid.json"
    with pytest.raises(RuntimeError, match="simulated random 10 1 baselines failed"):
        grid.run(CHOSEN, path)
    assert [row["draw"] for row in json.loads(path.read_text())["rows"]] == [0]


def test_no_baseline_sees_the_truth_and_every_one_is_scored(monkeypatch):
    """With the truth of the unlabeled cells permuted, all answers stay, and all scores change."""
    monkeypatch.setitem(grid.OPTIONS, "simulated", {"cells": 120})
    grid._load.cache_clear()
    task = grid.Task("simulated", "markers", 5, 0, "baselines")
    said = []
    scored = grid.scores
    monkeypatch.setattr(grid, "scores", lambda adata, p: said.append(p) or scored(adata, p))
    plain = grid.work(task)
    cells = grid.cells_of(task)
    cells.obs["truth"] = np.random.default_rng(0).permutation(cells.obs["truth"].to_numpy())
    monkeypatch.setattr(grid, "cells_of", lambda task: cells)
    monkeypatch.setattr(grid, "bayes_probabilities", lambda adata: said[6])
    permuted = grid.work(task)
    assert [row["method"] for row in plain] == [*grid.BASELINES, grid.SHALLOW, grid.PRUNED, "Bayes", "largest class"]
    for before, after in zip(said[:6], said[7:13], strict=True):
        assert before.equals(after)
    assert plain[0]["accuracy"] > permuted[0]["accuracy"] + 0.2
    grid._load.cache_clear()

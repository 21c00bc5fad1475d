"""Folders of tensors and metadata: what is written comes back, what is damaged is refused, nothing is lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from scanvi_tutorial import persistence
from scanvi_tutorial.persistence import PersistenceError, read_folder, write_folder

TENSORS = {"weight": torch.randn(3, 2, dtype=torch.float64), "steps": torch.tensor(7)}
METADATA = {"genes": ["CD4", "CD8A"], "loc": 7.25, "layer": None}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "deep" / "model", TENSORS, METADATA)


def test_what_is_written_comes_back_to_the_bit(folder):
    tensors, metadata = read_folder(folder)
    assert metadata == METADATA
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_saving_again_replaces_and_leaves_nothing_beside(folder):
    write_folder(folder, {"weight": torch.zeros(1)}, {"genes": []})
    tensors, metadata = read_folder(folder)
    assert list(tensors) == ["weight"]
    assert metadata == {"genes": []}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "metadata.json"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing"])
def test_a_damaged_folder_is_refused_by_name(folder, name, damage):
    file = folder / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if damage == "truncated" else b"\x80\x04garbage")
    with pytest.raises(PersistenceError, match=name):
        read_folder(folder)


def test_a_newer_schema_is_refused(folder):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(PersistenceError, match="schema 99"):
        read_folder(folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PersistenceError, match="left as it is"):
        write_folder(tmp_path, TENSORS, METADATA)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_save_leaves_the_old_model_whole(folder, monkeypatch):
    def out_of_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(persistence, "save_file", out_of_disk)
    with pytest.raises(OSError, match="No space"):
        write_folder(folder, {"weight": torch.zeros(1)}, {})
    tensors, metadata = read_folder(folder)
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    assert metadata == METADATA
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_an_interrupt_between_the_renames_brings_the_old_model_back(folder, monkeypatch):
    original, calls = Path.rename, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) == 2:  # the old one is out of the way, the new one not yet in place
            raise KeyboardInterrupt
        return original(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, {"weight": torch.zeros(1)}, {})
    tensors, metadata = read_folder(folder)
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    assert metadata == METADATA
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_threads_that_save_to_one_folder_take_turns(tmp_path):
    def save(value):
        for _ in range(10):
            write_folder(tmp_path / "model", {"value": torch.tensor(value)}, {"value": value})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    tensors, metadata = read_folder(tmp_path / "model")
    assert tensors["value"].item() == metadata["value"]


def test_an_empty_folder_named_by_a_dot_is_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    write_folder("here/.", TENSORS, METADATA)
    assert read_folder("here")[1] == METADATA

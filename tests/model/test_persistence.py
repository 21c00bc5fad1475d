"""Folders of tensors and metadata: what is written comes back, what is damaged is refused, nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch

from scanvi_tutorial.inputs.files import write_atomically
from scanvi_tutorial.model.persistence import (
    PersistenceError,
    holds,
    read_folder,
    remove_folder,
    versions,
    write_folder,
)

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


def file_of_tensors(folder):
    (file,) = folder.glob("tensors-*.safetensors")
    return file


@pytest.mark.parametrize("part", ["tensors", "metadata"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "empty"])
def test_a_damaged_folder_is_refused_by_name(folder, part, damage):
    file = file_of_tensors(folder) if part == "tensors" else folder / "metadata.json"
    data = {"truncated": file.read_bytes()[: file.stat().st_size // 2], "garbage": b"\x80\x04garbage", "empty": b""}
    file.unlink()
    if damage != "missing":
        file.write_bytes(data[damage])
    with pytest.raises(PersistenceError, match=part):
        read_folder(folder)
    write_folder(folder, TENSORS, METADATA)  # and can be saved to again, as the message says
    assert read_folder(folder)[1] == METADATA


def test_every_bit_of_the_tensors_counts(folder):
    """A number that became another is no damage that safetensors could see."""
    file = file_of_tensors(folder)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    safetensors.torch.load(bytes(data))
    with pytest.raises(PersistenceError, match="is damaged: its content is not what"):
        read_folder(folder)


def changed(folder, **changes):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("schema", [3, 99, 0, "2", None, [2]])
def test_a_newer_schema_and_one_that_never_was_are_refused(folder, schema):
    changed(folder, schema=schema)
    with pytest.raises(PersistenceError, match=r"was written with schema .* reads 1 to 2"):
        read_folder(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"model"', "{}", '{"schema": 2}', "[" * 100_000])
def test_json_of_anything_else_is_refused(folder, text):
    (folder / "metadata.json").write_text(text)
    with pytest.raises(PersistenceError, match=r"metadata\.json is damaged"):
        read_folder(folder)


def test_tensors_are_read_from_the_folder_alone(folder, tmp_path):
    file_of_tensors(folder).rename(tmp_path / "elsewhere.safetensors")
    changed(folder, tensors={"file": "../../elsewhere.safetensors", "sha256": "0" * 64})
    with pytest.raises(PersistenceError, match="elsewhere"):
        read_folder(folder)


def folder_of_schema_1(folder):
    """Write what version 0.1.0 wrote at first: two files, no digest."""
    folder.mkdir()
    safetensors.torch.save_file(TENSORS, folder / "tensors.safetensors")
    versions_then = {"torch": "2.13.0", "pyro": "1.9.2"}
    (folder / "metadata.json").write_text(json.dumps({"schema": 1, **METADATA, "versions": versions_then}))
    return folder


def test_the_first_schema_is_read_and_replaced_by_the_second_when_saved(tmp_path):
    folder = folder_of_schema_1(tmp_path / "model")
    tensors, metadata = read_folder(folder)
    assert metadata == METADATA
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    write_folder(folder, tensors, metadata)
    assert file_of_tensors(folder)
    assert not (folder / "tensors.safetensors").exists()
    assert read_folder(folder)[1] == METADATA


def test_versions_of_what_a_result_depends_on_are_kept(folder):
    kept = json.loads((folder / "metadata.json").read_text())["versions"]
    assert kept == versions()
    assert {"python", "torch", "pyro-ppl", "numpy"} < set(kept)
    assert kept["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_a_checkpoint_is_no_model(tmp_path):
    folder = write_folder(tmp_path / "c", TENSORS, METADATA, kind="checkpoint")
    with pytest.raises(PersistenceError, match="no saved model, but a checkpoint"):
        read_folder(folder)
    with pytest.raises(PersistenceError, match="left as it is"):
        write_folder(folder, TENSORS, METADATA)
    assert read_folder(folder, kind="checkpoint")[1] == METADATA


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PersistenceError, match="left as it is"):
        write_folder(tmp_path, TENSORS, METADATA)
    with pytest.raises(PersistenceError, match="left as it is"):
        holds(tmp_path)
    remove_folder(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_metadata_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "metadata.json").write_text('{"schema": 2, "title": "thesis"}')
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PersistenceError, match="left as it is"):
        write_folder(tmp_path, TENSORS, METADATA)
    assert "thesis" in (tmp_path / "metadata.json").read_text()


def test_what_others_put_beside_a_model_stays(folder):
    (folder / "notes.txt").write_text("the good one")
    write_folder(folder, {"weight": torch.zeros(1)}, {})
    remove_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_removed_is_gone_and_may_be_removed_again(folder):
    assert holds(folder)
    remove_folder(folder)
    remove_folder(folder)
    assert not folder.exists()
    assert not holds(folder)


@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("first", [False, True], ids=["again", "first"])
def test_a_save_that_ends_at_any_moment_leaves_the_old_or_the_new(tmp_path, monkeypatch, moment, first):
    """Each rename in turn fails, before or after; what is left is whole, and can be saved to again."""
    folder, renames, original = tmp_path / "model", [], Path.replace
    if not first:
        write_folder(folder, TENSORS, METADATA)

    def interrupted(path, target):
        renames.append(path)
        last = len(renames) == moment // 2 + 1
        if last and moment % 2 == 0:
            raise KeyboardInterrupt
        original(path, target)
        if last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_folder(folder, {"weight": torch.zeros(1)}, {"new": True})
    if moment == 3:
        assert read_folder(folder)[1] == {"new": True}
    elif first:
        assert not holds(folder)
    else:
        assert read_folder(folder)[1] == METADATA
    write_folder(folder, TENSORS, {"again": True})
    assert read_folder(folder)[1] == {"again": True}
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    def out_of_disk(number):
        raise OSError("No space left on device")

    write_atomically(tmp_path / "table.csv", b"old")
    monkeypatch.setattr(os, "fsync", out_of_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "table.csv", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


PROGRAM = """
import sys, itertools, torch
from scanvi_tutorial.model.persistence import write_folder
print("saving", flush=True)
for number in itertools.count():
    write_folder(sys.argv[1], {"value": torch.full((50_000,), float(number))}, {"value": float(number)})
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_model(tmp_path):
    folder, draw = tmp_path / "model", random.Random(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "saving\n"
        time.sleep(0.05 + draw.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if holds(folder):
            tensors, metadata = read_folder(folder)
            assert (tensors["value"] == metadata["value"]).all()
    write_folder(folder, TENSORS, METADATA)
    assert len(list(folder.iterdir())) == 2


def test_a_reader_sees_the_old_or_the_new_while_others_save(tmp_path):
    folder = write_folder(tmp_path / "model", {"value": torch.tensor(0)}, {"value": 0})

    def save(value):
        for _ in range(15):
            write_folder(folder, {"value": torch.tensor(value)}, {"value": value})

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(save, value) for value in (1, 2)]
        while not all(future.done() for future in running):
            tensors, metadata = read_folder(folder)
            assert tensors["value"].item() == metadata["value"]


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


@pytest.mark.parametrize("name", ["metadata.json", "tensors-mine.safetensors"])
def test_files_of_somebody_else_that_are_called_like_ours_are_left_alone(tmp_path, name):
    (tmp_path / name).write_text('{"title": "thesis"}')
    with pytest.raises(PersistenceError, match="left as it is"):
        write_folder(tmp_path, TENSORS, METADATA)
    assert "thesis" in (tmp_path / name).read_text()


@pytest.mark.parametrize("tensors", [{"sha256": None}, {}])
def test_tensors_without_a_digest_are_not_believed(folder, tensors):
    changed(folder, tensors={"file": file_of_tensors(folder).name} | tensors)
    with pytest.raises(PersistenceError, match=r"metadata\.json is damaged"):
        read_folder(folder)


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PersistenceError, match="cannot be written"):
        write_folder(tmp_path / "file" / "model", TENSORS, METADATA)

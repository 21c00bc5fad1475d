"""Saved files: what is written comes back, what is no file of ours is refused and left alone, a kill loses nothing."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from scanvi_tutorial.model.persistence import PersistenceError, is_saved, read_file, versions, write_file

TENSORS = {"weight": torch.randn(3, 2, dtype=torch.float64), "steps": torch.tensor(7)}
ABOUT = {"genes": ["CD4", "CD8A"], "loc": 0.1 + 0.2, "layer": None}


@pytest.fixture
def path(tmp_path):
    return write_file(tmp_path / "model.safetensors", TENSORS, ABOUT)


def test_what_is_written_comes_back_to_the_bit(path):
    tensors, about = read_file(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_any_reader_of_safetensors_opens_the_file(path):
    """So nothing in it is pickled."""
    assert torch.equal(load_file(path)["weight"], TENSORS["weight"])
    with safetensors.safe_open(path, "pt") as file:
        (text,) = file.metadata().values()
    assert json.loads(text)["versions"] == versions()
    assert versions()["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_others_may_read_a_saved_file_as_they_may_any_new_file(path):
    (path.parent / "new").touch()
    assert path.stat().st_mode == (path.parent / "new").stat().st_mode


def test_saving_again_replaces_and_leaves_nothing_beside(path):
    assert is_saved(path)
    write_file(path, {"weight": torch.zeros(1)}, {"genes": []})
    tensors, about = read_file(path)
    assert list(tensors) == ["weight"]
    assert about == {"genes": []}
    assert list(path.parent.iterdir()) == [path]


def kept(end):
    return lambda path: path.write_bytes(path.read_bytes()[:end])


def headed(**changes):
    text = json.dumps({"schema": 1, "kind": "model", "about": ABOUT} | changes)
    return lambda path: save_file(TENSORS, path, {"scanvi_tutorial": text})


REFUSED = {
    "truncated": (kept(-1), "no saved model, or a damaged one"),
    "its header cut": (kept(40), "no saved model, or a damaged one"),
    "empty": (kept(0), "no saved model, or a damaged one"),
    "text": (lambda path: path.write_text("years of work"), "no saved model, or a damaged one"),
    "another program's": (lambda path: save_file(TENSORS, path), "no saved model, or a damaged one"),
    "a checkpoint": (headed(kind="checkpoint"), "is the checkpoint of a fit, and not a single fit"),
    "newer": (headed(schema=2), "written with schema 2, and this version of scanvi_tutorial reads 1"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_is_refused_and_not_saved_over(path, change, said):
    change(path)
    before = path.read_bytes()
    for use in (read_file, is_saved, lambda path: write_file(path, TENSORS, ABOUT)):
        with pytest.raises(PersistenceError, match=rf"{path.name} .*{said}"):
            use(path)
    assert path.read_bytes() == before


def test_what_is_not_there_is_said_with_its_place(tmp_path):
    assert not is_saved(tmp_path / "model")
    with pytest.raises(PersistenceError, match=r"no file .*model \(looked in "):
        read_file(tmp_path / "model")
    with pytest.raises(PersistenceError, match=r"cannot be read \("):
        read_file(tmp_path)
    for use in (is_saved, lambda path: write_file(path, TENSORS, ABOUT)):
        with pytest.raises(PersistenceError, match=r"There is no folder .*elsewhere"):
            use(tmp_path / "elsewhere" / "model")


def test_a_part_that_a_kill_left_is_no_model_and_no_hindrance(path):
    part = path.with_name(".0a.scanvi-part.safetensors")
    part.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PersistenceError, match="damaged"):
        read_file(part)
    write_file(path, TENSORS, {"again": True})
    assert read_file(path)[1] == {"again": True}


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(path, monkeypatch):
    def out_of_disk(number):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", out_of_disk)
    with pytest.raises(PersistenceError, match=r"cannot be written \(No space"):
        write_file(path, {"weight": torch.zeros(1)}, {})
    assert read_file(path)[1] == ABOUT
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_or_the_new_while_others_save(path):
    def save(value):
        for _ in range(15):
            write_file(path, {"value": torch.tensor(value)}, {"value": value})

    save(0)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(save, value) for value in (1, 2)]
        while not all(future.done() for future in running):
            tensors, about = read_file(path)
            assert tensors["value"].item() == about["value"]


KILLS = """
import itertools, os, random, signal, sys, time
import torch
from scanvi_tutorial.model.persistence import read_file, write_file

def save(number):
    write_file(sys.argv[1], {"value": torch.full((50_000,), float(number))}, {"value": float(number)})

save(0)
draw = random.Random(0)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        for number in itertools.count():
            save(number)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tensors, about = read_file(sys.argv[1])
    assert (tensors["value"] == about["value"]).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to be killed are forked")
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_file(tmp_path, kills):
    subprocess.run([sys.executable, "-c", KILLS, tmp_path / "model", str(kills)], check=True, timeout=120)

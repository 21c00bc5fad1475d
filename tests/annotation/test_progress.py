"""One bar for several fits: their steps add up, and steps that an early end saves count as taken."""

import threading
import time

import pytest

from scanvi_tutorial.annotation import progress
from scanvi_tutorial.annotation.progress import bar_of_steps, count_steps


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(progress, "_LOOK_EVERY", 0.15)  # a bar is drawn ten times a second at most


def test_the_bar_counts_the_steps_of_all_fits_and_those_that_an_early_end_saves(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with bar_of_steps("two fits", 2, 40) as folder:
        with count_steps(folder, "one", 40) as after_step:
            for _ in range(10):
                after_step()
            time.sleep(0.6)
            assert "| 10/80 " in capsys.readouterr().err
        with count_steps(folder, "other", 40) as after_step:
            for _ in range(3):
                after_step()
    assert "| 80/80 " in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("silent", ["0", "1"])
def test_a_fit_that_fails_leaves_no_thread_and_no_folder(monkeypatch, capsys, silent):
    monkeypatch.setenv("TQDM_DISABLE", silent)
    before = threading.active_count()

    def failing():
        nonlocal folder
        with bar_of_steps("a fit", 1, 5) as folder, count_steps(folder, "one", 5) as after_step:
            after_step()
            raise FloatingPointError

    folder = None
    with pytest.raises(FloatingPointError):
        failing()
    assert ("| 1/5 " in capsys.readouterr().err) == (silent == "0")
    assert threading.active_count() == before
    assert not folder.exists()

"""One bar for several fits: their steps add up, a fit that ends early has its steps behind it."""

import time

import pytest

from scanvi_tutorial.training import progress
from scanvi_tutorial.training.progress import bar_of_steps, count_steps


@pytest.fixture(autouse=True)
def _shown(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr(progress, "_LOOK_EVERY", 0.15)  # a bar is drawn ten times a second at most


def test_the_bar_counts_the_steps_of_all_fits_and_those_that_an_early_end_saves(capsys):
    with bar_of_steps("two fits", 2, 40) as folder:
        with count_steps(folder, "one", 40) as after_step:
            for _ in range(10):
                after_step()
            time.sleep(0.4)
            assert "| 10/80 " in capsys.readouterr().err
        with count_steps(folder, "other", 40) as after_step:
            for _ in range(3):
                after_step()
    assert "| 80/80 " in capsys.readouterr().err
    assert not folder.exists()


def test_the_time_that_is_promised_is_that_of_the_steps_so_far_times_all(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LEARN_FOR", 0.5)
    with bar_of_steps("a fit", 1, 1_000) as folder, count_steps(folder, "one", 1_000) as after_step:
        for _ in range(80):
            time.sleep(0.01)  # so 1,000 steps take at least ten seconds
            after_step()
    said = capsys.readouterr().err
    promised = int(said.split("about ")[1].split(" s")[0])
    assert 10 <= promised <= 20


def test_a_fit_that_fails_leaves_no_bar_running(capsys):
    with pytest.raises(FloatingPointError), bar_of_steps("a fit", 1, 5) as folder, count_steps(folder, "one", 5):
        raise FloatingPointError
    assert "5/5" not in capsys.readouterr().err

"""One progress bar of the steps of several fits, which may be in processes of their own.

Every fit appends a byte a step to a file of its own, and a thread adds up the sizes of the files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from scanvi_tutorial.config import progress_bar

_LOOK_EVERY = 0.5  # seconds


@contextmanager
def bar_of_steps(description: str, fits: int, steps: int) -> Iterator[Path]:
    """Show how many of `fits` times `steps` steps are taken and how long the rest takes; yield a folder to count in."""
    ended = threading.Event()
    with (
        TemporaryDirectory(prefix="steps-", ignore_cleanup_errors=True) as folder,
        progress_bar(range(fits * steps), description, unit="step") as bar,
    ):

        def look() -> None:
            taken = sum(file.stat().st_size for file in Path(folder).iterdir())
            if taken > bar.n and not bar.disable:
                bar.update(taken - bar.n)

        def watch() -> None:
            while not ended.wait(_LOOK_EVERY):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield Path(folder)
        finally:
            ended.set()
            watcher.join()
            look()


@contextmanager
def count_steps(folder: Path, name: str, steps: int) -> Iterator[Callable[[], object]]:
    """Yield what to call after each step of the fit called `name`; steps that an early end saves count as taken.

    A worker on another machine may not see the folder: its steps are not counted.
    """
    if not folder.is_dir():
        yield lambda: None
        return
    with (folder / name).open("wb", buffering=0) as file:  # anew, where a fit begins again
        yield lambda: file.write(b".")
        file.truncate(steps)

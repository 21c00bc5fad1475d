"""One progress bar of the steps of several fits, which may be in processes of their own.

Every fit appends a byte a step to a file of its own, and a thread adds up the sizes of the files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from scanvi_tutorial.config import progress_bar

_LOOK_EVERY, _LEARN_FOR = 0.5, 2.0  # seconds; the pace is measured over the second


@contextmanager
def bar_of_steps(description: str, fits: int, steps: int) -> Iterator[Path]:
    """Show a bar of `fits` times `steps` steps, and soon how long all will take; yield a folder for `count_steps`."""
    ended = threading.Event()
    with TemporaryDirectory(prefix="steps-") as folder:
        bar = progress_bar(range(fits * steps), description, unit="step")
        watcher = threading.Thread(target=_watch, args=(Path(folder), bar, ended), daemon=True)
        watcher.start()
        try:
            yield Path(folder)
        finally:
            ended.set()
            watcher.join()
            bar.close()


@contextmanager
def count_steps(folder: Path, name: str, steps: int) -> Iterator[Callable[[], object]]:
    """Yield what to call after each step of the fit called `name`; a fit that ends early has its steps behind it."""
    with (folder / name).open("ab", buffering=0) as file:
        yield lambda: file.write(b".")
        file.truncate(steps)


def _watch(folder: Path, bar: tqdm, ended: threading.Event) -> None:
    begun, first, promised = time.monotonic(), None, False
    while True:
        last = ended.wait(_LOOK_EVERY)  # look once more after the end
        taken, now = sum(file.stat().st_size for file in folder.iterdir()), time.monotonic()
        if taken > bar.n:
            bar.update(taken - bar.n)
        if last:
            return
        if first is None and taken:
            first = taken, now
        elif first is not None and not promised and now - first[1] >= _LEARN_FOR and taken > first[0]:
            pace = (now - first[1]) / (taken - first[0])
            bar.set_description(
                f"{bar.desc.removesuffix(': ')}, about {now - begun + pace * (bar.total - taken):.0f} s"
            )
            promised = True

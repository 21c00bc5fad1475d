"""Helpers of the chapters: source listings, sentences with computed numbers, stored results and expected errors.

Only the book uses them.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from IPython.display import Markdown, display


def show_source(thing: Callable[..., Any] | type) -> Markdown:
    """Return the source of a function, method or class as a listing with its file and line number.

    The listing shows the imported code, so it is the code that the chapter runs.

    Raises:
        TypeError: If `thing` was not written in Python (a built-in, an instance, a constant).
    """
    bare = inspect.unwrap(thing.fget if isinstance(thing, property) and thing.fget else thing)
    try:
        lines, first = inspect.getsourcelines(bare)
        path = Path(inspect.getsourcefile(bare) or "")
    except (TypeError, OSError) as error:
        raise TypeError(f"show_source needs a function, method or class written in Python, got {thing!r}.") from error
    package = next((parent for parent in path.parents if not (parent / "__init__.py").exists()), path.parent)
    listing = f"# {path.relative_to(package).as_posix()}, line {first}\n" + textwrap.dedent("".join(lines)).rstrip()
    return Markdown(f"~~~~python\n{listing}\n~~~~")


def say(*sentences: str) -> None:
    """Display sentences, built from computed values, as a paragraph of Markdown."""
    display(Markdown(" ".join(textwrap.dedent(sentence).strip() for sentence in sentences)))


@contextmanager
def expect_error(*kinds: type[Exception]) -> Iterator[None]:
    """Print the message of an expected error instead of its traceback.

    Raises:
        AssertionError: If the block raises nothing.
    """
    try:
        yield
    except kinds as error:
        print(f"{type(error).__name__}: {error}")
        return
    raise AssertionError(f"This was to raise {' or '.join(kind.__name__ for kind in kinds)}, and raised nothing.")


def results_of(pattern: str) -> list[Path]:
    """Return the results files of the book's repository that fit a pattern such as `benchmarks/results/peers-*.json`.

    They are looked for in the folder in which a chapter runs and in those above it.

    Raises:
        FileNotFoundError: Where a chapter has been copied without them.
    """
    for folder in (here := Path.cwd(), *here.parents):
        if found := sorted(folder.glob(pattern)):
            return found
    raise FileNotFoundError(
        f"From here on, this chapter reads {pattern} of the book's repository. Run it in a copy of the repository, or "
        f"copy the file to {here / pattern}."
    )


def read_results(path: str) -> dict[str, Any]:
    """Return the contents of a results file, which `results_of` finds."""
    return json.loads(results_of(path)[0].read_text(encoding="utf-8"))

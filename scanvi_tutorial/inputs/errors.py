"""The one error that speaks of the user's data, and how it lists and guesses names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["InputError", "did_you_mean", "listed"]


class InputError(ValueError):
    """Tell what is wrong with the data given, where, and what to do about it."""


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return the first `most` names as text for an error message, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Return the end of a sentence: a question where one of `names` is close to `name`, else a full stop."""
    close = get_close_matches(str(name), [str(other) for other in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."

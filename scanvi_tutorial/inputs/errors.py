"""The error and the warning about the user's data, and checks of names and numbers that several modules make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

import pandas as pd
from anndata import AnnData
from pandas.api.types import is_hashable

from scanvi_tutorial.config import is_whole


class InputError(ValueError):
    """An error in the input data; the message names the place and a remedy."""


class InputWarning(UserWarning):
    """A warning about input data that can be used but should be checked."""


def warn_of(sentences: Iterable[str]) -> None:
    """Give an `InputWarning` of each sentence, at the line that called a function with `usual_settings`."""
    for text in sentences:
        warnings.warn(text, InputWarning, stacklevel=4)


def first_line(error: BaseException) -> str:
    """Return what an error says in one line and without a full stop; its kind, where it says nothing."""
    text = str(getattr(error, "strerror", None) or error).strip()
    return (text or type(error).__name__).splitlines()[0].rstrip(".")


def listed(names: Iterable[object], most: int = 8) -> str:
    """Return the first `most` names as text for an error message, and how many more there are."""
    names = [str(name) for name in names]
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Return the end of a sentence: a question where one of `names` is close to `name`, else a full stop."""
    close = get_close_matches(str(name), [str(other) for other in names], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def column_of(adata: AnnData, column: str, advice: str) -> pd.Series:
    """Return one column of `adata.obs`, or say which there are."""
    if not is_hashable(column):
        raise InputError(f"One column of adata.obs is needed here, and {column!r} is of type {type(column).__name__}.")
    if column not in adata.obs:
        raise InputError(
            f"There is no column {column!r} in adata.obs{did_you_mean(column, adata.obs.columns)} "
            f"The columns are {listed(adata.obs.columns)}. {advice}"
        )
    values = adata.obs[column]
    if isinstance(values, pd.DataFrame):
        raise InputError(f"adata.obs has {values.shape[1]} columns called {column!r}. Rename all but one.")
    return values


def whole_number(value: object, name: str, least: int, most: int | None = None) -> int:
    """Return a whole number, which may come as 10.0; raise `InputError` where it is none or out of bounds."""
    number = int(value) if is_whole(value) else None
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number {bounds}, got {value!r}.")
    return number


def check_seed(seed: object) -> int:
    """Return a seed as a whole number; raise `InputError` where no generator takes it."""
    return whole_number(seed, "seed", 0, 2**32 - 1)


def refuse_repeated(adata: AnnData, axis: Literal["obs", "var"]) -> None:
    """Raise `InputError` where two cells ("obs") or two genes ("var") bear one name."""
    names = getattr(adata, f"{axis}_names")
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise InputError(
            f"{len(repeated)} {'cell' if axis == 'obs' else 'gene'} names occur more than once: {listed(repeated)}. "
            + (
                "If samples were joined, use anndata.concat(..., index_unique='-'); else make names unique "
                "with adata.obs_names_make_unique()."
                if axis == "obs"
                else "Make them unique with adata.var_names_make_unique()."
            )
        )


def refuse_unknown(names: Iterable[str], known: Iterable[str], column: str, advice: str) -> None:
    """Raise `InputError` where `adata.obs[column]` holds names that a model was not made for."""
    if new := [name for name in names if name not in known]:
        raise InputError(
            f"adata.obs[{column!r}] holds {listed(new)}, which the model does not know; it was made for "
            f"{listed(known)}. {advice}"
        )

"""The error about the user's data, and checks of names that several modules make."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

import pandas as pd
from anndata import AnnData


class InputError(ValueError):
    """Tell what is wrong with the data given, where, and what to do about it."""


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
    if column not in adata.obs:
        raise InputError(
            f"There is no column {column!r} in adata.obs{did_you_mean(column, adata.obs.columns)} "
            f"The columns are {listed(adata.obs.columns)}. {advice}"
        )
    values = adata.obs[column]
    if isinstance(values, pd.DataFrame):
        raise InputError(f"adata.obs has {values.shape[1]} columns called {column!r}. Rename all but one.")
    return values


def refuse_repeated(adata: AnnData, axis: Literal["obs", "var"]) -> None:
    """Raise `InputError` where two cells ("obs") or two genes ("var") bear one name."""
    names = getattr(adata, f"{axis}_names")
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise InputError(
            f"{len(repeated)} {'cell' if axis == 'obs' else 'gene'} names occur more than once: {listed(repeated)}. "
            f"Make them unique with adata.{axis}_names_make_unique()."
        )


def refuse_unknown(names: Iterable[str], known: Iterable[str], column: str, advice: str) -> None:
    """Raise `InputError` where `adata.obs[column]` holds names that a model was not made for."""
    if new := [name for name in names if name not in known]:
        raise InputError(
            f"adata.obs[{column!r}] holds {listed(new)}, which the model does not know; it was made for "
            f"{listed(known)}. {advice}"
        )

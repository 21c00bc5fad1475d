"""The label column: label names, codes of cells, and the values that mean "without a label"."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype, is_timedelta64_dtype

from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.inputs.errors import InputError, column_of, did_you_mean, listed

_NO_LABEL = {  # in small letters, as all missing values of Python and pandas are written, too
    *("", "-1", "-1.0", "?", "nan", "nat", "none", "na", "n/a", "#n/a", "<na>", "null"),
    *("unknown", "unassigned", "not assigned", "unlabeled", "unlabelled", "no label", "unclassified", "undefined"),
    *("unannotated", "not annotated", "no annotation", "not available", "n.a.", "\\n"),
}
_STATES = "assigned|labell?ed|classified|defined|determined|annotated|identified|specified|sorted|known"
_LIKE_NO_LABEL = re.compile(  # part of a name, or a whole one
    rf"un-?({_STATES}|resolved)|\bnot? .*({_STATES}|label|type)|ambiguous|indeterminate|inconclusive|to be determined"
    r"|doublet|multiplet|debris|low.?quality|failed|none of|^(unk|und|tbd|nil|others?|misc|mixed|missing|empty|filtered"
    r"|excluded|pruned|query|negative|unspecific|\W+)$"
)
_BYTES = re.compile(r"""b(['"])(.*)\1""")  # bytes that became text: b'T cell'
_SEPARATORS = re.compile(r"(?<=\w)[-_ ]+(?=\w)")
_NO_WIDTH = re.compile("[\u200b\u2060\ufeff]")
_HYPHEN = re.compile(r"(?<=\w)[-\u2010-\u2015\u2212](?=\w)")  # and no minus, as in CD4-
_BLANK = re.compile(r"(?<!\d) | (?!\d)")  # between two digits it counts
_FEW_SEEDS = 10  # per type; the book's comparisons begin with five, where draws differ by several points
_FEW_GENES = 200
_MANY_LABELS = 50  # of fewer than two cells each: names of cells, or measurements
_MOST_LABELS = 100  # beyond, numbers are no types, and names are doubted


def check_labels(
    adata: AnnData, column: str = "label", *, unlabeled_category: object = UNLABELED, least: int = 2
) -> tuple[list[str], np.ndarray]:
    """Return the names of the labels and the code of every cell's label, -1 for a cell without one.

    A missing value, -1, empty text, "Unknown", what else `means_no_label`, and the category `unlabeled_category` all
    mean "without a label". The order of a categorical is kept, other columns are sorted; categories that no cell has
    are dropped, for a class without an example cannot be learned and would only take probability from the others.

    Args:
        adata: Cells and genes.
        column: The column of `adata.obs` with the labels: categorical, text or whole numbers.
        unlabeled_category: A further name for "without a label", if the column uses one.
        least: How many different labels there must be: 0, 1 or 2.

    Returns:
        Names (labels,) and codes (cells,), int64.

    Raises:
        InputError: Where the column is missing, does not use the name `unlabeled_category`, or holds fewer than `least`
            labels.
    """
    unlabeled_category = label_name(unlabeled_category)
    values = column_of(adata, column, f"Name the one with labels; empty, -1 or {unlabeled_category!r} means none.")
    names = values.map(label_name, na_action="ignore").astype(object)
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = list(dict.fromkeys(map(label_name, values.cat.categories)))
    else:
        known = sorted(set(names.dropna()), key=_in_order)
    if unlabeled_category not in known and not means_no_label(unlabeled_category):
        raise InputError(
            f"No cell has {unlabeled_category!r} in adata.obs[{column!r}], though it was given as the name of the "
            f"cells without a label{did_you_mean(unlabeled_category, known)} The values are {listed(known)}."
        )
    none = {unlabeled_category, *filter(means_no_label, known)}
    names = names.where(~names.isin(none))
    used = set(names.dropna())
    order = [name for name in known if name in used]
    if len(order) < least:
        found = f"one label alone ({order[0]})" if order else "no label"
        raise InputError(
            f"adata.obs[{column!r}] holds {found}, and at least {least} are needed; {names.notna().sum()} of "
            f"{len(names)} cells are labeled. Give a few cells of every type a label."
        )
    return order, pd.Categorical(names, categories=order).codes.astype(np.int64)


def _in_order(name: str) -> tuple[int, int, str]:
    """Sort whole numbers by size and before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def label_name(value: object) -> str:
    """Return a label as text: bytes decoded, blanks at the ends and double ones left out, 1.0 written as 1.

    >>> [label_name(value) for value in (b"T cell", " T  cell", 1.0, "CD4+")]
    ['T cell', 'T cell', '1', 'CD4+']
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value)
    if not text.isascii():  # one letter may be written in two ways, and some blanks have no width
        text = unicodedata.normalize("NFC", _NO_WIDTH.sub("", text))
    text = " ".join(text.split())
    return text if (quoted := _BYTES.fullmatch(text)) is None else quoted[2]


def means_no_label(value: object) -> bool:
    """Return whether a label means that there is none: missing, "", -1, "Unknown", "NA", "unassigned", "?" and such.

    >>> [means_no_label(value) for value in (None, float("nan"), "-1.0", "UNKNOWN ", "T cell")]
    [True, True, True, True, False]
    """
    return _SEPARATORS.sub(" ", label_name(value)).casefold() in _NO_LABEL


def refuse_no_types(adata: AnnData, column: str, names: Sequence[str], codes: np.ndarray) -> None:
    """Raise `InputError` where a column holds dates, measurements or names of cells, and so no types.

    Args:
        adata: Cells.
        column: The column of `adata.obs`.
        names: Names of its labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.
    """
    values = adata.obs[column]
    dtype = values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
    labeled = int((codes >= 0).sum())
    if is_datetime64_any_dtype(dtype) or is_timedelta64_dtype(dtype):
        raise InputError(f"adata.obs[{column!r}] holds dates or times. Name the column with types.")
    if len(names) > _MANY_LABELS and 2 * len(names) > labeled:
        raise InputError(
            f"adata.obs[{column!r}] holds {len(names)} different values for "
            f"{f'{labeled} cells' if len(names) < labeled else 'as many cells'} ({listed(names, 3)}), and a type is a "
            "group of cells. Name the column with types."
        )
    if len(names) > _MOST_LABELS and is_numeric_dtype(dtype):
        raise InputError(
            f"adata.obs[{column!r}] holds {len(names)} different numbers ({listed(names, 3)}), which looks like a "
            "measurement. Name the column with types; if they are clusters, make them text with .astype(str)."
        )


def label_warnings(adata: AnnData, column: str, *, unlabeled_category: object = UNLABELED) -> list[str]:
    """Return a sentence for everything about the names in a column that may be meant otherwise than it is taken.

    Args:
        adata: Cells.
        column: A column of `adata.obs` that `check_labels` accepts.
        unlabeled_category: A further name for "without a label".
    """
    values = adata.obs[column].dropna().astype(object)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)  # name -> how it is written -> cells
    for name, value in zip(values.map(label_name), values, strict=True):
        spellings[name][str(value)] += 1
    none = {label_name(unlabeled_category), UNLABELED, "", "-1"}  # documented: nothing to be said
    notes = []
    if taken := [name for name in spellings if means_no_label(name) and name not in none]:
        cells = sum(spellings[name].total() for name in taken)
        notes.append(
            f"{cells} cell{'s' * (cells > 1)} called {listed(map(repr, taken))} in obs[{column!r}] "
            f"{'were' if cells > 1 else 'was'} taken as without a label."
        )
    types = [name for name in spellings if not means_no_label(name) and name not in none]
    if joined := [name for name in types if len(spellings[name]) > 1]:
        notes.append(
            f"{listed(joined)}: written in several ways ({listed(map(repr, spellings[joined[0]]))}), taken as one type."
        )
    if strange := [name for name in types if _LIKE_NO_LABEL.search(_SEPARATORS.sub(" ", name.casefold()))]:
        remedy = f"pass unlabeled_category={strange[0]!r}" if len(strange) == 1 else "leave those cells empty"
        notes.append(f"{listed(strange)}: learned as a type, though it sounds like 'no label'. If it is, {remedy}.")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in types:
        alike[_skeleton(name)].append(name)
    if pairs := [" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1]:
        notes.append(
            f"{'; '.join(pairs[:8])}: learned as types of their own, though they may be one type written in several "
            "ways. If so, give its cells one name."
        )
    if len(types) > _MOST_LABELS:
        notes.append(
            f"obs[{column!r}] holds {len(types)} labels ({listed(types, 3)}), far more than types are told apart by "
            "counts. Look whether it is the right column."
        )
    return notes


def _skeleton(name: str) -> str:
    """Return what is left of a name without capitals, plural, separators and kinds of blanks; CD4+ and CD4- differ."""
    text = unicodedata.normalize("NFKC", name).casefold()
    words = re.sub(r"[\s._/,;:()]+", " ", _HYPHEN.sub(" ", text)).split()
    singular = [word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in words]
    return _BLANK.sub("", " ".join(singular))


def quality_warnings(names: Sequence[str], codes: np.ndarray, *, genes: int) -> list[str]:
    """Return a sentence for all about numbers of labels and genes that can be used but makes a result less certain.

    Args:
        names: Names of the labels.
        codes: Label of every cell, (cells,), -1 for none; both as `check_labels` returns them.
        genes: How many genes the model will see.
    """
    notes = []
    seeds = dict(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)), strict=True))
    if alone := [name for name, count in seeds.items() if count == 1]:
        notes.append(
            f"{listed(alone)}: a single labeled cell. Whether such cells are found again could not be tested; label a "
            "few more."
        )
    if few := [f"{name} ({count})" for name, count in seeds.items() if 1 < count < _FEW_SEEDS]:
        notes.append(
            f"Fewer than {_FEW_SEEDS} labeled cells: {listed(few)}. Another choice of cells could move the result by "
            "several points."
        )
    if genes < _FEW_GENES:
        notes.append(f"Only {genes} gene{'s' * (genes > 1)}: types that differ in other genes alone will be mixed up.")
    if (codes >= 0).all():
        notes.append("Every cell has a label: there is none to name.")
    return notes

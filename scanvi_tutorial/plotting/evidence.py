"""Which genes favor one type over another, as bars: the table of `inference.evidence`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scanvi_tutorial.inputs.errors import InputError, whole_number
from scanvi_tutorial.plotting.style import BLUE, MUTED, ORANGE, panel, shown

_LEAST = 0.01  # of the strongest gene: less cannot be seen


def evidence_plot(table: pd.Series, *, names: tuple[str, str], genes: int = 10) -> Figure:
    """Draw the genes whose counts favor one type most over another, and those that favor the other type most.

    The title has the sum over all genes of the table and the sum over the genes that are drawn.

    Args:
        table: Nats per cell, indexed by gene, as `evidence` returns them: above zero where a gene favors `names[0]`.
        names: The type that is favored by numbers above zero, then the one favored by numbers below.
        genes: How many genes to draw in each direction, at most; those that could not be seen are left out.

    Raises:
        InputError: Where `genes` is not a whole number of at least one, or every number of the table is zero.
    """
    genes = whole_number(genes, "genes", 1)
    ordered = table.sort_values(ascending=False, kind="stable")
    place = np.arange(len(ordered))
    strong = ordered.abs() > _LEAST * ordered.abs().max()
    drawn = ordered[strong & (((ordered > 0) & (place < genes)) | ((ordered < 0) & (place >= len(ordered) - genes)))]
    if drawn.empty:
        raise InputError(f"No gene favors {names[0]} or {names[1]}. Compare two different states.")
    total, part = (f"{number:.1f}".replace("-", "−") for number in (ordered.sum(), drawn.sum()))
    with panel(height=1.2 + 0.2 * len(drawn)) as axes:
        place = np.arange(len(drawn))
        for name, color, some in zip(names, (BLUE, ORANGE), (drawn > 0, drawn < 0), strict=True):
            if some.any():
                axes.barh(place[some], drawn[some], color=color, label=f"in favor of {shown(name)}")
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(place, map(shown, drawn.index))
        axes.set(xlabel="nats per cell", ylim=(len(drawn) - 0.4, -0.6))
        title = f"{names[0]} rather than {names[1]}: {total} nats per cell, of which these genes give {part}"
        axes.set_title(shown(title, 76, lines=4))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.figure.legend(loc="outside lower center", ncols=2)
    return axes.figure

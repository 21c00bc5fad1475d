"""Ranks of true values among posterior draws, and their deviation from uniform (simulation-based calibration).

Used in book/09_calibration.md. If truth and draws come from one distribution, the truth is as likely to be the smallest
of all as any other: its rank among L draws is uniform on 0 … L (Talts et al. 2018, arXiv:1804.06788).

    draws   (draws, cells, quantities)
    ranks   (cells, quantities)         how many of the L draws lie below the truth
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kstwo

from scanvi_tutorial.inputs.errors import InputError

_LEVEL = 0.95  # the share of cases in which uniform ranks stay within what is allowed


def rank_among(truth: NDArray[np.floating], draws: NDArray[np.floating]) -> NDArray[np.integer]:
    """Return how many of `draws` (draws, …) lie below `truth`, as an array of its shape.

    >>> rank_among(np.array([0.5]), np.array([[0.1], [0.4], [0.9]])).tolist()
    [2]
    """
    return (draws < truth).sum(axis=0)


def ecdf_difference(ranks: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Return the share of ranks up to r less that of the uniform, (r + 1) / (draws + 1), for every r.

    A table (draws + 1, quantities). It rises first and falls later where truths lie at both ends (a posterior too
    narrow), the other way round where they keep to the middle, and stays on one side of zero where the posterior is off
    center (Säilynoja, Bürkner and Vehtari 2022, doi:10.1007/s11222-022-10090-6).

    Raises:
        InputError: Where a rank is not among 0 … draws.
    """
    values = ranks.to_numpy()
    if not len(values) or values.min() < 0 or values.max() > draws:
        raise InputError(
            f"Ranks among {draws} draws must lie in 0 … {draws}, and there must be some. Pass the number of draws "
            "that the ranks were taken among."
        )
    uniform = np.arange(1, draws + 2) / (draws + 1)
    ecdf = np.stack([(values <= rank).mean(0) for rank in range(draws + 1)])
    return pd.DataFrame(ecdf - uniform[:, None], columns=ranks.columns, index=pd.RangeIndex(draws + 1, name="rank"))


def allowed_deviation(cells: int, quantities: int = 1) -> float:
    """Return how far the ECDF of `cells` uniform ranks strays from the uniform at most, in 95 of 100 cases.

    By Kolmogorov's law, for all of `quantities` together (Bonferroni); a little generous, since ranks are discrete.

    >>> round(allowed_deviation(1_000), 3)
    0.043
    """
    return float(kstwo.ppf(1 - (1 - _LEVEL) / quantities, cells))


def rank_uniformity(ranks: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Return how far the ranks of each quantity are from uniform on 0 … `draws`, as a table (quantities, 4).

    `deviation` is the largest distance of their ECDF from the uniform, and `allowed` what chance lets it be
    (`allowed_deviation` of all quantities). `spread` is their variance over that of the uniform: above one, truths lie
    too often at the ends, so the posterior is too narrow. `shift` is the mean of rank / draws, less a half: above zero,
    truths lie too high in the posterior, so it sits too low.
    """
    return pd.DataFrame(
        {
            "deviation": ecdf_difference(ranks, draws).abs().max(),
            "allowed": allowed_deviation(len(ranks), ranks.shape[1]),
            "spread": ranks.var(ddof=0) * 12 / ((draws + 1) ** 2 - 1),
            "shift": ranks.mean() / draws - 0.5,
        }
    )

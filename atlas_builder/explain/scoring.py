"""Correlations of simulated with true activations.

Both are over all tokens of all scored excerpts together; None if the true activations are
all equal, 0 if the simulated ones are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def correlation(simulated: ArrayLike, true: ArrayLike) -> float | None:
    """Pearson's r, OpenAI's score of explanations (Bills et al. 2023)."""
    x, y = np.asarray(simulated, np.float64), np.asarray(true, np.float64)
    if len(y) == 0 or np.ptp(y) == 0:
        return None
    if np.ptp(x) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def rank_correlation(simulated: ArrayLike, true: ArrayLike) -> float | None:
    """Spearman's rho, Anthropic's score (Bricken et al. 2023): Pearson's r of the ranks, with mean ranks for ties."""
    return correlation(rankdata(simulated), rankdata(true))

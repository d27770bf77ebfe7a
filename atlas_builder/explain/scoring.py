"""How well simulated activations follow the true ones.

Both correlations are over all tokens of all scored excerpts together. None where the unit
does the same at every token, so that nothing can be foretold; 0 where the simulation does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def correlation(simulated: ArrayLike, true: ArrayLike) -> float | None:
    """Pearson's r, as OpenAI scores explanations (Bills et al. 2023)."""
    x, y = np.asarray(simulated, np.float64), np.asarray(true, np.float64)
    if len(y) == 0 or np.ptp(y) == 0:
        return None
    if np.ptp(x) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def rank_correlation(simulated: ArrayLike, true: ArrayLike) -> float | None:
    """Spearman's rho, as Anthropic does (Bricken et al. 2023): Pearson's r of the ranks, ties sharing theirs."""
    return correlation(rankdata(simulated), rankdata(true))

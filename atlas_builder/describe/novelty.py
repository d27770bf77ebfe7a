"""Whether the middle of a unit's activation range shows other tokens than its top (after O'Mahony et al. 2024).

A token drawn from a band is *novel* where no token drawn from the top band reads the
same, case and space aside; one that is part of a character reads as that. Even between
equal bands some tokens would be novel, as many as are *lone*: tokens of the top band that
no other of the top band reads like. So novel tokens of a band, r of n, are compared with
the lone tokens of the top, s of m, by Fisher's exact test, one-sided: p = P(X ≥ r), X
hypergeometric, n drawn from n + m of which r + s are novel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 0.001
"""A middle band differs from the top where p is below this."""


class Novelty(NamedTuple):
    """How each band compares with the last one, the top: (units, bands) each; NaN where either is empty."""

    drawn: NDArray[np.int64]
    """Tokens drawn from the band."""
    share: NDArray[np.float64]
    """Share of them that are novel; in the last band, that are lone."""
    chance: NDArray[np.float64]
    """p; NaN in the last band."""

    def middle_differs(self) -> NDArray[np.bool_]:
        """Whether any band but the first and the last differs from the last: (units,)."""
        return np.asarray((self.chance[:, 1:-1] < SIGNIFICANT).any(axis=1))


def reads_like(texts: list[str]) -> NDArray[np.int64]:
    """One number for all tokens that read the same, case and surrounding space aside: (vocabulary,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text.strip().casefold() or text, len(numbers)) for text in texts], np.int64)


def novelty(
    unit: NDArray[np.int32], band: NDArray[np.int16], token: NDArray[np.int64], units: int, bands: int
) -> Novelty:
    """Compare bands by their tokens, (tokens,) each, numbered by `reads_like`."""
    from scipy.stats import hypergeom  # half a second, which who reads the results need not wait

    words, word = np.unique(token, return_inverse=True)
    key = unit.astype(np.int64) * max(1, len(words)) + word.reshape(-1)
    top = band == bands - 1
    top_keys, count = np.unique(key[top], return_counts=True)
    place = np.minimum(np.searchsorted(top_keys, key), max(0, len(top_keys) - 1))
    of_top = (top_keys[place] == key) * count[place] if len(top_keys) else np.zeros(len(key), np.int64)
    novel = np.where(top, of_top == 1, of_top == 0)

    cell = unit.astype(np.int64) * bands + band
    drawn = np.bincount(cell, minlength=units * bands).reshape(units, bands)
    fresh = np.bincount(cell, weights=novel, minlength=units * bands).reshape(units, bands)
    top_drawn, lone = drawn[:, -1:], fresh[:, -1:]
    comparable = (drawn > 0) & (top_drawn > 0)
    share = np.where(comparable, fresh / np.maximum(drawn, 1), np.nan)
    chance = np.where(comparable, hypergeom.sf(fresh - 1, drawn + top_drawn, fresh + lone, drawn), np.nan)
    chance[:, -1] = np.nan
    return Novelty(drawn, share, chance)

"""Histograms of activations: the bins, and the coarse histograms that are drawn.

Bins follow floating-point numbers: each power of two from 2⁻¹⁶ to 2¹⁶ is cut into 16
equal parts, on both sides of zero, so a bin is at most 1/16 as wide as its distance
from zero, for units of any scale. Magnitudes below 2⁻¹⁶ share the middle bin, those
above 2¹⁶ the outermost ones.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 4
LOWEST, HIGHEST = -16, 16
"""Exponents of two of the lowest and highest bin edges."""
SIDE = (HIGHEST - LOWEST) << MANTISSA_BITS
"""Bins on each side of the middle one."""
BINS = 2 * SIDE + 1


def bin_edges() -> NDArray[np.float64]:
    """The `BINS + 1` edges, ascending; a magnitude on an edge is in the bin farther from zero."""
    codes = np.arange(SIDE + 1, dtype=np.float64)
    steps = 1 << MANTISSA_BITS
    magnitudes = 2.0 ** (LOWEST + codes // steps) * (1 + (codes % steps) / steps)
    return np.concatenate([-magnitudes[::-1], magnitudes])


def coarse_histogram(counts: NDArray[np.integer[Any]], bars: int = 32) -> tuple[list[float], list[int]]:
    """A histogram to draw: fine bins joined until each is at least 1/`bars` of the range.

    `counts` is (BINS,). Returns edges and counts, one edge more than counts, without the
    empty tails; no fine bin is divided, so every edge is exact.
    """
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [], []
    cut, last = int(filled[0]), int(filled[-1]) + 1
    step = (_EDGES[last] - _EDGES[cut]) / bars * (1 - 1e-9)
    cuts = []
    while cut < last:
        cuts.append(cut)
        cut = bisect_left(_EDGES, _EDGES[cut] + step, cut + 1, last)
    sums = np.add.reduceat(counts[:last], cuts, dtype=np.int64)
    return [_EDGES[cut] for cut in (*cuts, last)], sums.tolist()


_EDGES: list[float] = bin_edges().tolist()

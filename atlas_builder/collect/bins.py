"""The bins in which activations are counted, and what can be read off the counts.

They are those of a floating-point number: each power of two from 2⁻¹⁶ to 2¹⁶ is cut
into 16 equal parts, on both sides of zero, so a bin is at most 1/16 as wide as it is
far from zero, for units of any scale. Magnitudes under 2⁻¹⁶ share the bin in the
middle, those over 2¹⁶ the outermost ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MANTISSA_BITS = 4
LOWEST, HIGHEST = -16, 16
"""Exponents of two between which bins lie."""
SIDE = (HIGHEST - LOWEST) << MANTISSA_BITS
"""Bins on each side of the middle one."""
BINS = 2 * SIDE + 1


def bin_edges() -> NDArray[np.float64]:
    """The `BINS + 1` edges, rising; a magnitude on an edge is in the bin farther from zero."""
    codes = np.arange(SIDE + 1, dtype=np.float64)
    steps = 1 << MANTISSA_BITS
    magnitudes = 2.0 ** (LOWEST + codes // steps) * (1 + (codes % steps) / steps)
    return np.concatenate([-magnitudes[::-1], magnitudes])


def coarse_histogram(counts: NDArray[np.int64], bars: int = 32) -> tuple[list[float], list[int]]:
    """A histogram to draw: fine bins joined until each is at least 1/`bars` of the range.

    `counts` is (BINS,). Returns edges, one more than counts, both without the empty
    tails; no count is split, so every edge is exact.
    """
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [], []
    edges = bin_edges()
    first, last = filled[0], filled[-1] + 1
    step = (edges[last] - edges[first]) / bars
    cuts = [int(first)]
    for place in range(first + 1, last):
        if edges[place] - edges[cuts[-1]] >= step * (1 - 1e-9):
            cuts.append(place)
    sums = np.add.reduceat(counts[:last], cuts)
    return [float(edges[cut]) for cut in (*cuts, last)], [int(count) for count in sums]

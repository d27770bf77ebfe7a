"""Histograms of activations: the bins, and the coarse histograms that are drawn.

Bins follow floating-point numbers: each power of two from 2⁻¹⁶ to 2¹⁶ is cut into 16
equal parts, on both sides of zero, so a bin is at most 1/16 as wide as its distance
from zero, for units of any scale. Magnitudes below 2⁻¹⁶ share the middle bin, those
above 2¹⁶ the outermost ones. Contexts are counted in coarser bins, four to each power of two.
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
PEAK_BITS = 2
PEAK_BINS = 1 + ((HIGHEST - LOWEST) << PEAK_BITS)
"""Bins of contexts by the highest activation of a unit in each; the first is of those below the lowest edge."""


def code_below(bits: int) -> int:
    """The code of magnitudes below the lowest edge, where a code is the exponent and the first `bits` of a mantissa."""
    return ((127 + LOWEST) << bits) - 1


def bin_edges() -> NDArray[np.float64]:
    """The `BINS + 1` edges, ascending; a magnitude on an edge is in the bin farther from zero."""
    magnitudes = _magnitudes(MANTISSA_BITS)
    return np.concatenate([-magnitudes[::-1], magnitudes])


def fine_histogram(values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """How many of some activations lie in each bin: (BINS,)."""
    edges = bin_edges()
    above, below = np.searchsorted(edges, values, side="right") - 1, np.searchsorted(edges, values, side="left") - 1
    bins = np.clip(np.where(values > 0, above, below), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def _magnitudes(bits: int) -> NDArray[np.float64]:
    """Edges of bins above the middle one: 2 to the power of `bits` to each power of two."""
    steps = 1 << bits
    codes = np.arange(((HIGHEST - LOWEST) << bits) + 1, dtype=np.float64)
    edges: NDArray[np.float64] = 2.0 ** (LOWEST + codes // steps) * (1 + (codes % steps) / steps)
    return edges


def counts_above(peaks: NDArray[np.integer[Any]], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """About how many contexts reach a threshold: (columns,), for `peaks` (columns, PEAK_BINS).

    All of the bins above it, and of the bin that it divides the share above it, as if
    contexts lay evenly in the bin; none, where it is above 2¹⁶.
    """
    edges = np.concatenate([[0.0], _magnitudes(PEAK_BITS)])  # bin b is from edges[b] to edges[b + 1]
    above = np.cumsum(peaks[:, ::-1], axis=1, dtype=np.int64)[:, ::-1]  # in a bin or higher
    cut = np.clip(np.searchsorted(edges, thresholds, side="right") - 1, 0, PEAK_BINS - 1)
    column = np.arange(len(peaks))
    part = np.clip((edges[cut + 1] - thresholds) / (edges[cut + 1] - edges[cut]), 0, 1)
    counts: NDArray[np.float64] = above[column, cut] - peaks[column, cut] * (1 - part)
    return counts


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

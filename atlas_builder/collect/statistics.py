"""Running statistics of every unit of a layer, over every token of the corpus.

All of them are integers or extremes, so that they add up to the same bytes in any
order: sums are in units of 2⁻⁵², one integer for the whole part and one for the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.collect.histogram import BINS, MANTISSA_BITS, PEAK_BINS, PEAK_BITS, SIDE, code_below
from atlas_builder.collect.results import Moments
from atlas_builder.collect.sampling import SIDE_BY_SIDE

_DROPPED_BITS = 23 - MANTISSA_BITS
_BELOW = code_below(MANTISSA_BITS)  # code of the magnitudes in the middle bin
_PEAKS_BELOW = code_below(PEAK_BITS)
_REST = 2.0**52
LARGEST_SQUARES = 2.0**62
"""What the squares of a unit's activations in a context must stay below to be counted."""


class Tally(NamedTuple):
    """Counts of each unit: (units,), the histogram (units, BINS), that of contexts (units × signs, PEAK_BINS)."""

    maximum: NDArray[np.float32]
    minimum: NDArray[np.float32]
    positive: NDArray[np.int64]
    sums: NDArray[np.int64]
    """(units, 4): whole part and rest of the sum, whole part and rest of the sum of squares."""
    histogram: NDArray[np.uint32]
    peaks: NDArray[np.uint32]
    """Contexts by their highest activation, where it is above zero; a column is a unit's sign."""
    tokens: NDArray[np.int64]
    """Tokens counted: (1,)."""


def empty_tally(units: int, signs: int = 1) -> Tally:
    """A tally of no tokens."""
    return Tally(
        maximum=np.full(units, -np.inf, np.float32),
        minimum=np.full(units, np.inf, np.float32),
        positive=np.zeros(units, np.int64),
        sums=np.zeros((units, 4), np.int64),
        histogram=np.zeros((units, BINS), np.uint32),
        peaks=np.zeros((units * signs, PEAK_BINS), np.uint32),
        tokens=np.zeros(1, np.int64),
    )


def add(to: Tally, other: Tally) -> None:
    """Add another tally to the first."""
    np.maximum(to.maximum, other.maximum, out=to.maximum)
    np.minimum(to.minimum, other.minimum, out=to.minimum)
    for name in ("positive", "sums", "histogram", "peaks", "tokens"):
        counted = getattr(to, name)
        counted += getattr(other, name)
    for whole, rest in ((0, 1), (2, 3)):
        carry, to.sums[:, rest] = np.divmod(to.sums[:, rest], int(_REST))
        to.sums[:, whole] += carry


def moments(tally: Tally) -> Moments:
    """The statistics of a tally."""
    tokens = max(int(tally.tokens[0]), 1)
    total, squares = (tally.sums[:, part] + tally.sums[:, part + 1] / _REST for part in (0, 2))
    mean = total / tokens
    return Moments(
        maximum=tally.maximum.astype(np.float64) + 0.0,  # of 0 and −0, which is first depends on the order
        minimum=tally.minimum.astype(np.float64) + 0.0,
        mean=mean,
        deviation=np.sqrt(np.maximum(squares / tokens - mean**2, 0)),
        density=tally.positive / tokens,
    )


class Counts(NamedTuple):
    """Counts of adjacent units in one context: (SIDE_BY_SIDE,) each."""

    high: NDArray[np.float32]
    low: NDArray[np.float32]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    positive: NDArray[np.int32]


@njit(nogil=True, cache=True)
def no_counts() -> Counts:
    """Buffers for the counts of a tile."""
    width = SIDE_BY_SIDE
    return Counts(
        np.zeros(width, np.float32),
        np.zeros(width, np.float32),
        np.zeros(width),
        np.zeros(width),
        np.zeros(width, np.int32),
    )


@njit(nogil=True, cache=True)
def find_peaks(tile: NDArray[np.float32], counts: Counts) -> None:
    """Maximum and minimum of (tokens, SIDE_BY_SIDE) activations, per unit."""
    high, low = counts.high, counts.low
    for w in range(SIDE_BY_SIDE):
        high[w] = low[w] = tile[0, w]
    whole = len(tile) - len(tile) % 4
    # Four tokens at a time, so that what is counted is read and written a quarter as often.
    for t in range(0, whole, 4):
        for w in range(SIDE_BY_SIDE):
            most, least = high[w], low[w]
            a, b, c, d = tile[t, w], tile[t + 1, w], tile[t + 2, w], tile[t + 3, w]
            most = a if a > most else most
            least = a if a < least else least
            most = b if b > most else most
            least = b if b < least else least
            most = c if c > most else most
            least = c if c < least else least
            high[w] = d if d > most else most
            low[w] = d if d < least else least
    for t in range(whole, len(tile)):
        for w in range(SIDE_BY_SIDE):
            value = tile[t, w]
            high[w] = value if value > high[w] else high[w]
            low[w] = value if value < low[w] else low[w]


@njit(nogil=True, cache=True)
def count_activations(
    tile: NDArray[np.float32], units: int, first: int, counts: Counts, bins: NDArray[np.int32], tally: Tally
) -> bool:
    """Count one context of `units` units from `first` on; false where an activation is not a number.

    `tile` is (tokens, SIDE_BY_SIDE), with its peaks already in `counts`; `bins` is a buffer of its shape.
    """
    _sum(tile, counts)
    for w in range(units):
        if not counts.squares[w] < LARGEST_SQUARES:
            return False
        unit = first + w
        tally.maximum[unit] = max(tally.maximum[unit], counts.high[w])
        tally.minimum[unit] = min(tally.minimum[unit], counts.low[w])
        tally.positive[unit] += np.int64(counts.positive[w])
        _add_exactly(tally.sums[unit], 0, counts.total[w])
        _add_exactly(tally.sums[unit], 2, counts.squares[w])
    _find_bins(tile.view(np.int32), bins)
    _count_bins(bins, units, tally.histogram[first : first + units].reshape(-1))
    return True


@njit(nogil=True, cache=True)
def count_peaks(units: int, first: int, signs: int, counts: Counts, tally: Tally) -> None:
    """Count one context by the peaks of `units` units from `first` on."""
    for side in range(signs):
        bits = counts.low.view(np.int32) if side else counts.high.view(np.int32)
        for w in range(units):
            code = bits[w] ^ np.int32(-0x80000000) if side else bits[w]  # of the peak with its sign reversed
            if code > 0:
                place = min(max((code >> (23 - PEAK_BITS)) - _PEAKS_BELOW, 0), PEAK_BINS - 1)
                tally.peaks[(first + w) * signs + side, np.uintp(place)] += np.uint32(1)


@njit(nogil=True, cache=True)
def _sum(tile: NDArray[np.float32], counts: Counts) -> None:
    # In float64 throughout: a small deviation around a large mean would be lost in float32. Four tokens at a
    # time, added one after the other, so that the sums are rounded as one by one.
    total, squares, positive = counts.total, counts.squares, counts.positive
    bits = tile.view(np.int32)
    total[:] = 0
    squares[:] = 0
    positive[:] = 0
    whole = len(tile) - len(tile) % 4
    for t in range(0, whole, 4):
        for w in range(SIDE_BY_SIDE):
            a, b = np.float64(tile[t, w]), np.float64(tile[t + 1, w])
            c, d = np.float64(tile[t + 2, w]), np.float64(tile[t + 3, w])
            total[w] = (((total[w] + a) + b) + c) + d
            squares[w] = (((squares[w] + a * a) + b * b) + c * c) + d * d
    for t in range(whole, len(tile)):
        for w in range(SIDE_BY_SIDE):
            value = np.float64(tile[t, w])
            total[w] += value
            squares[w] += value * value
    # A number is above zero where its bits are.
    for t in range(len(tile)):
        for w in range(SIDE_BY_SIDE):
            positive[w] += np.int32(bits[t, w] > 0)


@njit(nogil=True, cache=True)
def _count_bins(bins: NDArray[np.int32], units: int, histogram: NDArray[np.uint32]) -> None:
    """Count (tokens, SIDE_BY_SIDE) bins of adjacent units into their histograms, one after the other: (units × BINS,).

    Token by token: a processor waits where it counts twice into one bin, as neighbours of one unit often do.
    """
    if units == SIDE_BY_SIDE:
        for t in range(len(bins)):
            for w in range(SIDE_BY_SIDE):
                histogram[np.uintp(w * BINS + bins[t, w])] += np.uint32(1)
    else:
        for t in range(len(bins)):
            for w in range(units):
                histogram[np.uintp(w * BINS + bins[t, w])] += np.uint32(1)


@njit(nogil=True, cache=True)
def _find_bins(bits: NDArray[np.int32], bins: NDArray[np.int32]) -> None:
    """The bin of each float32, from its bits."""
    for t in range(len(bits)):
        for w in range(SIDE_BY_SIDE):
            code = bits[t, w]
            magnitude = ((code & 0x7FFFFFFF) >> _DROPPED_BITS) - np.int32(_BELOW)
            magnitude = min(max(magnitude, np.int32(0)), np.int32(SIDE))
            bins[t, w] = np.int32(SIDE) - magnitude if code < 0 else np.int32(SIDE) + magnitude


@njit(nogil=True, cache=True)
def _add_exactly(sums: NDArray[np.int64], part: int, value: float) -> None:
    whole = math.floor(value)
    rest = sums[part + 1] + np.int64((value - whole) * _REST)
    carry = np.int64(rest >= np.int64(_REST))
    sums[part] += np.int64(whole) + carry
    sums[part + 1] = rest - carry * np.int64(_REST)

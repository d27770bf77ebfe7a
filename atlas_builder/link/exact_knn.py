"""The behaviours of the highest cosine: exact, in blocks, the same bits on every machine.

Single-precision products of blocks say which pairs to look at, with room for their
rounding; the cosines of these are added up anew in double precision, always in one order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

COLUMNS_AT_ONCE = 4096
"""Behaviours that a block is compared with at once."""
_LANES = 32  # sums side by side, for the processor to add up at once; a fixed number, so a fixed order

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int64]
Neighbours = NDArray[np.int32]


class Points(NamedTuple):
    """What is compared: all behaviours by layer and unit, n of them."""

    vectors: Floats
    """Their central inputs at length one, or zero: (n, width)."""
    unit: Numbers
    """Their units, numbered through all layers: (n,)."""
    zero: NDArray[np.bool_]
    """Which vectors are zero, and so like nothing: (n,)."""
    starts: Numbers
    """Layer `l` of those read owns behaviours `starts[l]:starts[l + 1]`: (layers + 1,)."""


def lengths(vectors: Floats) -> Doubles:
    """Euclidean lengths along the last axis, added up in double precision: (…, width) to (…)."""
    squares: Doubles = np.einsum("...i,...i->...", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def directions(vectors: Floats) -> Floats:
    """Vectors at length one; a zero vector stays zero and is like nothing."""
    length = lengths(vectors)[:, None]
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def blocks(starts: Numbers, size: int) -> Iterator[tuple[int, slice]]:
    """Behaviours in blocks, each of one layer: its place, and the block."""
    for layer, (start, end) in enumerate(pairwise(starts.tolist())):
        for first in range(start, end, size):
            yield layer, slice(first, min(first + size, end))


def nearest(
    points: Points, rows: slice, count: int, least: Doubles, columns: int = COLUMNS_AT_ONCE
) -> tuple[Neighbours, Floats]:
    """For some behaviours of one layer the `count` of the highest cosine, of other units.

    `least` holds the lowest cosine for each layer they may be of, (layers,). Exact; ties
    go to the lower number; a zero vector is like nothing. `columns` are compared at
    once, which changes nothing. Returns numbers and cosines, (rows, count), −1 and NaN
    where there are fewer.
    """
    total = rows.stop - rows.start
    numbers = np.full((total, count), -1, dtype=np.int32)
    cosines = np.full((total, count), -np.inf, dtype=np.float32)
    room = np.empty(total * columns, dtype=np.float32)
    for layer, part in blocks(points.starts, columns) if count else ():
        if least[layer] <= 1:
            width = part.stop - part.start
            rough = room[: total * width].reshape(total, width)  # (rows, columns)
            np.matmul(points.vectors[rows], points.vectors[part].T, out=rough)
            _keep_best(
                rough, rows.start, part.start, points.vectors, points.unit, points.zero, least[layer], numbers, cosines
            )
    cosines[numbers < 0] = np.nan
    return numbers, cosines


@njit(nogil=True, cache=True)
def _keep_best(
    rough: Floats,
    row: int,
    column: int,
    vectors: Floats,
    unit: Numbers,
    zero: NDArray[np.bool_],
    least: float,
    numbers: Neighbours,
    cosines: Floats,
) -> None:
    """Take a block of pairs, behaviours `row` … by `column` …, into the best of each row so far.

    `rough` are their cosines as a matrix product rounds them, (rows, columns), which
    depends on the machine and on the shape of the block. They only say which pairs to
    look at: those within the product's error of what it takes. `numbers` and `cosines`,
    (rows, count), fall along a row.
    """
    # n products and n − 1 sums in any order are off by n half-units of the last place at most; twice that is safe.
    error = 2.0**-23 * (vectors.shape[1] + 2)
    sums = np.empty(_LANES)
    last = numbers.shape[1] - 1
    for r in range(len(rough)):
        if zero[row + r]:
            continue
        bound = np.float32(max(least, cosines[r, last]) - error)
        for c in range(rough.shape[1]):
            if rough[r, c] < bound:
                continue
            other = column + c
            if zero[other] or unit[other] == unit[row + r]:
                continue
            cosine = _cosine(vectors[row + r], vectors[other], sums)
            if cosine >= least and cosine > cosines[r, last]:
                _insert(numbers[r], cosines[r], other, cosine)
                bound = np.float32(max(least, cosines[r, last]) - error)


@njit(nogil=True, cache=True)
def _insert(numbers: Neighbours, cosines: Floats, number: int, cosine: float) -> None:
    """Put one in its place in falling order, behind its equals; the last is dropped."""
    place = len(cosines) - 1
    while place > 0 and cosines[place - 1] < cosine:
        numbers[place], cosines[place] = numbers[place - 1], cosines[place - 1]
        place -= 1
    numbers[place], cosines[place] = number, cosine


@njit(nogil=True, cache=True)
def cosines_of(vectors: Floats, this: Numbers, that: Numbers) -> Floats:
    """Cosines of pairs of directions: (pairs,)."""
    found = np.empty(len(this), np.float32)
    sums = np.empty(_LANES)
    for i in range(len(this)):
        found[i] = _cosine(vectors[this[i]], vectors[that[i]], sums)
    return found


@njit(nogil=True, cache=True)
def _cosine(this: Floats, that: Floats, sums: Doubles) -> np.float32:
    """The cosine of two directions, to the nearest number of single precision: the same on every machine."""
    return np.float32(min(max(_dot(this, that, sums), -1.0), 1.0))


@njit(nogil=True, cache=True)
def dots(left: Floats, right: Floats, this: Numbers, that: Numbers) -> Doubles:
    """Inner products of rows of two arrays, pair by pair: (pairs,)."""
    found = np.empty(len(this))
    sums = np.empty(_LANES)
    for i in range(len(this)):
        found[i] = _dot(left[this[i]], right[that[i]], sums)
    return found


@njit(nogil=True, cache=True)
def _dot(this: Floats, that: Floats, sums: Doubles) -> float:
    """The inner product of two (width,) vectors in double precision, always added up in one order.

    `sums`, (_LANES,), is room to work in. In double precision the products are exact.
    """
    for lane in range(_LANES):
        sums[lane] = 0.0
    even = len(this) - len(this) % _LANES
    for first in range(0, even, _LANES):
        for lane in range(_LANES):
            sums[lane] += np.float64(this[first + lane]) * np.float64(that[first + lane])
    for lane in range(len(this) - even):
        sums[lane] += np.float64(this[even + lane]) * np.float64(that[even + lane])
    total = 0.0
    for lane in range(_LANES):
        total += sums[lane]
    return total

"""Exact nearest neighbours by cosine: in blocks, with the same bits on every machine.

Single-precision products of blocks select candidate pairs, with a margin for rounding;
their cosines are then summed in double precision, always in one order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

COLUMNS_AT_ONCE = 4096
"""Behaviours with which a block is compared at once."""
_LANES = 32  # parallel sums, for SIMD; a fixed number, so a fixed order

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int64]
Neighbours = NDArray[np.int32]


class Points(NamedTuple):
    """The n behaviours that are compared, by layer and unit."""

    vectors: Floats
    """The inputs of their central examples at unit length, or zero: (n, width)."""
    unit: Numbers
    """Their units, numbered across all layers: (n,)."""
    zero: NDArray[np.bool_]
    """Which vectors are zero, and so have no neighbours: (n,)."""
    starts: Numbers
    """The behaviours of the l-th layer are `starts[l]:starts[l + 1]`: (layers + 1,)."""


def lengths(vectors: Floats) -> Doubles:
    """Euclidean norms along the last axis, summed in double precision: (…, width) to (…)."""
    squares: Doubles = np.einsum("...i,...i->...", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def directions(vectors: Floats) -> Floats:
    """Vectors at unit length; a zero vector stays zero."""
    length = lengths(vectors)[:, None]
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def blocks(starts: Numbers, size: int) -> Iterator[tuple[int, slice]]:
    """Blocks of behaviours of one layer: the layer's index, and the block."""
    for layer, (start, end) in enumerate(pairwise(starts.tolist())):
        for first in range(start, end, size):
            yield layer, slice(first, min(first + size, end))


def nearest(
    points: Points, rows: slice, count: int, thresholds: Doubles, columns: int = COLUMNS_AT_ONCE
) -> tuple[Neighbours, Floats]:
    """The `count` behaviours of other units with the highest cosine, for some behaviours of one layer.

    `thresholds` are the smallest cosines of neighbours in each layer, (layers,). Exact; ties
    go to the lower number; a zero vector has no neighbours. `columns` are compared at once,
    which does not change the result. Returns numbers and cosines, (rows, count), −1 and NaN
    where there are fewer.
    """
    total = rows.stop - rows.start
    numbers = np.full((total, count), -1, dtype=np.int32)
    cosines = np.full((total, count), -np.inf, dtype=np.float32)
    room = np.empty(total * columns, dtype=np.float32)
    for layer, part in blocks(points.starts, columns) if count else ():
        if thresholds[layer] <= 1:
            width = part.stop - part.start
            rough = room[: total * width].reshape(total, width)  # (rows, columns)
            np.matmul(points.vectors[rows], points.vectors[part].T, out=rough)
            start, minimum = part.start, thresholds[layer]
            _keep_best(rough, rows.start, start, points.vectors, points.unit, points.zero, minimum, numbers, cosines)
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
    minimum: float,
    numbers: Neighbours,
    cosines: Floats,
) -> None:
    """Merge a block of pairs, behaviours `row` … by `column` …, into the best of each row so far.

    `rough` are their cosines as a matrix product rounds them, (rows, columns), which
    depends on the machine and on the shape of the block. They only select the pairs to
    compute: those within the product's error of the bound. `numbers` and `cosines`,
    (rows, count), descend along a row.
    """
    # n products and n − 1 sums in any order are off by n half-units of the last place at most; twice that is safe.
    error = 2.0**-23 * (vectors.shape[1] + 2)
    sums = np.empty(_LANES)
    last = numbers.shape[1] - 1
    for r in range(len(rough)):
        if zero[row + r]:
            continue
        bound = np.float32(max(minimum, cosines[r, last]) - error)
        for c in range(rough.shape[1]):
            if rough[r, c] < bound:
                continue
            other = column + c
            if zero[other] or unit[other] == unit[row + r]:
                continue
            cosine = _cosine(vectors[row + r], vectors[other], sums)
            if cosine >= minimum and cosine > cosines[r, last]:
                _insert(numbers[r], cosines[r], other, cosine)
                bound = np.float32(max(minimum, cosines[r, last]) - error)


@njit(nogil=True, cache=True)
def _insert(numbers: Neighbours, cosines: Floats, number: int, cosine: float) -> None:
    """Insert into descending order, after equals; the last is dropped."""
    place = len(cosines) - 1
    while place > 0 and cosines[place - 1] < cosine:
        numbers[place], cosines[place] = numbers[place - 1], cosines[place - 1]
        place -= 1
    numbers[place], cosines[place] = number, cosine


@njit(nogil=True, cache=True)
def cosines_of(vectors: Floats, this: Numbers, that: Numbers) -> Floats:
    """Cosines of pairs of directions: (pairs,)."""
    cosines = np.empty(len(this), np.float32)
    sums = np.empty(_LANES)
    for i in range(len(this)):
        cosines[i] = _cosine(vectors[this[i]], vectors[that[i]], sums)
    return cosines


@njit(nogil=True, cache=True)
def _cosine(this: Floats, that: Floats, sums: Doubles) -> np.float32:
    """The cosine of two directions, rounded to single precision: the same on every machine."""
    return np.float32(min(max(_dot(this, that, sums), -1.0), 1.0))


@njit(nogil=True, cache=True)
def dots(left: Floats, right: Floats, this: Numbers, that: Numbers) -> Doubles:
    """Inner products of rows of two arrays, pair by pair: (pairs,)."""
    products = np.empty(len(this))
    sums = np.empty(_LANES)
    for i in range(len(this)):
        products[i] = _dot(left[this[i]], right[that[i]], sums)
    return products


@njit(nogil=True, cache=True)
def _dot(this: Floats, that: Floats, sums: Doubles) -> float:
    """The inner product of two (width,) vectors in double precision, always summed in one order.

    `sums`, (_LANES,), is a buffer. In double precision the products are exact.
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

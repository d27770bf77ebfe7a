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

ROWS_AT_ONCE, COLUMNS_AT_ONCE = 512, 4096
"""Behaviours that are compared at once, with how many."""
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


def blocks_between(starts: Numbers, of: slice, size: int) -> Iterator[tuple[int, slice]]:
    """Blocks of behaviours of one layer, of a range of behaviours: the layer's index, and the block."""
    for layer, (start, end) in enumerate(pairwise(starts.tolist())):
        for first in range(max(start, of.start), min(end, of.stop), size):
            yield layer, slice(first, min(first + size, end, of.stop))


class Nearest(NamedTuple):
    """The most similar behaviours of each of some so far, best first, ties by number: (behaviours, count) each."""

    numbers: Neighbours
    """−1 where there are fewer."""
    cosines: Floats
    """−∞ where there are fewer."""


def none_yet(behaviours: int, count: int) -> Nearest:
    """No neighbours of so many behaviours."""
    return Nearest(np.full((behaviours, count), -1, np.int32), np.full((behaviours, count), -np.inf, np.float32))


def nearest(
    points: Points,
    rows: slice,
    columns: slice,
    count: int,
    thresholds: Doubles,
    at_once: tuple[int, int] = (ROWS_AT_ONCE, COLUMNS_AT_ONCE),
    bounds: Floats | None = None,
) -> tuple[Nearest, Nearest]:
    """The `count` behaviours of other units with the highest cosine, among pairs of a row and a column.

    `rows` and `columns` are the same range or lie apart, the rows first; a pair is compared once, for
    both of its behaviours. `thresholds` are the smallest cosines of neighbours in each two layers,
    (layers, layers), the same either way. `bounds` are cosines that `count` others reach with each
    behaviour, (behaviours,), −∞ where it is not known: pairs below those of both are left out.
    Exact; a zero vector has no neighbours. As many rows and columns as `at_once` says are compared at
    once, which does not change the result. Returns the neighbours of the rows and of the columns, the
    same arrays where these are one range.
    """
    of_rows = _none_below(bounds, rows, count)
    of_columns = of_rows if rows == columns else _none_below(bounds, columns, count)
    room = np.empty(at_once[0] * at_once[1], dtype=np.float32)
    for layer, block in blocks_between(points.starts, rows, at_once[0]) if count else ():
        right = slice(block.start, columns.stop) if rows == columns else columns
        for other, part in blocks_between(points.starts, right, at_once[1]):
            minimum = thresholds[layer, other]
            if minimum <= 1:
                shape = block.stop - block.start, part.stop - part.start
                rough = room[: shape[0] * shape[1]].reshape(shape)
                np.matmul(points.vectors[block], points.vectors[part].T, out=rough)
                here, there = block.start - rows.start, part.start - columns.start
                keep_best(
                    rough, block.start, part.start, points.vectors, points.unit, points.zero, minimum,
                    of_rows.numbers[here:], of_rows.cosines[here:],
                    of_columns.numbers[there:], of_columns.cosines[there:],
                )  # fmt: skip
    for found in (of_rows, of_columns):
        found.cosines[found.numbers < 0] = -np.inf
    return of_rows, of_columns


def _none_below(bounds: Floats | None, part: slice, count: int) -> Nearest:
    """No neighbours yet, in whose place only cosines at or above the bounds are taken."""
    empty = none_yet(part.stop - part.start, count)
    if bounds is not None:
        empty.cosines[:] = np.nextafter(bounds[part], np.float32(-np.inf))[:, None]
    return empty


def merge_nearest(to: Nearest, other: Nearest) -> None:
    """Take in the neighbours of the same behaviours among others; none is in both."""
    numbers, cosines = (np.concatenate(both, axis=1) for both in zip(to, other, strict=True))
    order = np.lexsort([numbers, -cosines], axis=1)[:, : to.numbers.shape[1]]
    to.numbers[:] = np.take_along_axis(numbers, order, axis=1)
    to.cosines[:] = np.take_along_axis(cosines, order, axis=1)


@njit(nogil=True, cache=True)
def nearest_among(
    points: Points, first: int, candidates: NDArray[np.int64], thresholds: Doubles, numbers: Neighbours, cosines: Floats
) -> None:
    """Fill in the neighbours of behaviours from `first` on among (behaviours, candidates), as `nearest` compares them.

    Candidates ascend; −1 is none.
    """
    sums = np.empty(_LANES)
    for r in range(len(candidates)):
        row = first + r
        layer = np.searchsorted(points.starts, row, side="right") - 1
        for other in candidates[r]:
            if other < 0 or points.zero[row] or points.zero[other] or points.unit[other] == points.unit[row]:
                continue
            minimum = thresholds[layer, np.searchsorted(points.starts, other, side="right") - 1]
            _offer(points.vectors, row, other, minimum, numbers[r], cosines[r], sums)


@njit(nogil=True, cache=True)
def keep_best(
    rough: Floats,
    row: int,
    column: int,
    vectors: Floats,
    unit: Numbers,
    zero: NDArray[np.bool_],
    minimum: float,
    row_numbers: Neighbours,
    row_cosines: Floats,
    column_numbers: Neighbours,
    column_cosines: Floats,
) -> None:
    """Merge a block of pairs, behaviours `row` … by `column` …, into the best of each behaviour so far.

    `rough` are their cosines as a matrix product rounds them, (rows, columns), which
    depends on the machine and on the shape of the block. They only select the pairs to
    compute: those within the product's error of either bound. Numbers and cosines,
    (behaviours, count), descend along a row. Of a pair in both orders the one is left out
    whose row is not the lower number.
    """
    # n products and n − 1 sums in any order are off by n half-units of the last place at most; twice that is safe.
    error = 2.0**-23 * (vectors.shape[1] + 2)
    sums = np.empty(_LANES)
    last = row_numbers.shape[1] - 1
    bounds = np.empty(rough.shape[1], np.float32)
    for c in range(len(bounds)):
        bounds[c] = np.inf if zero[column + c] else np.float32(max(minimum, column_cosines[c, last]) - error)
    for r in range(len(rough)):
        if zero[row + r]:
            continue
        bound = np.float32(max(minimum, row_cosines[r, last]) - error)
        for c in range(max(0, row + r + 1 - column), rough.shape[1]):
            if rough[r, c] < bound and rough[r, c] < bounds[c]:
                continue
            other = column + c
            if zero[other] or unit[other] == unit[row + r]:
                continue
            cosine = _cosine(vectors[row + r], vectors[other], sums)
            if cosine >= minimum:
                if cosine > row_cosines[r, last]:
                    _insert(row_numbers[r], row_cosines[r], other, cosine)
                    bound = np.float32(max(minimum, row_cosines[r, last]) - error)
                if cosine > column_cosines[c, last]:
                    _insert(column_numbers[c], column_cosines[c], row + r, cosine)
                    bounds[c] = np.float32(max(minimum, column_cosines[c, last]) - error)


@njit(nogil=True, cache=True)
def _offer(
    vectors: Floats, row: int, other: int, minimum: float, numbers: Neighbours, cosines: Floats, sums: Doubles
) -> None:
    """Take a behaviour into the neighbours of another, (count,), where it is one of the best."""
    cosine = _cosine(vectors[row], vectors[other], sums)
    if cosine >= minimum and cosine > cosines[len(cosines) - 1]:
        _insert(numbers, cosines, other, cosine)


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

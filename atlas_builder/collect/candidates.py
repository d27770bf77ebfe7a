"""Candidate examples of every unit of a layer, in arrays of one shape.

A pool drops a token when `keep` others are at least as active and come first by chance.
However the tokens are later restricted to those above some activation, the `keep` first
of them by chance are in the pool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Pool(NamedTuple):
    """Candidates by column, one column per unit, or per sign of it: (columns, capacity).

    `row` is the row of a candidate's window on disk or, before it is written, −1 − b with b
    the place of its context in the batch.
    """

    value: NDArray[np.float32]
    context: NDArray[np.int32]
    position: NDArray[np.int32]
    row: NDArray[np.int32]
    fill: NDArray[np.int32]
    """Number of candidates of each column: (columns,)."""
    unsettled: NDArray[np.bool_]
    """Whether a column may have candidates without a window on disk: (columns,)."""


class Candidates(NamedTuple):
    """Candidates of all columns, column after column: (candidates,) each."""

    column: NDArray[np.int32]
    value: NDArray[np.float32]
    context: NDArray[np.int32]
    position: NDArray[np.int32]
    row: NDArray[np.int32]


def empty_pool(columns: int, capacity: int) -> Pool:
    """A pool without candidates."""
    shape = (columns, capacity)
    return Pool(
        value=np.zeros(shape, np.float32),
        context=np.zeros(shape, np.int32),
        position=np.zeros(shape, np.int32),
        row=np.zeros(shape, np.int32),
        fill=np.zeros(columns, np.int32),
        unsettled=np.zeros(columns, np.bool_),
    )


def widened(pool: Pool, capacity: int) -> Pool:
    """The same candidates in a pool of larger capacity."""
    wider = empty_pool(len(pool.fill), capacity)
    for name in ("value", "context", "position", "row"):
        getattr(wider, name)[:, : pool.value.shape[1]] = getattr(pool, name)
    wider.fill[:] = pool.fill
    wider.unsettled[:] = pool.unsettled
    return wider


def take(pooled: Candidates, places: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
    """Candidates at these places, in this order."""
    return Candidates(
        pooled.column[places], pooled.value[places], pooled.context[places], pooled.position[places], pooled.row[places]
    )


def candidates(pool: Pool) -> Candidates:
    """All candidates of a pool."""
    filled = np.arange(pool.value.shape[1]) < pool.fill[:, None]
    column = np.repeat(np.arange(len(pool.fill), dtype=np.int32), pool.fill)
    return Candidates(column, pool.value[filled], pool.context[filled], pool.position[filled], pool.row[filled])


def rank_in_column(column: NDArray[np.integer]) -> NDArray[np.int64]:
    """The rank of each row in its column; columns ascend."""
    return np.arange(len(column)) - np.searchsorted(column, column)


def joined(here: Candidates, there: Candidates) -> Candidates:
    """The candidates of two pools, column by column."""
    union = Candidates(*(np.concatenate(parts) for parts in zip(here, there, strict=True)))
    return take(union, np.argsort(union.column, kind="stable"))


def filled(columns: int, capacity: int, pooled: Candidates) -> Pool:
    """A pool of given candidates, which are sorted by column."""
    fill = np.bincount(pooled.column, minlength=columns).astype(np.int32)
    pool = empty_pool(columns, max(capacity, int(fill.max(initial=0))))
    place = np.arange(len(pooled.column)) - np.repeat(np.cumsum(fill) - fill, fill)
    for name in ("value", "context", "position", "row"):
        getattr(pool, name)[pooled.column, place] = getattr(pooled, name)
    pool.fill[:] = fill
    pool.unsettled[pooled.column[pooled.row < 0]] = True
    return pool


@njit(nogil=True, cache=True)
def append(pool: Pool, column: int, value: float, context: int, position: int, row: int) -> None:
    """Add a candidate to a column that is not full."""
    place = pool.fill[column]
    pool.value[column, place] = value
    pool.context[column, place] = context
    pool.position[column, place] = position
    pool.row[column, place] = row
    pool.fill[column] = place + 1
    pool.unsettled[column] |= row < 0


@njit(nogil=True, cache=True)
def retain(pool: Pool, column: int, order: NDArray[np.int64]) -> None:
    """Keep the candidates of a column at these places, in this order."""
    value, context = pool.value[column].copy(), pool.context[column].copy()
    position, row = pool.position[column].copy(), pool.row[column].copy()
    for place in range(len(order)):
        pool.value[column, place] = value[order[place]]
        pool.context[column, place] = context[order[place]]
        pool.position[column, place] = position[order[place]]
        pool.row[column, place] = row[order[place]]
    pool.fill[column] = len(order)


@njit(nogil=True, cache=True)
def insert(best: NDArray[Any], held: int, value: float) -> int:
    """Insert into the ascending `best[:held]`, dropping the last where it is full; returns the new count."""
    if held < len(best):
        held += 1
    place = held - 1
    while place > 0 and best[place - 1] > value:
        best[place] = best[place - 1]
        place -= 1
    best[place] = value
    return held


@njit(nogil=True, cache=True)
def unsettled(pool: Pool) -> NDArray[np.int64]:
    """Column, place in it, and place in the batch of every candidate without a window on disk: (candidates, 3)."""
    columns = np.flatnonzero(pool.unsettled)
    pending = np.empty((pool.fill[columns].sum(), 3), np.int64)
    count = 0
    for column in columns:
        for place in range(pool.fill[column]):
            if pool.row[column, place] < 0:
                pending[count, 0], pending[count, 1] = column, place
                pending[count, 2] = -1 - pool.row[column, place]
                count += 1
    return pending[:count].copy()

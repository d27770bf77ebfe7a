"""What could still become an example, of every unit of a layer, in arrays of one shape.

A pool keeps, of all tokens met, those that are not beaten: a token is beaten when `keep`
others are at least as active and come first by chance. However the tokens are later
narrowed to those above some activation, the `keep` first of them by chance are here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Pool(NamedTuple):
    """Candidates by column, one column for each unit, or for each side of it: (columns, capacity).

    `row` is the place of a candidate's window on disk; before it is there, −1 − b with b
    the place of its context in the batch.
    """

    value: NDArray[np.float32]
    context: NDArray[np.int32]
    position: NDArray[np.int32]
    row: NDArray[np.int32]
    fill: NDArray[np.int32]
    """Candidates of each column: (columns,)."""


class Candidates(NamedTuple):
    """Candidates of all columns in one row, column after column: (candidates,) each."""

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
    )


def widened(pool: Pool, capacity: int) -> Pool:
    """The same candidates with room for more."""
    wider = empty_pool(len(pool.fill), capacity)
    for name in ("value", "context", "position", "row"):
        getattr(wider, name)[:, : pool.value.shape[1]] = getattr(pool, name)
    wider.fill[:] = pool.fill
    return wider


def take(found: Candidates, places: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
    """Candidates by place, in this order."""
    return Candidates(
        found.column[places], found.value[places], found.context[places], found.position[places], found.row[places]
    )


def candidates(pool: Pool) -> Candidates:
    """All candidates of a pool."""
    held = np.arange(pool.value.shape[1]) < pool.fill[:, None]
    column = np.repeat(np.arange(len(pool.fill), dtype=np.int32), pool.fill)
    return Candidates(column, pool.value[held], pool.context[held], pool.position[held], pool.row[held])


def joined(here: Candidates, there: Candidates) -> Candidates:
    """The candidates of both, column by column."""
    both = Candidates(*(np.concatenate(parts) for parts in zip(here, there, strict=True)))
    return take(both, np.argsort(both.column, kind="stable"))


def filled(columns: int, capacity: int, found: Candidates) -> Pool:
    """A pool of given candidates, sorted by column."""
    fill = np.bincount(found.column, minlength=columns).astype(np.int32)
    pool = empty_pool(columns, max(capacity, int(fill.max(initial=0))))
    place = np.arange(len(found.column)) - np.repeat(np.cumsum(fill) - fill, fill)
    for name in ("value", "context", "position", "row"):
        getattr(pool, name)[found.column, place] = getattr(found, name)
    pool.fill[:] = fill
    return pool


@njit(nogil=True, cache=True)
def append(pool: Pool, column: int, value: float, context: int, position: int, row: int) -> None:
    """Add a candidate where there is room for it."""
    place = pool.fill[column]
    pool.value[column, place] = value
    pool.context[column, place] = context
    pool.position[column, place] = position
    pool.row[column, place] = row
    pool.fill[column] = place + 1


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
    """Insert into the rising `best[:held]`, dropping the last where it is full; how many it then holds."""
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
    """Column, place in it, and place in the batch of every candidate that has no window on disk."""
    count = 0
    for column in range(len(pool.fill)):
        for place in range(pool.fill[column]):
            count += pool.row[column, place] < 0
    found = np.empty((count, 3), np.int64)
    count = 0
    for column in range(len(pool.fill)):
        for place in range(pool.fill[column]):
            if pool.row[column, place] < 0:
                found[count, 0], found[count, 1] = column, place
                found[count, 2] = -1 - pool.row[column, place]
                count += 1
    return found

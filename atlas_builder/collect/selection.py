"""A unit's examples, selected exactly while the contexts stream by.

Both policies are a total order over contexts, so the selection does not depend on the
order in which they are visited.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.collect.candidates import Candidates, Pool, append, candidates, insert, retain, take
from atlas_builder.collect.sampling import chance_of_context, contexts_chances
from atlas_builder.config import ExampleSettings

_SMALLEST = np.finfo(np.float32).smallest_subnormal


class SelectionRule(NamedTuple):
    """How the examples of a layer's units are selected.

    A column is a unit or, with two `signs`, a unit's positive activations followed by its
    negative ones with the sign reversed.
    """

    top: bool
    """Select the highest instead of a sample of those near the maximum."""
    keep: int
    """Examples per column."""
    threshold: float
    signs: int
    stream: np.uint64
    highest: NDArray[np.float32]
    """Highest activation so far: (columns,)."""
    bound: NDArray[np.float32]
    """Activation that a candidate must reach; it never decreases: (columns,)."""


def selection_rule(examples: ExampleSettings, units: int, signs: int, stream: np.uint64) -> SelectionRule:
    """The rule of a configuration; an example's activation is above zero."""
    return SelectionRule(
        top=examples.policy == "top",
        keep=examples.per_unit,
        threshold=examples.threshold,
        signs=signs,
        stream=stream,
        highest=np.zeros(units * signs, np.float32),
        bound=np.full(units * signs, _SMALLEST, np.float32),
    )


@njit(nogil=True, cache=True)
def consider(rule: SelectionRule, pool: Pool, column: int, value: float, context: int, position: int, row: int) -> bool:
    """Add a context that reaches the bound; false where the pool is full."""
    if pool.fill[column] == pool.value.shape[1]:
        prune(rule, pool, column)
        if pool.fill[column] == pool.value.shape[1]:
            return False
    if value > rule.highest[column]:
        rule.highest[column] = value
        if not rule.top:
            # One step down, so that rounding never rejects what the exact test accepts.
            floor = np.nextafter(np.float32(rule.threshold * value), np.float32(0))
            rule.bound[column] = max(rule.bound[column], floor)
    append(pool, column, value, context, position, row)
    return True


@njit(nogil=True, cache=True)
def prune(rule: SelectionRule, pool: Pool, column: int) -> None:
    """Drop every candidate of a column that cannot be selected any more, and raise the bound."""
    order = _by_value(pool.value[column, : pool.fill[column]], pool.context[column])
    kept = np.empty(len(order), np.int64)
    first = np.empty(rule.keep, np.uint64)  # the smallest chances among candidates as high as this one
    held = count = 0
    for place in order:
        if count and pool.context[column, place] == pool.context[column, kept[count - 1]]:
            continue  # offered again after the pool was widened
        if rule.top:
            if count == rule.keep:
                break
        else:
            if not np.float64(pool.value[column, place]) >= rule.threshold * np.float64(rule.highest[column]):
                break
            unit, side = column // rule.signs, column % rule.signs
            chance = chance_of_context(rule.stream, unit, side, pool.context[column, place])
            if held == rule.keep and chance > first[held - 1]:
                continue
            held = insert(first, held, chance)
        kept[count] = place
        count += 1
    retain(pool, column, kept[:count])
    if rule.top and count == rule.keep:
        rule.bound[column] = pool.value[column, count - 1]


@njit(nogil=True, cache=True)
def prune_all(rule: SelectionRule, pool: Pool) -> None:
    """Prune every column."""
    for column in range(len(pool.fill)):
        prune(rule, pool, column)


@njit(nogil=True, cache=True)
def _by_value(value: NDArray[np.float32], context: NDArray[np.int32]) -> NDArray[np.int64]:
    """Places by descending value, ties by context; positive values ascend as their bits do."""
    key = np.empty(len(value), np.uint64)
    bits = value.view(np.uint32)
    for place in range(len(value)):
        falling = np.uint64(0xFFFFFFFF) - np.uint64(bits[place])
        key[place] = (falling << np.uint64(32)) | np.uint64(context[place])
    return np.argsort(key)


def select(rule: SelectionRule, pool: Pool) -> Candidates:
    """The selected examples, by column, highest activation first, ties by position in the corpus."""
    prune_all(rule, pool)
    selected = candidates(pool)
    if not rule.top:
        unit, side = np.divmod(selected.column.astype(np.uint64), np.uint64(rule.signs))
        chances = contexts_chances(rule.stream, unit, side, selected.context.astype(np.uint64))
        selected = _first(selected, np.lexsort([chances, selected.column]), rule.keep)
    return take(selected, np.lexsort([selected.context, -selected.value, selected.column]))


def _first(pooled: Candidates, order: NDArray[np.int64], count: int) -> Candidates:
    """The first `count` of each column in this order, which is by column."""
    column = pooled.column[order]
    rank = np.arange(len(column)) - np.searchsorted(column, column)
    return take(pooled, order[rank < count])

"""A unit's examples, selected exactly while the contexts stream by.

Every policy is one rule with other numbers, and the rule depends on the set of contexts
alone, so the selection does not depend on the order in which they are visited.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.collect.candidates import (
    Candidates,
    Pool,
    append,
    candidates,
    insert,
    joined,
    rank_in_column,
    retain,
    take,
)
from atlas_builder.collect.sampling import chance_of_context, contexts_chances
from atlas_builder.config import ExampleSettings

_SMALLEST = np.finfo(np.float32).smallest_subnormal
_AVERAGED = 10
_NEVER = 2.0  # a share that no activation reaches
STREAMED = ("highest", "enough", "bound")
"""The arrays of a `SelectionRule`, which change as contexts stream by."""


class SelectionRule(NamedTuple):
    """How the examples of a layer's units are selected.

    A context qualifies where its activation is at least `share` of the column's robust
    maximum, the mean of its `averaged` highest contexts. The examples are a uniform sample
    of `keep` of those that qualify or, where fewer than `least` do, the `least` highest
    without those below `weakest` of the robust maximum.

    A column is a unit or, with two `signs`, a unit's positive activations followed by its
    negative ones with the sign reversed.
    """

    share: float
    least: int
    weakest: float
    """At most `share`."""
    keep: int
    signs: int
    stream: np.uint64
    highest: NDArray[np.float32]
    """Highest activations so far, descending, zero where there are fewer: (columns, averaged)."""
    enough: NDArray[np.float32]
    """Activation that `least` contexts are known to reach; it never decreases: (columns,)."""
    bound: NDArray[np.float32]
    """Activation that a context must reach to matter; it never decreases: (columns,)."""


def selection_rule(examples: ExampleSettings, units: int, signs: int, stream: np.uint64) -> SelectionRule:
    """The rule of a configuration; an example's activation is above zero."""
    averaged, share, least, weakest = {
        "threshold": (1, examples.threshold, 0, 0.0),
        "robust": (_AVERAGED, examples.share, min(examples.least, examples.per_unit), examples.weakest),
        "top": (1, _NEVER, examples.per_unit, 0.0),
    }[examples.policy]
    return SelectionRule(
        share=share,
        least=least,
        weakest=weakest,
        keep=examples.per_unit,
        signs=signs,
        stream=stream,
        highest=np.zeros((units * signs, averaged), np.float32),
        enough=np.full(units * signs, 0 if least else np.inf, np.float32),
        bound=np.full(units * signs, _SMALLEST, np.float32),
    )


@njit(nogil=True, cache=True)
def _robust_maximum(highest: NDArray[np.float32]) -> float:
    """The mean of a column's highest activations, absent ones zero; it never decreases.

    Added from the highest down in float64, where every step rounds monotonically.
    """
    total = 0.0
    for place in range(len(highest)):
        total += np.float64(highest[place])
    return total / len(highest)


@njit(nogil=True, cache=True)
def robust_maxima(rule: SelectionRule) -> NDArray[np.float64]:
    """The robust maximum of every column: (columns,)."""
    maxima = np.empty(len(rule.highest))
    for column in range(len(maxima)):
        maxima[column] = _robust_maximum(rule.highest[column])
    return maxima


@njit(nogil=True, cache=True)
def raise_highest(rule: SelectionRule, column: int, value: float) -> None:
    """Take a context's activation into the robust maximum; once for each context."""
    highest = rule.highest[column]
    place = len(highest) - 1
    if not value > highest[place]:
        return
    while place > 0 and highest[place - 1] < value:
        highest[place] = highest[place - 1]
        place -= 1
    highest[place] = value
    _raise_bound(rule, column)


@njit(nogil=True, cache=True)
def _raise_bound(rule: SelectionRule, column: int) -> None:
    maximum = _robust_maximum(rule.highest[column])
    candidate = max(rule.weakest * maximum, min(rule.share * maximum, np.float64(rule.enough[column])))
    # One step down, so that rounding never rejects what the exact test accepts.
    floor = np.nextafter(np.float32(candidate), np.float32(0))
    rule.bound[column] = max(rule.bound[column], min(floor, rule.highest[column, -1]))


@njit(nogil=True, cache=True)
def consider(rule: SelectionRule, pool: Pool, column: int, value: float, context: int, position: int, row: int) -> bool:
    """Add a context that reaches the bound; false where the pool is full."""
    if pool.fill[column] == pool.value.shape[1]:
        prune(rule, pool, column)
        if pool.fill[column] == pool.value.shape[1]:
            return False
    append(pool, column, value, context, position, row)
    return True


@njit(nogil=True, cache=True)
def prune(rule: SelectionRule, pool: Pool, column: int) -> None:
    """Drop every candidate of a column that cannot be selected any more, and raise the bound."""
    order = _by_value(pool.value[column, : pool.fill[column]], pool.context[column])
    kept = np.empty(len(order), np.int64)
    first = np.empty(rule.keep, np.uint64)  # the smallest chances among candidates as high as this one
    maximum = _robust_maximum(rule.highest[column])
    unit, side = column // rule.signs, column % rule.signs
    held = count = 0
    for place in order:
        if count and pool.context[column, place] == pool.context[column, kept[count - 1]]:
            continue  # offered again after the pool was widened
        value = np.float64(pool.value[column, place])
        qualifies = value >= rule.share * maximum
        if not qualifies and (count >= rule.least or not value >= rule.weakest * maximum):
            break
        if qualifies:
            chance = chance_of_context(rule.stream, unit, side, pool.context[column, place])
            if held == rule.keep and chance > first[held - 1]:
                continue  # with at least `keep` before it, so it is not among the `least` highest either
            held = insert(first, held, chance)
        kept[count] = place
        count += 1
    retain(pool, column, kept[:count])
    if count >= rule.least > 0:
        rule.enough[column] = max(rule.enough[column], pool.value[column, rule.least - 1])
    _raise_bound(rule, column)


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


def merge(to: SelectionRule, other: SelectionRule) -> None:
    """Take in what the same rule knows of other contexts."""
    both = np.concatenate([to.highest, other.highest], axis=1)
    to.highest[:] = -np.sort(-both, axis=1)[:, : to.highest.shape[1]]
    np.maximum(to.enough, other.enough, out=to.enough)
    np.maximum(to.bound, other.bound, out=to.bound)


class SelectedExamples(NamedTuple):
    """The selected examples, and how each column's were selected."""

    examples: Candidates
    """By column, highest activation first, ties by position in the corpus."""
    robust: NDArray[np.float64]
    """The robust maximum: (columns,)."""
    qualify: NDArray[np.int64]
    """Candidates that qualify; all contexts that do, where it is below `keep`: (columns,)."""


def select(rule: SelectionRule, pool: Pool) -> SelectedExamples:
    """Select the examples of every column."""
    prune_all(rule, pool)
    pooled, robust = candidates(pool), robust_maxima(rule)
    qualifies = pooled.value.astype(np.float64) >= rule.share * robust[pooled.column]
    qualify = np.bincount(pooled.column[qualifies], minlength=len(robust))
    sampled = (qualify >= rule.least)[pooled.column]
    near, rest = take(pooled, sampled & qualifies), take(pooled, ~sampled)
    unit, side = np.divmod(near.column.astype(np.uint64), np.uint64(rule.signs))
    chances = contexts_chances(rule.stream, unit, side, near.context.astype(np.uint64))
    near = _first(near, np.lexsort([chances, near.column]), rule.keep)
    rest = _first(rest, np.lexsort([rest.context, -rest.value, rest.column]), rule.least)
    chosen = joined(near, rest)
    order = np.lexsort([chosen.context, -chosen.value, chosen.column])
    return SelectedExamples(take(chosen, order), robust, qualify)


def _first(pooled: Candidates, order: NDArray[np.int64], count: int) -> Candidates:
    """The first `count` of each column in this order, which is by column."""
    return take(pooled, order[rank_in_column(pooled.column[order]) < count])

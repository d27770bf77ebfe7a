"""Whether attributes go with how strongly a unit is active: a rank effect, and p against shifted attributes.

The effect of an attribute is P(value with it > value without) + ½ P(equal) − ½, over pairs of
rows of one side, pairs of both sides pooled: the common-language effect size of Mann and
Whitney's U, less one half. Text is clustered: rows of one context, and neighbouring contexts, share
their attributes, so that a plain rank test is far too bold. The null shifts attributes instead, by whole
contexts and on both sides alike, since these are alike where they are near: each row gets the attributes of
the row at its place in the context so many further on, of its side. p is corrected over all attributes by the
largest statistic (single-step max-T, Westfall & Young 1993).

The score of a shift is a sum of ranks, so that all shifts together are one product of shifted ranks and
attributes. Ranks are doubled and centred: whole numbers, whose sums are exact, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

NAMED_P = 0.01
"""An association is named where p is at most this, so that it takes a hundred contexts at least,"""
LEAST_EFFECT = 0.05
"""and its effect, either way, at least this."""
LEAST_CONTEXTS = 10
"""An attribute is tested where so many contexts have a row with it, and so many a row without."""

_AT_ONCE = 1 << 22  # shifted ranks in memory
_EXACT_32 = 1 << 24  # whole numbers below this are exact in 32 bits


class AssociationScores(NamedTuple):
    """How attributes go with values: (attributes,) each."""

    effect: NDArray[np.float64]
    """From −½ to ½, above 0 where values with the attribute are higher; NaN where all rows of each side agree in it."""
    p: NDArray[np.float64]
    """Corrected over the attributes that are tested; NaN where it is not tested."""
    tested: NDArray[np.bool_]

    def named(self) -> NDArray[np.int64]:
        """The attributes whose association is named, the largest effect first, else in their order."""
        size = np.abs(np.nan_to_num(self.effect))
        named = np.flatnonzero(self.tested & (np.nan_to_num(self.p, nan=1.0) <= NAMED_P) & (size >= LEAST_EFFECT))
        return named[np.argsort(-size[named], kind="stable")]


def association_test(
    values: ArrayLike,
    side: ArrayLike,
    context: ArrayLike,
    attributes: ArrayLike,
    *,
    position: ArrayLike | None = None,
    rolls: int = 200,
    seed: int | Sequence[int] = 0,
) -> AssociationScores:
    """Test each attribute, (rows, attributes) of true and false, for its association with values, (rows,).

    Rows come in any order: they are put in that of `context` and `position`, (rows,) each, or in theirs
    within a context where there are no positions. `side`, (rows,) of 0 and 1, is held fixed: rows of
    one side are compared and shifted among themselves. Rows whose value is NaN are left out.

    A shift is by a number of contexts, of those that have a row, round in a circle; `seed` draws `rolls` different
    ones, all where there are no more. In a context of another number of rows, those of the side begin again from the
    first; where it has none, the next that has some is taken. A statistic is the sum of the ranks, within their
    sides, of the rows with the attribute, by size, over its root mean square over all shifts and the order as it is;
    p = (1 + shifts whose largest is no smaller) / (1 + shifts).

    Raises `ValueError` where shapes do not fit, or a side is neither 0 nor 1.
    """
    value, sides, contexts, has = _checked(values, side, context, attributes)
    places = np.zeros(len(value)) if position is None else np.asarray(position)
    if places.shape != value.shape:
        raise ValueError(f"position must be of shape {value.shape}, as values are, but is of shape {places.shape}.")
    if rolls < 1:
        raise ValueError(f"rolls must be at least 1, but is {rolls}.")
    order = np.lexsort((places, contexts))
    order = order[~np.isnan(value[order])]
    value, sides, has, firsts = value[order], sides[order], has[order], _firsts(contexts[order])
    tested = _in_enough_contexts(has, firsts)
    number = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(order)))
    parts = [_Side.of(rows, value, number) for side in (False, True) if len(rows := np.flatnonzero(sides == side))]
    ranks = np.zeros(len(order))
    pairs = np.zeros(has.shape[1], np.int64)
    for part in parts:
        ranks[part.rows] = part.ranks
        pairs += part.pairs(has)

    matrix: NDArray[np.floating] = has.astype(np.float32 if np.abs(ranks).sum() < _EXACT_32 else np.float64)
    score = (ranks.astype(matrix.dtype) @ matrix).astype(np.float64)
    effect = np.divide(score, 2 * pairs, out=np.full(len(score), np.nan), where=pairs > 0)
    tested &= pairs > 0
    p = np.full(len(score), np.nan)
    if tested.any():
        p[tested] = _corrected(
            score[tested], _shifted_scores(parts, _shifts(len(firsts), rolls, seed), len(firsts), matrix[:, tested])
        )
    return AssociationScores(effect, p, tested)


class _Side(NamedTuple):
    """The rows of one side, in the order of the text."""

    rows: NDArray[np.int64]
    ranks: NDArray[np.float64]
    """Midranks among them, doubled and centred: (rows,)."""
    context: NDArray[np.int64]
    """The number of each row's context, among those of both sides."""
    firsts: NDArray[np.int64]
    """The first row of each context that has any."""

    @classmethod
    def of(cls, rows: NDArray[np.int64], value: NDArray[np.float64], context: NDArray[np.int64]) -> _Side:
        return cls(rows, 2 * rankdata(value[rows]) - (len(rows) + 1), context[rows], _firsts(context[rows]))

    def pairs(self, has: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The pairs of rows, one with each attribute and one without: (attributes,)."""
        having = np.count_nonzero(has[self.rows], axis=0)
        return np.asarray(having * (len(self.rows) - having), np.int64)

    def sources(self, shifts: NDArray[np.int64], contexts: int) -> NDArray[np.int64]:
        """The row, of both sides, whose attributes each row gets: (shifts, rows)."""
        sizes = np.diff(self.firsts, append=len(self.rows))
        place = np.arange(len(self.rows)) - np.repeat(self.firsts, sizes)
        following = np.searchsorted(self.context[self.firsts], np.arange(contexts)) % len(self.firsts)
        to = np.concatenate([following, following])[self.context + shifts[:, None]]
        return np.asarray(self.rows[self.firsts[to] + place % sizes[to]])


def _checked(
    values: ArrayLike, side: ArrayLike, context: ArrayLike, attributes: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    value = np.asarray(values, np.float64)
    sides, contexts, has = np.asarray(side), np.asarray(context), np.asarray(attributes)
    if value.ndim != 1:
        raise ValueError(f"values must be one number a row, but are of shape {value.shape}.")
    for name, array in (("side", sides), ("context", contexts)):
        if array.shape != value.shape:
            raise ValueError(f"{name} must be of shape {value.shape}, as values are, but is of shape {array.shape}.")
    if has.ndim != 2 or len(has) != len(value):
        raise ValueError(f"attributes must be of {len(value)} rows, as values are, but are of shape {has.shape}.")
    if not np.isin(sides, (0, 1)).all():
        raise ValueError("side must be 0 or 1 in each row.")
    return value, sides.astype(np.bool_), contexts, has.astype(np.bool_)


def _firsts(context: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where contexts begin, of rows in their order."""
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(context)), bool), context[1:] != context[:-1]]))


def _in_enough_contexts(has: NDArray[np.bool_], firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether enough contexts have a row with each attribute and one without it, of rows in the order of contexts."""
    if not len(has):
        return np.zeros(has.shape[1], np.bool_)
    bits = np.packbits(has, axis=1)
    some, every = (
        np.unpackbits(of_rows.reduceat(bits, firsts, axis=0), axis=1, count=has.shape[1]).sum(axis=0)
        for of_rows in (np.bitwise_or, np.bitwise_and)
    )
    return np.asarray((some >= LEAST_CONTEXTS) & (len(firsts) - every >= LEAST_CONTEXTS))


def _shifts(contexts: int, rolls: int, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Different numbers of contexts to shift by."""
    others = contexts - 1
    drawn = np.arange(others) if others <= rolls else np.random.default_rng(seed).choice(others, rolls, replace=False)
    return np.asarray(drawn + 1)


def _shifted_scores(
    parts: list[_Side], shifts: NDArray[np.int64], contexts: int, matrix: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The scores of each shift: (shifts, attributes)."""
    rows = len(matrix)
    step = max(1, _AT_ONCE // rows)
    scores = np.empty((len(shifts), matrix.shape[1]))
    for low in range(0, len(shifts), step):
        some = shifts[low : low + step]
        ranks = np.zeros(len(some) * rows)
        for part in parts:
            sources = part.sources(some, contexts) + rows * np.arange(len(some))[:, None]
            weights = np.broadcast_to(part.ranks, sources.shape)
            ranks += np.bincount(sources.reshape(-1), weights.reshape(-1), len(ranks))
        scores[low : low + step] = ranks.reshape(len(some), rows).astype(matrix.dtype) @ matrix
    return scores


def _corrected(score: NDArray[np.float64], shifted: NDArray[np.float64]) -> NDArray[np.float64]:
    """p by the largest statistic of each shift.

    The order as it is counts in the deviation as every shift does: else it would be measured by others alone, and
    be called large too often.
    """
    every = np.abs(np.vstack([score, shifted]))
    deviation = np.sqrt((every**2).mean(axis=0))
    size = every / np.where(deviation > 0, deviation, 1)
    largest = np.sort(size[1:].max(axis=1))
    no_smaller = len(largest) - np.searchsorted(largest, size[0], side="left")
    return np.asarray((1 + no_smaller) / (1 + len(largest)))

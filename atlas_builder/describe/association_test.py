"""Whether attributes go with how strongly a unit is active: a rank effect, and p against shifted attributes.

The effect of an attribute is P(value with it > value without) + ½ P(equal) − ½, over pairs of
rows of one side, pairs of both sides pooled: the common-language effect size of Mann and
Whitney's U, less one half. Text is clustered: rows of one context, and neighbouring contexts, share
their attributes, so that a plain rank test is far too bold. The null shifts attributes instead, by whole
contexts and on both sides alike, since these are alike where they are near: each row gets the attributes of
the row at its place in the context so many further on, of its side. p is corrected over all attributes by the
largest statistic (single-step max-T, Westfall & Young 1993).

The score of a shift is a sum of ranks, so that all shifts together are one product of attributes and shifted
ranks; few rows have an attribute, so that it is a sparse one. Ranks are doubled and centred: whole numbers, whose
sums are exact, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import rankdata

NAMED_P = 0.01
"""An association is named where p is at most this, so that it takes a hundred contexts at least,"""
LEAST_EFFECT = 0.05
"""and its effect, either way, at least this."""
LEAST_CONTEXTS = 10
"""An attribute is tested where so many contexts have a row with it, and so many a row without."""

_AT_ONCE = 1 << 16  # shifted ranks in memory
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
    number = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(order)))
    parts = [_Side.of(rows, value, number) for side in (False, True) if len(rows := np.flatnonzero(sides == side))]
    largest = sum(np.abs(part.ranks).sum() for part in parts)
    matrix = _sparse(has, np.float32 if largest < _EXACT_32 else np.float64)
    pairs = np.zeros(has.shape[1])
    for part in parts:
        pairs += part.pairs(matrix)
    scores = _scores(parts, np.append(0, _shifts(len(firsts), rolls, seed)), len(firsts), matrix)
    effect = np.divide(scores[0], 2 * pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    tested = _in_enough_contexts(matrix, firsts) & (pairs > 0)
    p = np.full(len(tested), np.nan)
    if tested.any():
        p[tested] = _corrected(scores[:, tested])
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

    def pairs(self, matrix: csr_array) -> NDArray[np.float64]:
        """The pairs of rows, one with each attribute and one without: (attributes,)."""
        having = np.bincount(self.rows, minlength=matrix.shape[0]).astype(np.float64) @ matrix
        return np.asarray(having * (len(self.rows) - having))

    def sources(self, shifts: NDArray[np.int64], contexts: int) -> NDArray[np.int64]:
        """The row, of both sides, whose attributes each row gets: (rows, shifts)."""
        sizes = np.diff(self.firsts, append=len(self.rows))
        place = np.arange(len(self.rows)) - np.repeat(self.firsts, sizes)
        following = np.searchsorted(self.context[self.firsts], np.arange(contexts)) % len(self.firsts)
        following = np.concatenate([following, following])
        to = self.context[:, None] + shifts
        sources = self.rows[self.firsts[following]][to]
        later = np.flatnonzero(place)  # few as a rule, and a remainder takes longer than all else here
        to = following[to[later]]
        sources[later] = self.rows[self.firsts[to] + place[later, None] % sizes[to]]
        return np.asarray(sources)


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


def _sparse(has: NDArray[np.bool_], kind: type[np.floating]) -> csr_array:
    row, column = np.divmod(np.flatnonzero(has), max(1, has.shape[1]))  # in two dimensions NumPy looks slowly
    return csr_array((np.ones(len(row), kind), (row, column)), has.shape)


def _in_enough_contexts(matrix: csr_array, firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether enough contexts have a row with each attribute and one without it, of rows in the order of contexts."""
    rows, attributes = matrix.shape
    bounds = np.append(firsts, rows)
    of_context = csr_array((np.ones(rows), np.arange(rows), bounds), (len(firsts), rows))
    having = of_context @ matrix
    is_full = having.data == np.repeat(np.diff(bounds), np.diff(having.indptr))
    some, every = (np.bincount(at, minlength=attributes) for at in (having.indices, having.indices[is_full]))
    return np.asarray((some >= LEAST_CONTEXTS) & (len(firsts) - every >= LEAST_CONTEXTS))


def _shifts(contexts: int, rolls: int, seed: int | Sequence[int]) -> NDArray[np.int64]:
    """Different numbers of contexts to shift by."""
    others = contexts - 1
    drawn = np.arange(others) if others <= rolls else np.random.default_rng(seed).choice(others, rolls, replace=False)
    return np.asarray(drawn + 1)


def _scores(parts: list[_Side], shifts: NDArray[np.int64], contexts: int, matrix: csr_array) -> NDArray[np.float64]:
    """The scores of each shift: (shifts, attributes)."""
    rows, attributes = matrix.shape
    step = max(1, _AT_ONCE // max(1, rows))
    scores = np.empty((len(shifts), attributes))
    for low in range(0, len(shifts), step):
        some = shifts[low : low + step]
        ranks = np.zeros(rows * len(some))
        for part in parts:
            sources = part.sources(some, contexts) * len(some) + np.arange(len(some))
            ranks += np.bincount(sources.reshape(-1), np.repeat(part.ranks, len(some)), len(ranks))
        scores[low : low + step] = (matrix.T @ ranks.reshape(rows, len(some)).astype(matrix.dtype)).T
    return scores


def _corrected(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """p by the largest statistic of each shift, of the scores in the order as it is and in all shifts.

    The order as it is counts in the deviation as every shift does: else it would be measured by others alone, and
    be called large too often.
    """
    every = np.abs(scores)
    deviation = np.sqrt((every**2).mean(axis=0))
    size = every / np.where(deviation > 0, deviation, 1)
    largest = np.sort(size[1:].max(axis=1))
    no_smaller = len(largest) - np.searchsorted(largest, size[0], side="left")
    return np.asarray((1 + no_smaller) / (1 + len(largest)))

"""Which pieces of text stand for a unit: some to explain it from, others to score the explanation on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONG = 64
"""Tokens of an excerpt, as in OpenAI's method."""
SHORT = 16
"""Tokens of one that stands for an interval of activations; ours."""
TOP, RANDOM = 5, 5
"""Contexts of highest activation, and any, that an explanation is scored on; as many of the highest explain it."""
INTERVALS, PER_INTERVAL = 12, 2
"""Equal parts of the range from 0 to the maximum, and contexts of each that explain, and that score."""
RANGE_TOP, RANGE_RANDOM = (10, 6), (5, 10)
"""Of the whole range: contexts of highest activation, and any, that explain, and that score."""

Numbers = NDArray[np.intp]


class ExcerptPlace(NamedTuple):
    """An excerpt: its context, its first token there, and how many tokens it has at most."""

    context: int
    first: int
    tokens: int


class Plan(NamedTuple):
    """The excerpts of one unit: no context that explains scores what it explained."""

    explained: list[ExcerptPlace]
    top: list[ExcerptPlace]
    random: list[ExcerptPlace]
    range_explained: list[ExcerptPlace]
    range_scored: list[ExcerptPlace]

    @property
    def contexts(self) -> list[int]:
        """All contexts in it, in rising order."""
        return sorted({place.context for part in self for place in part})


class Excerpt(NamedTuple):
    """Tokens, and the unit's activations on them, 0 where it is below: (tokens,)."""

    tokens: list[str]
    values: NDArray[np.float32]


def plan(
    high: NDArray[np.float32], high_at: NDArray[np.int32], lengths: NDArray[np.int64], seed: Sequence[int]
) -> Plan:
    """Choose excerpts of a unit from its highest activation in each context, and where that is: (contexts,) each.

    `lengths` are those of the contexts, and `seed` is the unit's own.
    """
    chance = np.random.default_rng(seed)
    order = np.argsort(-high, kind="stable")
    order = order[high[order] > 0]
    best = order[: 2 * TOP]
    anywhere = chance.permutation(np.setdiff1d(np.arange(len(high)), best))[:RANDOM]
    explains, scores = _whole_range(high, order, chance)

    def around_keys(contexts: Numbers, tokens: int) -> list[ExcerptPlace]:
        return [_around(one, int(high_at[one]), int(lengths[one]), tokens) for one in contexts.tolist()]

    return Plan(
        explained=around_keys(best[::2], LONG),
        top=around_keys(best[1::2], LONG),
        random=[_around(one, int(chance.integers(lengths[one])), int(lengths[one]), LONG) for one in anywhere.tolist()],
        range_explained=around_keys(explains, SHORT),
        range_scored=around_keys(scores, SHORT),
    )


def _whole_range(high: NDArray[np.float32], order: Numbers, chance: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Contexts from the top, from every interval below, and from anywhere: those that explain, and that score."""
    best, rest = order[: sum(RANGE_TOP)], order[sum(RANGE_TOP) :]
    edges = high.max(initial=0) * np.arange(INTERVALS + 1) / INTERVALS
    drawn = [
        chance.permutation(rest[(high[rest] > low) & (high[rest] <= top)])[: 2 * PER_INTERVAL]
        for low, top in pairwise(edges)
    ]
    free = chance.permutation(np.setdiff1d(np.arange(len(high)), np.concatenate([best, *drawn])))[: sum(RANGE_RANDOM)]
    explains = [best[: RANGE_TOP[0]], *(own[::2] for own in drawn), free[: RANGE_RANDOM[0]]]
    scores = [best[RANGE_TOP[0] :], *(own[1::2] for own in drawn), free[RANGE_RANDOM[0] :]]
    return np.concatenate(explains), np.concatenate(scores)


def _around(context: int, key: int, length: int, tokens: int) -> ExcerptPlace:
    """An excerpt with three quarters of it before the key token, where the context has room for that."""
    return ExcerptPlace(context, min(max(0, key - 3 * tokens // 4), max(0, length - tokens)), tokens)


def cut(
    places: Sequence[ExcerptPlace],
    tokens_of: Callable[[int], list[str]],
    values_of: Callable[[int], NDArray[np.float32]],
) -> list[Excerpt]:
    """The text and the activations at some places."""
    found = []
    for context, first, tokens in places:
        own = slice(first, first + tokens)
        found.append(Excerpt(tokens_of(context)[own], np.maximum(values_of(context)[own], 0)))
    return found

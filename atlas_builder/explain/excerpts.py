"""The choice of excerpts for a unit: some to explain it from, others to score the explanation on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.characters import begins_character
from atlas_builder.corpus.token_text import join_tokens

LONG = 64
"""Tokens of an excerpt, as in OpenAI's method."""
SHORT = 16
"""Tokens of an excerpt for an interval of activations; our choice."""
TOP, RANDOM = 5, 5
"""Contexts of highest activation, and random ones, to score on; to explain from, as many of the highest."""
INTERVALS, PER_INTERVAL = 12, 2
"""Equal intervals from 0 to the maximum; contexts of each to explain from, and as many to score on."""
RANGE_TOP, RANGE_RANDOM = (10, 6), (5, 10)
"""For the whole range: contexts of highest activation, and random ones, each to explain from and to score on."""

Numbers = NDArray[np.intp]


class ExcerptPlace(NamedTuple):
    """An excerpt: its context, its first token there, and its largest number of tokens."""

    context: int
    first: int
    tokens: int


class Plan(NamedTuple):
    """The excerpts of one unit; an explanation is never scored on a context that it is made from."""

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
    """Tokens, and the unit's activations on them, clipped below at 0: (tokens,).

    Tokens that are parts of one character are one, with the highest of their activations.
    """

    tokens: list[str]
    values: NDArray[np.float32]


def plan(
    high: NDArray[np.float32], high_at: NDArray[np.int32], lengths: NDArray[np.int64], seed: Sequence[int]
) -> Plan:
    """Choose excerpts of a unit from its highest activation in each context and its position: (contexts,) each.

    `lengths` are those of the contexts; `seed` is specific to the unit.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(-high, kind="stable")
    order = order[high[order] > 0]
    best = order[: 2 * TOP]
    elsewhere = generator.permutation(np.setdiff1d(np.arange(len(high)), best))[:RANDOM]
    explains, scores = _whole_range(high, order, generator)

    def around_keys(contexts: Numbers, tokens: int) -> list[ExcerptPlace]:
        return [excerpt_around(one, int(high_at[one]), int(lengths[one]), tokens) for one in contexts.tolist()]

    return Plan(
        explained=around_keys(best[::2], LONG),
        top=around_keys(best[1::2], LONG),
        random=[
            excerpt_around(one, int(generator.integers(lengths[one])), int(lengths[one]), LONG)
            for one in elsewhere.tolist()
        ],
        range_explained=around_keys(explains, SHORT),
        range_scored=around_keys(scores, SHORT),
    )


def _whole_range(high: NDArray[np.float32], order: Numbers, generator: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Contexts from the top, from every interval below, and random ones: to explain from, and to score on."""
    best, rest = order[: sum(RANGE_TOP)], order[sum(RANGE_TOP) :]
    edges = high.max(initial=0) * np.arange(INTERVALS + 1) / INTERVALS
    drawn = [
        generator.permutation(rest[(high[rest] > low) & (high[rest] <= top)])[: 2 * PER_INTERVAL]
        for low, top in pairwise(edges)
    ]
    free = generator.permutation(np.setdiff1d(np.arange(len(high)), np.concatenate([best, *drawn])))[
        : sum(RANGE_RANDOM)
    ]
    explains = [best[: RANGE_TOP[0]], *(contexts[::2] for contexts in drawn), free[: RANGE_RANDOM[0]]]
    scores = [best[RANGE_TOP[0] :], *(contexts[1::2] for contexts in drawn), free[RANGE_RANDOM[0] :]]
    return np.concatenate(explains), np.concatenate(scores)


def excerpt_around(context: int, key: int, length: int, tokens: int) -> ExcerptPlace:
    """An excerpt with three quarters of it before the key token, if the context allows."""
    return ExcerptPlace(context, min(max(0, key - 3 * tokens // 4), max(0, length - tokens)), tokens)


def cut(
    places: Sequence[ExcerptPlace],
    tokens_of: Callable[[int], list[str]],
    values_of: Callable[[int], NDArray[np.float32]],
) -> list[Excerpt]:
    """The text and activations at some places, which reach out to where characters begin and end."""
    excerpts = []
    for place in places:
        tokens = tokens_of(place.context)
        excerpts.append(cut_one(place, tokens, character_borders(tokens), values_of(place.context)))
    return excerpts


def character_borders(tokens: list[str]) -> list[int]:
    """Where characters begin in the tokens of a context, and its end."""
    return [*(place for place, begins in enumerate(begins_character(tokens)) if begins or not place), len(tokens)]


def cut_one(place: ExcerptPlace, tokens: list[str], borders: list[int], values: NDArray[np.float32]) -> Excerpt:
    """The excerpt at a place of a context, of which are given the tokens, `character_borders` and activations."""
    low = bisect_right(borders, place.first) - 1
    high = bisect_left(borders, min(place.first + place.tokens, len(tokens)))
    spans = list(pairwise(borders[low : high + 1]))
    return Excerpt(
        [join_tokens(tokens[start:end]) for start, end in spans],
        np.array([max(0, values[start:end].max()) for start, end in spans], np.float32),
    )

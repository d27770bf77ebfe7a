"""Which excerpts a target is explained from, and which the explanation is scored on.

No context that an explanation is made from is used to score it: of the contexts of a behaviour's examples, from the
highest, every second is scored on.

Non-activating excerpts are windows at random places of contexts that are no example of the unit (of a whole unit:
none of its highest contexts), on which it reaches at most `QUIET` of its maximum; where too few of those that are
drawn do, those that reach least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.explain.excerpts import RANDOM, TOP, ExcerptPlace, excerpt_around, plan

MEDIUM = 32
"""Tokens of an excerpt of a behaviour, and of those that are recognised, as in Paulo et al. (2024)."""
SHOWN = 8
"""Excerpts that a behaviour is explained from; our choice."""
RECOGNISED = 10
"""The most activating excerpts to recognise, and the most others beside them; our choice."""
DRAWN = 30
"""Windows of which those that are not activating are chosen."""
QUIET = 0.1
"""The share of the unit's maximum that a non-activating window reaches at most; our choice."""
POOL = 256
"""Contexts of a layer, drawn for all of its units, that random windows are in."""


class TargetPlan(NamedTuple):
    """The excerpts of a target; `idle` are more than needed, of which the non-activating ones are chosen."""

    explained: list[ExcerptPlace]
    top: list[ExcerptPlace]
    random: list[ExcerptPlace]
    range_explained: list[ExcerptPlace]
    range_scored: list[ExcerptPlace]
    active: list[ExcerptPlace]
    idle: list[ExcerptPlace]

    @property
    def places(self) -> set[ExcerptPlace]:
        """All of them."""
        return {place for part in self for place in part}


def pool_of(contexts: int, layer: int, seed: int) -> NDArray[np.int64]:
    """The contexts of a layer that random windows are in."""
    return np.random.default_rng([seed, layer]).permutation(contexts)[:POOL]


def behaviour_plan(
    examples: Sequence[tuple[int, int]],
    of_unit: Sequence[int],
    lengths: NDArray[np.int64],
    pool: NDArray[np.int64],
    seed: Sequence[int],
) -> TargetPlan:
    """The excerpts of a behaviour.

    `examples` are contexts and key tokens of its examples, the highest first; `of_unit` the contexts of all examples of
    its unit, whichever behaviour they are of, where no random window is.
    """
    generator = np.random.default_rng(seed)
    keys: dict[int, int] = {}
    for context, key in examples:
        keys.setdefault(context, key)
    windows = [excerpt_around(context, key, int(lengths[context]), MEDIUM) for context, key in keys.items()]
    scored = windows[1::2]
    idle = _windows(np.setdiff1d(pool, np.array(of_unit, np.int64)), lengths, generator, RANDOM + DRAWN)
    return TargetPlan(windows[::2][:SHOWN], scored[:TOP], idle[:RANDOM], [], [], scored[:RECOGNISED], idle[RANDOM:])


def unit_plan(
    high: NDArray[np.float32],
    high_at: NDArray[np.int32],
    lengths: NDArray[np.int64],
    pool: NDArray[np.int64],
    seed: Sequence[int],
) -> TargetPlan:
    """The excerpts of a whole unit, from its highest activation in each context and its position: (contexts,) each."""
    planned = plan(high, high_at, lengths, seed)
    order = np.argsort(-high, kind="stable")
    order = order[high[order] > 0][: TOP + RECOGNISED]
    scored = [*order[1 : 2 * TOP : 2].tolist(), *order[2 * TOP :].tolist()]
    generator = np.random.default_rng([*seed, 2])
    return TargetPlan(
        *planned,
        active=[excerpt_around(context, int(high_at[context]), int(lengths[context]), MEDIUM) for context in scored],
        idle=_windows(np.setdiff1d(pool, order), lengths, generator, DRAWN),
    )


def _windows(
    contexts: NDArray[np.int64], lengths: NDArray[np.int64], generator: np.random.Generator, number: int
) -> list[ExcerptPlace]:
    """Windows at random places of random contexts."""
    drawn = generator.permutation(contexts)[:number].tolist()
    return [
        ExcerptPlace(context, int(generator.integers(max(0, int(lengths[context]) - MEDIUM) + 1)), MEDIUM)
        for context in drawn
    ]

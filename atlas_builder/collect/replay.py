"""Candidates that a device found above bounds of a while ago, considered one by one as the scan would.

Bounds and limits only rise, so what a device let through is a superset of what matters now, and
what it held back matters no more. A candidate is given by its place in a block of activations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.collect import bands, selection
from atlas_builder.collect.bands import BandSampling
from atlas_builder.collect.candidates import Pool
from atlas_builder.collect.sampling import chance_of_token
from atlas_builder.collect.selection import SelectionRule


class UnitBlock(NamedTuple):
    """Adjacent units of a batch of activations: (batch, tokens, units), no beginnings of sequences among them."""

    first: int
    """The first unit, of a block of `sampling`."""
    units: int
    tokens: int


@njit(nogil=True, cache=True)
def _found(block: UnitBlock, flat: int) -> tuple[int, int, int]:
    """Unit, context and position of a place in a block, flat."""
    token = flat // block.units
    return block.first + flat % block.units, token // block.tokens, token % block.tokens


@njit(nogil=True, cache=True)
def replay_peaks(
    rule: SelectionRule,
    pool: Pool,
    block: UnitBlock,
    batch: NDArray[np.int64],
    flat: NDArray[np.int32],
    value: NDArray[np.float32],
    start: int,
) -> int:
    """Offer the peaks of contexts from number `start` on; the number at which the pool was full, or their count.

    `flat` is a peak's place in the block, `value` its activation: below zero, it is one of the
    unit's negative side.
    """
    for i in range(start, len(flat)):
        unit, place, position = _found(block, flat[i])
        column = unit * rule.signs + np.int64(value[i] < 0)
        magnitude = abs(value[i])
        if magnitude >= rule.bound[column]:
            if not selection.consider(rule, pool, column, magnitude, batch[place], position, -1 - place):
                return i
            selection.raise_highest(rule, column, magnitude)
    return len(flat)


@njit(nogil=True, cache=True)
def replay_tokens(
    draw: BandSampling,
    pool: Pool,
    block: UnitBlock,
    batch: NDArray[np.int64],
    flat: NDArray[np.int32],
    value: NDArray[np.float32],
    start: int,
) -> int:
    """Offer tokens to a draw from number `start` on; the number at which the pool was full, or their count."""
    for i in range(start, len(flat)):
        unit, place, position = _found(block, flat[i])
        chance = chance_of_token(draw.stream, batch[place], position)
        if not bands.consider_token(draw, pool, unit, value[i], chance, batch[place], position, -1 - place):
            return i
    return len(flat)


@njit(nogil=True, cache=True)
def chances_of(stream: np.uint64, batch: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """`chance_of_token` of every token of some contexts, as signed numbers: (batch, tokens)."""
    chances = np.empty((len(batch), tokens), np.int64)
    for place in range(len(batch)):
        for t in range(tokens):
            chances[place, t] = np.int64(chance_of_token(stream, batch[place], t))
    return chances

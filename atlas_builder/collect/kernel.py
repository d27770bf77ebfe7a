"""One pass over a batch of activations: each is read once, for all statistics and candidates."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.collect import bands, selection
from atlas_builder.collect.bands import BandSampling
from atlas_builder.collect.candidates import Pool
from atlas_builder.collect.sampling import SIDE_BY_SIDE, chance_of_token
from atlas_builder.collect.selection import SelectionRule
from atlas_builder.collect.statistics import Counts, Tally, count_activations, count_peaks, find_peaks, no_counts

_TOGETHER = 8  # contexts
DONE, POOL_FULL = -1, -2
"""All was collected; a pool must be widened and the scan repeated without counting."""


@njit(nogil=True, cache=True)
def scan(
    activations: NDArray[np.float32],
    head: int,
    batch: NDArray[np.int64],
    first: int,
    last: int,
    counting: bool,
    tally: Tally,
    rule: SelectionRule,
    near: Pool,
    draw: BandSampling,
    spread: Pool,
    wide_draw: BandSampling,
    wide: Pool,
    own: NDArray[np.int32],
    special: NDArray[np.bool_],
) -> int:
    """Collect units `first` to `last - 1` of (batch, context, units) float32 activations.

    The first `head` tokens of each context are left out; `batch` contains the contexts' numbers, `first` is a multiple
    of `SIDE_BY_SIDE`. No band is drawn from a unit's `own` tokens, and `special` ones count nowhere, (batch, tokens)
    each, or empty. Returns `DONE`, `POOL_FULL`, or the place in the batch of a context with an activation that is NaN.
    """
    tokens = activations.shape[1] - head
    tile = np.zeros((tokens, SIDE_BY_SIDE), np.float32)
    chances = np.empty((len(activations), tokens), np.uint64)
    for place in range(len(activations)):
        for t in range(tokens):
            chances[place, t] = chance_of_token(draw.stream, batch[place], t)
    bins = np.zeros((tokens, SIDE_BY_SIDE), np.int32)
    others = np.zeros((tokens, SIDE_BY_SIDE), np.float32)
    counts = no_counts()
    crowded = False
    # A few contexts at a time, so that both the counts and the activations of adjacent units stay in the cache.
    for group in range(0, len(activations), _TOGETHER):
        for start in range(first, last, SIDE_BY_SIDE):
            units = min(SIDE_BY_SIDE, last - start)
            for place in range(group, min(group + _TOGETHER, len(activations))):
                _load(activations[place], head, start, units, tile)
                counted = _without_special(special[place], tile, others) if len(special) else tile
                if not len(counted):
                    continue
                find_peaks(counted, counts)
                if counting:
                    if not count_activations(counted, units, start, counts, bins[: len(counted)], tally):
                        return place
                    count_peaks(units, start, rule.signs, counts, tally)
                room = _offer_peaks(rule, near, tile, counts, units, start, counting, batch[place], -1 - place)
                if len(own):
                    _leave_out(own[place], start, units, tile)
                if wide_draw.keep:
                    room &= bands.scan_tokens(
                        wide_draw, wide, tile, units, start, batch[place], chances[place], counts.high, -1 - place
                    )
                if draw.keep:
                    room &= bands.scan_tokens(
                        draw, spread, tile, units, start, batch[place], chances[place], counts.high, -1 - place
                    )
                crowded |= not room
    return POOL_FULL if crowded else DONE


@njit(nogil=True, cache=True)
def _load(activations: NDArray[np.float32], head: int, start: int, units: int, tile: NDArray[np.float32]) -> None:
    for t in range(len(tile)):
        for w in range(units):
            tile[t, w] = activations[head + t, start + w]


@njit(nogil=True, cache=True)
def _without_special(
    special: NDArray[np.bool_], tile: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The activations at all other tokens, in `others`; in the tile, of which places count, special ones become NaN."""
    count = 0
    for t in range(len(tile)):
        if special[t]:
            tile[t] = np.float32(np.nan)
        else:
            others[count] = tile[t]
            count += 1
    return others[:count]


@njit(nogil=True, cache=True)
def _leave_out(own: NDArray[np.int32], start: int, units: int, tile: NDArray[np.float32]) -> None:
    """Take the activations out of which no band is drawn: a unit's own ones, and those before an unknown token."""
    for t in range(len(tile)):
        unit = own[t] - start
        if 0 <= unit < units:
            tile[t, unit] = np.float32(np.nan)
        elif own[t] < -1:
            tile[t] = np.float32(np.nan)


@njit(nogil=True, cache=True)
def _offer_peaks(
    rule: SelectionRule,
    pool: Pool,
    tile: NDArray[np.float32],
    counts: Counts,
    units: int,
    start: int,
    counting: bool,
    context: int,
    row: int,
) -> bool:
    room = True
    for w in range(units):
        for side in range(rule.signs):
            column = (start + w) * rule.signs + side
            value = -counts.low[w] if side else counts.high[w]
            if value >= rule.bound[column]:
                if counting:
                    selection.raise_highest(rule, column, value)
                position = 0
                while tile[position, w] != (counts.low[w] if side else value):
                    position += 1
                room &= selection.consider(rule, pool, column, value, context, position, row)
    return room


@njit(nogil=True, cache=True)
def windows(
    activations: NDArray[np.float32],
    head: int,
    places: NDArray[np.int64],
    positions: NDArray[np.int64],
    units: NDArray[np.int64],
    before: int,
    after: int,
) -> NDArray[np.float32]:
    """Activations around tokens, NaN outside the context: (tokens, before + 1 + after)."""
    rows = np.full((len(places), before + 1 + after), np.float32(np.nan), np.float32)
    tokens = activations.shape[1] - head
    for i in range(len(places)):
        for t in range(max(0, positions[i] - before), min(tokens, positions[i] + after + 1)):
            rows[i, t - positions[i] + before] = activations[places[i], head + t, units[i]]
    return rows

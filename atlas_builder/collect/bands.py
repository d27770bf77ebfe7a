"""The activation range of a unit: bands between quantiles, and tokens sampled from each.

Quantiles are of the unit's positive activations over all tokens. Band edges are only
known at the end; so while tokens stream by, the pool keeps for every activation the
first by chance of all tokens at least as active.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    rank_in_column,
    retain,
    take,
)
from atlas_builder.collect.histogram import LOWEST, SIDE, bin_edges
from atlas_builder.collect.sampling import SIDE_BY_SIDE, Chances, chance_of_token, tokens_chances

LEVELS = 64
"""Limits of a draw for each unit, by the zero bits with which a chance begins."""
_FLOOR = np.nextafter(np.float32(2.0**LOWEST), np.float32(0))  # the middle bin counts as no activation
DRAWN = 4
"""Tokens drawn per token shown: enough to fill a band and to compare bands."""


class BandSampling(NamedTuple):
    """How tokens are drawn.

    `limit` is (blocks, levels, SIDE_BY_SIDE): a token whose chance begins with `level`
    zero bits is a candidate only above it; it never decreases.
    """

    keep: int
    """Tokens drawn at or above any activation."""
    stream: np.uint64
    masks: Chances
    limit: NDArray[np.float32]


def band_sampling(keep: int, stream: np.uint64, masks: Chances, *, of_any_sign: bool = False) -> BandSampling:
    """The draw of `keep` tokens at or above any activation, of positive ones or `of_any_sign`."""
    limit = np.full((len(masks), LEVELS, SIDE_BY_SIDE), -np.inf if of_any_sign else _FLOOR, np.float32)
    return BandSampling(keep, stream, masks, limit)


@njit(nogil=True, cache=True)
def _level(chance: np.uint64) -> int:
    """Leading zero bits of a number, 63 at most."""
    level = 0
    for step in (32, 16, 8, 4, 2, 1):
        if chance >> np.uint64(64 - step) == 0:
            level += step
            chance = chance << np.uint64(step)
    return min(level, LEVELS - 1)


@njit(nogil=True, cache=True)
def scan_tokens(
    draw: BandSampling,
    pool: Pool,
    tile: NDArray[np.float32],
    units: int,
    first: int,
    context: int,
    chances: Chances,
    high: NDArray[np.float32],
    row: int,
) -> bool:
    """Add the candidates among the tokens of one context; false where the pool is full.

    `tile` is (tokens, SIDE_BY_SIDE): the activations of `units` units from `first` on, `high` their maxima.
    """
    block = first // SIDE_BY_SIDE
    mask = draw.masks[block]
    last = _last_chance(draw.limit[block], high)
    for t in range(len(tile)):
        if (chances[t] ^ mask) > last:
            continue
        level = _level(chances[t] ^ mask)
        matter = False
        for w in range(SIDE_BY_SIDE):
            matter |= tile[t, w] > draw.limit[block, level, w]
        if not matter:
            continue
        for w in range(units):
            if tile[t, w] > draw.limit[block, level, w]:
                if pool.fill[first + w] == pool.value.shape[1]:
                    prune_tokens(draw, pool, first + w)
                    if pool.fill[first + w] == pool.value.shape[1]:
                        return False
                    if not tile[t, w] > draw.limit[block, level, w]:
                        continue
                append(pool, first + w, tile[t, w], context, t, row)
    return True


@njit(nogil=True, cache=True)
def _last_chance(limit: NDArray[np.float32], high: NDArray[np.float32]) -> np.uint64:
    """The largest chance of a token that can be a candidate where no activation is above `high`, (SIDE_BY_SIDE,).

    `limit`, (levels, SIDE_BY_SIDE), falls with the level, so most tokens are passed over unseen.
    """
    for level in range(LEVELS - 1):
        matter = False
        for w in range(SIDE_BY_SIDE):
            matter |= high[w] > limit[level, w]
        if matter:
            return np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(level)
    return np.uint64(1)


@njit(nogil=True, cache=True)
def consider_token(
    draw: BandSampling, pool: Pool, unit: int, value: float, chance: np.uint64, context: int, position: int, row: int
) -> bool:
    """Add a token of this chance if it is above its limit; false where the pool is full."""
    block, w = unit // SIDE_BY_SIDE, unit % SIDE_BY_SIDE
    level = _level(chance ^ draw.masks[block])
    if not value > draw.limit[block, level, w]:
        return True
    if pool.fill[unit] == pool.value.shape[1]:
        prune_tokens(draw, pool, unit)
        if pool.fill[unit] == pool.value.shape[1]:
            return False
        if not value > draw.limit[block, level, w]:
            return True
    append(pool, unit, value, context, position, row)
    return True


@njit(nogil=True, cache=True)
def prune_tokens(draw: BandSampling, pool: Pool, unit: int) -> None:
    """Drop every token that cannot be drawn any more, and raise the limits."""
    block, w = unit // SIDE_BY_SIDE, unit % SIDE_BY_SIDE
    count = pool.fill[unit]
    chances = np.empty(count, np.uint64)
    for place in range(count):
        chances[place] = chance_of_token(draw.stream, pool.context[unit, place], pool.position[unit, place])
        chances[place] ^= draw.masks[block]
    order = np.argsort(chances)
    best = np.empty(draw.keep, np.float32)  # the highest activations that come first by chance, negated to ascend
    kept = np.empty(count, np.int64)
    held = count = 0
    level = LEVELS - 1
    for place in order:
        if count and chances[place] == chances[kept[count - 1]]:
            continue  # offered again after the pool was widened
        here = _level(chances[place])
        while level > here:
            level -= 1
            if held == draw.keep:  # all of these come before any token of this level
                draw.limit[block, level, w] = -best[held - 1]
        if held == draw.keep and pool.value[unit, place] <= -best[held - 1]:
            continue
        held = insert(best, held, -pool.value[unit, place])
        kept[count] = place
        count += 1
    while level > 0:
        level -= 1
        if held == draw.keep:
            draw.limit[block, level, w] = -best[held - 1]
    retain(pool, unit, kept[:count])


@njit(nogil=True, cache=True)
def prune_all_tokens(draw: BandSampling, pool: Pool) -> None:
    """Prune every column."""
    for unit in range(len(pool.fill)):
        prune_tokens(draw, pool, unit)


def band_edges(
    histogram: NDArray[np.integer], maximum: NDArray[np.floating], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """The edges of the bands: (units, quantiles), NaN where a unit has no positive activation.

    Quantiles are of the positive activations that `histogram`, (units, BINS), counts. An
    edge is the lower edge of the bin that contains the quantile, so its relative error is
    at most 1/16; that of quantile 1 is the maximum. Activations below 2⁻¹⁶ do not count.
    """
    cumulative = np.cumsum(histogram[:, SIDE + 1 :], axis=1, dtype=np.int64)  # (units, SIDE)
    total = cumulative[:, -1:]
    lower = bin_edges()[SIDE + 1 : -1]
    edges = np.empty((len(cumulative), len(quantiles)))
    for place, quantile in enumerate(quantiles):
        if quantile <= 0:
            edges[:, place] = 0
        elif quantile >= 1:
            edges[:, place] = maximum
        else:
            below = (cumulative < quantile * total).sum(axis=1)
            edges[:, place] = np.minimum(lower[np.minimum(below, SIDE - 1)], maximum)
    edges[total[:, 0] == 0] = np.nan
    return edges


class DrawnTokens(NamedTuple):
    """Tokens drawn from the bands of all units, by unit, band and chance: (tokens,) each."""

    candidates: Candidates
    band: NDArray[np.int8]
    rank: NDArray[np.int16]
    """Rank of the token in its band; the first `per_band` are shown."""


def draw_bands(draw: BandSampling, pool: Pool, edges: NDArray[np.float64]) -> DrawnTokens:
    """The tokens sampled from the bands between `edges`, (units, bands + 1).

    Of the `keep` first tokens by chance at or above a band's lower edge, those below its
    upper edge: a uniform sample of the band, independent of what lies above it. The
    maximum belongs to the band that ends there.
    """
    tokens = in_random_order(draw, pool)
    places, bands, ranks = [], [], []
    for band in range(edges.shape[1] - 1):
        low, high = edges[tokens.column, band], edges[tokens.column, band + 1]
        last = band == edges.shape[1] - 2
        above = np.flatnonzero(tokens.value >= low)
        first = above[rank_in_column(tokens.column[above]) < draw.keep]
        chosen = first[(tokens.value[first] <= high[first]) if last else (tokens.value[first] < high[first])]
        places.append(chosen)
        bands.append(np.full(len(chosen), band, np.int8))
        ranks.append(rank_in_column(tokens.column[chosen]).astype(np.int16))
    place, band_of, rank = np.concatenate(places), np.concatenate(bands), np.concatenate(ranks)
    order = np.lexsort([rank, band_of, tokens.column[place]])
    return DrawnTokens(take(tokens, place[order]), band_of[order], rank[order])


def in_random_order(draw: BandSampling, pool: Pool) -> Candidates:
    """All tokens that some band could be drawn from, by unit and chance."""
    prune_all_tokens(draw, pool)
    tokens = candidates(pool)
    chances = tokens_chances(draw.stream, tokens.context.astype(np.uint64), tokens.position.astype(np.uint64))
    chances ^= draw.masks[tokens.column // SIDE_BY_SIDE]
    return take(tokens, np.lexsort([chances, tokens.column]))

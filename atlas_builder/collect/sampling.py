"""Random numbers that depend on the position in the corpus alone, however the work is divided.

A uniform sample of a set is its members of the smallest numbers, in whatever order they
are visited. The generator is SplitMix64 (Steele et al. 2014), a bijection of 64 bits, so
within a set no two numbers are equal.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Chances = NDArray[np.uint64]

SIDE_BY_SIDE = 16
"""Adjacent units that share their draw of tokens; a cache line of activations."""


@njit(nogil=True, cache=True)
def mix(x: np.uint64) -> np.uint64:
    """The next number of SplitMix64 after `x`."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def chance_of_context(stream: np.uint64, unit: int, side: int, context: int) -> np.uint64:
    """The random number of one context for a unit and side (0 positive, 1 negative)."""
    key = ((np.uint64(unit) | (np.uint64(side) << np.uint64(31))) << np.uint64(32)) | np.uint64(context)
    chance: np.uint64 = mix(mix(key) ^ stream)
    return chance


@njit(nogil=True, cache=True)
def chance_of_token(stream: np.uint64, context: int, position: int) -> np.uint64:
    """The random number of one token of the corpus, before it is combined with a unit's `masks`."""
    chance: np.uint64 = mix(mix((np.uint64(context) << np.uint64(32)) | np.uint64(position)) ^ stream)
    return chance


def stream(seed: int, layer: int) -> np.uint64:
    """The stream of random numbers of one seed and layer."""
    return np.uint64(mix(np.uint64((int(mix(np.uint64(seed))) + layer) % 2**64)))


def background_stream(seed: int, layer: int) -> np.uint64:
    """The stream of a layer's background, apart from that of its examples and bands."""
    return np.uint64(mix(~stream(seed, layer)))


def masks(seed: int, layer: int, units: int) -> Chances:
    """Masks to xor with a token's number, one per `SIDE_BY_SIDE` units, so that each block draws independently."""
    key = int(mix(stream(seed, layer)))
    return np.array([mix(np.uint64(key ^ block)) for block in range(-(-units // SIDE_BY_SIDE))], np.uint64)


@njit(nogil=True, cache=True)
def contexts_chances(stream: np.uint64, unit: Chances, side: Chances, context: Chances) -> Chances:
    """`chance_of_context`, element by element."""
    chances = np.empty(len(unit), np.uint64)
    for i in range(len(unit)):
        chances[i] = chance_of_context(stream, unit[i], side[i], context[i])
    return chances


@njit(nogil=True, cache=True)
def tokens_chances(stream: np.uint64, context: Chances, position: Chances) -> Chances:
    """`chance_of_token`, element by element."""
    chances = np.empty(len(context), np.uint64)
    for i in range(len(context)):
        chances[i] = chance_of_token(stream, context[i], position[i])
    return chances

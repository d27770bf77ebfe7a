"""The random numbers by which samples are drawn, from their definition: m is the SplitMix64 generator.

With s = m(m(seed) + layer), the number of a context for a unit is m(m((unit, with bit 31 set for
negative activations) · 2³² + context) xor s), that of a token for a unit is
m(m(context · 2³² + position) xor s) xor m(m(s) xor ⌊unit / 16⌋); that of a token for the
background is m(m(context · 2³² + position) xor m(not s)), and of an own position of an output
neuron the same with m(m(s) xor 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Chances = NDArray[np.uint64]

_SHARING = 16  # adjacent units that share their draw of tokens but for a mask


def chances_of_contexts(seed: int, layer: int, unit: int, negative: bool, contexts: NDArray[np.int64]) -> Chances:
    """(contexts,)."""
    column = np.uint64(unit | (negative << 31)) << np.uint64(32)
    return mixed(mixed(column + contexts.astype(np.uint64)) ^ _stream(seed, layer))


def chances_of_tokens(seed: int, layer: int, unit: int, context: ArrayLike, position: ArrayLike) -> Chances:
    """For the bands of a unit: (tokens,)."""
    stream = _stream(seed, layer)
    return _of_tokens(stream, context, position) ^ mixed(mixed(stream) ^ np.uint64(unit // _SHARING))


def chances_of_own(seed: int, layer: int, context: ArrayLike, position: ArrayLike) -> Chances:
    """For the own positions of output neurons: (tokens,)."""
    return _of_tokens(mixed(mixed(_stream(seed, layer)) ^ np.uint64(1)), context, position)


def chances_in_background(seed: int, layer: int, context: ArrayLike, position: ArrayLike) -> Chances:
    """(tokens,)."""
    return _of_tokens(mixed(~_stream(seed, layer)), context, position)


def _of_tokens(stream: Chances, context: ArrayLike, position: ArrayLike) -> Chances:
    place = (np.asarray(context).astype(np.uint64) << np.uint64(32)) + np.asarray(position).astype(np.uint64)
    return mixed(mixed(place) ^ stream)


def _stream(seed: int, layer: int) -> Chances:
    return mixed(mixed(np.array([seed], np.uint64)) + np.uint64(layer))


def mixed(x: Chances) -> Chances:
    """SplitMix64 (Steele et al. 2014), of each number."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))

"""The direct effect of a unit on the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Effects(NamedTuple):
    """The tokens a unit promotes most, highest first, and suppresses most, lowest first."""

    positive: NDArray[np.int32]  # (units, tokens)
    positive_values: Floats
    negative: NDArray[np.int32]
    negative_values: Floats


def logit_effects(write_weights: Floats, unembedding: Floats) -> Floats:
    """The direct logit effect: what one unit of activation adds to each logit through the residual stream alone.

    `write_weights` (units, d_model) · `unembedding` (d_model, vocabulary), which has the
    final norm's gain and centring folded in (`LanguageModel.unembedding`); the mean over
    the vocabulary, which no probability depends on, is subtracted. The final norm's
    division, one positive number a context, is left out, so values are comparable within
    a model, not between models.
    """
    effects: Floats = write_weights @ unembedding
    effects -= effects.mean(axis=1, keepdims=True)
    return effects


def named_tokens(texts: Sequence[str]) -> NDArray[np.int32]:
    """The ids of a vocabulary's tokens, without rows that no token has: those of a vocabulary that was padded."""
    return np.flatnonzero([bool(text) for text in texts]).astype(np.int32)


def strongest(effects: Floats, tokens: int, named: NDArray[np.int32] | None = None) -> Effects:
    """The `tokens` largest and smallest effects of each unit, of tokens `named`; ties go to the lower token id."""
    named = np.arange(effects.shape[1], dtype=np.int32) if named is None else named
    positive, negative = (_top(effects, named, tokens, sign) for sign in (-1, 1))
    return Effects(
        positive,
        np.take_along_axis(effects, positive, axis=1),
        negative,
        np.take_along_axis(effects, negative, axis=1),
    )


def _top(effects: Floats, named: NDArray[np.int32], count: int, sign: int) -> NDArray[np.int32]:
    """The tokens, of those named, of the smallest `sign` · effect of each unit, in rising order: (units, tokens)."""
    tokens: NDArray[np.int32] = _smallest(effects, named, min(count, len(named)), np.float32(sign))
    return tokens


@njit(nogil=True, cache=True)
def _smallest(effects: Floats, named: NDArray[np.int32], count: int, sign: np.float32) -> NDArray[np.int32]:
    """As `_top`; what is not a number comes last, as in numpy, and of equals the first."""
    found = np.empty((len(effects), count), np.int32)
    keys = np.empty(count, np.float32)
    for unit in range(len(effects)):
        kept = 0
        for token in named:
            key = sign * effects[unit, token]
            if kept == count and not (key < keys[count - 1] or (np.isnan(keys[count - 1]) and not np.isnan(key))):
                continue
            place = kept if kept < count else count - 1
            while place > 0 and (key < keys[place - 1] or (np.isnan(keys[place - 1]) and not np.isnan(key))):
                keys[place], found[unit, place] = keys[place - 1], found[unit, place - 1]
                place -= 1
            keys[place], found[unit, place] = key, token
            kept = min(count, kept + 1)
    return found

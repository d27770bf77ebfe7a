"""The direct effect of a unit on the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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
    effects = write_weights @ unembedding
    centred: Floats = effects - effects.mean(axis=1, keepdims=True)
    return centred


def named_tokens(texts: Sequence[str]) -> NDArray[np.int32]:
    """The ids of a vocabulary's tokens, without rows that no token has: those of a vocabulary that was padded."""
    return np.flatnonzero([bool(text) for text in texts]).astype(np.int32)


def strongest(effects: Floats, tokens: int, named: NDArray[np.int32] | None = None) -> Effects:
    """The `tokens` largest and smallest effects of each unit, of tokens `named`; ties go to the lower token id."""
    if named is None or len(named) == effects.shape[1]:
        named, listed = np.arange(effects.shape[1], dtype=np.int32), effects
    else:
        listed = effects[:, named]
    positive, negative = _top(-listed, tokens), _top(listed, tokens)
    return Effects(
        named[positive],
        np.take_along_axis(listed, positive, axis=1),
        named[negative],
        np.take_along_axis(listed, negative, axis=1),
    )


def _top(keys: Floats, count: int) -> NDArray[np.int32]:
    """The places of the smallest keys of each row, in rising order."""
    count = min(count, keys.shape[1])
    place = np.argpartition(keys, count - 1, axis=1)[:, :count]
    # argpartition may leave out an equal key at a lower place: take the bound, then choose among equals.
    bound = np.take_along_axis(keys, place, axis=1).max(axis=1, keepdims=True)
    if (np.count_nonzero(keys <= bound, axis=1) > count).any():
        place = np.argsort(keys, axis=1, kind="stable")[:, :count]
    else:
        place = np.sort(place, axis=1)
        order = np.argsort(np.take_along_axis(keys, place, axis=1), axis=1, kind="stable")
        place = np.take_along_axis(place, order, axis=1)
    return place.astype(np.int32)

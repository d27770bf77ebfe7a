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
    from atlas_builder.describe.smallest import smallest  # readers of results need no compiler

    tokens: NDArray[np.int32] = smallest(effects, named, min(count, len(named)), np.float32(sign))
    return tokens

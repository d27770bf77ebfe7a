"""Which attributes of samples go with activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atlas_builder.describe.association_test import association_test


class AttributeAssociations(NamedTuple):
    """How attributes go with activations: (attributes,) each."""

    effect: NDArray[np.float64]
    """P(activation with the attribute > without) + ½ P(equal) − ½; NaN where nothing can be compared."""
    p: NDArray[np.float64]
    """Corrected for the number of attributes; NaN where fewer than ten contexts have the attribute, or lack it."""


def associations(
    activations: ArrayLike,
    own: ArrayLike,
    attributes: ArrayLike,
    *,
    contexts: ArrayLike | None = None,
    rolls: int = 200,
    seed: int | Sequence[int] = 0,
) -> AttributeAssociations:
    """Test which attributes go with activations, those that are own and the others each among themselves.

    Args:
        activations: One number a sample, (samples,); those of NaN are left out.
        own: Whether each sample is of the class, or the token came: (samples,). What goes with
            being own is no association. All alike where it is of no interest.
        attributes: What each sample has, true or false: (samples, attributes).
        contexts: The context, such as the number of a text, that each sample is from: (samples,). The
            null shifts attributes by whole contexts, in the order of these numbers. Without them each sample is one.
        rolls: Number of shifts, at most one fewer than there are contexts. The smallest p is 1 / (1 + shifts).
        seed: Seed of the shifts.

    Returns:
        An effect from −½ to ½ and a p for each attribute, as an atlas has them
            (`atlas_builder.describe.association_test`).

    Raises:
        ValueError: Shapes do not fit, or `own` is neither 0 nor 1.
    """
    of_samples = np.arange(np.size(activations)) if contexts is None else contexts
    scores = association_test(activations, own, of_samples, attributes, rolls=rolls, seed=seed)
    return AttributeAssociations(scores.effect, scores.p)

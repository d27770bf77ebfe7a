"""Which tokens a behaviour answers to, and how much of it each is."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray


def window_tokens(
    tokens: NDArray[np.int32],
    starts: NDArray[np.int64],
    context: NDArray[np.int32],
    position: NDArray[np.int32],
    before: int,
    after: int,
) -> NDArray[np.int32]:
    """The tokens around each example's key token, −1 outside its context: (examples, window)."""
    first = starts[context]
    place = (first + position)[:, None] + np.arange(-before, after + 1)
    inside = (place >= first[:, None]) & (place < starts[context + 1][:, None])
    return np.where(inside, tokens[np.where(inside, place, 0)], -1)


def token_shares(
    tokens: NDArray[np.int32], values: NDArray[np.float32], behaviour: NDArray[np.int64], count: int, most: int
) -> list[list[tuple[int, float]]]:
    """For each of `count` behaviours its `most` weightiest tokens with their weights.

    A token's weight is its share of the positive activation in the windows of the
    behaviour's examples: Σ max(a, 0) over its occurrences / Σ max(a, 0) over all; below
    zero, `values` come with the sign turned. Shapes
    (examples, window), (examples, window), (examples,); examples of no behaviour are −1.
    """
    mass = np.where((tokens >= 0) & (values > 0) & (behaviour >= 0)[:, None], np.nan_to_num(values), 0)
    rows, columns = np.nonzero(mass)
    weight = mass[rows, columns].astype(np.float64)
    key = behaviour[rows] << 32 | tokens[rows, columns]
    pairs, inverse = np.unique(key, return_inverse=True)
    sums = np.bincount(inverse, weights=weight, minlength=len(pairs))
    owner, token = pairs >> 32, pairs & 0xFFFFFFFF
    totals = np.bincount(owner, weights=sums, minlength=count)
    shares = sums / totals[owner]
    order = np.lexsort([token, -shares, owner])
    owner, token, shares = owner[order], token[order], shares[order]
    starts = np.searchsorted(owner, np.arange(count + 1))
    return [
        [(int(token[i]), float(shares[i])) for i in range(low, min(high, low + most))]
        for low, high in itertools.pairwise(starts)
    ]

"""The tokens a behaviour responds to, and the share of each."""

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
    tokens: NDArray[np.int32], values: NDArray[np.float32], behaviour: NDArray[np.int64], count: int, limit: int
) -> list[list[tuple[int, float]]]:
    """For each of `count` behaviours its `limit` weightiest tokens with their weights.

    A token's weight is its share of the positive activation in the windows of the
    behaviour's examples: Σ max(a, 0) over its occurrences / Σ max(a, 0) over all; for
    behaviours below zero, `values` are negated. Shapes
    (examples, window), (examples, window), (examples,); unclustered examples are −1.
    """
    mass = np.where((tokens >= 0) & (values > 0) & (behaviour >= 0)[:, None], np.nan_to_num(values), 0)
    rows, columns = np.nonzero(mass)
    return _shares(behaviour[rows], tokens[rows, columns], mass[rows, columns].astype(np.float64), count, limit)


def next_tokens(
    tokens: NDArray[np.int32],
    starts: NDArray[np.int64],
    document: NDArray[np.int32],
    context: NDArray[np.int32],
    position: NDArray[np.int32],
    begins: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """The token after each example's key token in its document, −1 at the document's end: (examples,).

    Where the key token is part of a character, that is the token after the character; `begins` says of every token
    whether it begins one, None where all do.
    """
    place = starts[context] + position + 1
    end = starts[context + 1]
    if begins is not None:
        while (within := (place < end) & ~begins[np.minimum(place, len(begins) - 1)]).any():
            place += within
    goes_on = np.append(document[1:] == document[:-1], False)[context]  # the next context is of the same document
    return np.where((place < end) | goes_on, tokens[np.minimum(place, len(tokens) - 1)], -1)


def next_shares(
    following: NDArray[np.int32], behaviour: NDArray[np.int64], count: int, limit: int
) -> list[list[tuple[int, float]]]:
    """For each of `count` behaviours its `limit` most frequent next tokens in the text, with their shares.

    A token's share is of the behaviour's examples that have a next token. Shapes
    (examples,), (examples,); unclustered examples are −1.
    """
    counted = (following >= 0) & (behaviour >= 0)
    return _shares(behaviour[counted], following[counted], np.ones(int(counted.sum())), count, limit)


def _shares(
    owner: NDArray[np.int64], token: NDArray[np.int32], weight: NDArray[np.float64], count: int, limit: int
) -> list[list[tuple[int, float]]]:
    """For each of `count` owners its `limit` weightiest tokens, each with its share of the owner's weight."""
    pairs, inverse = np.unique(owner << 32 | token, return_inverse=True)
    sums = np.bincount(inverse, weights=weight, minlength=len(pairs))
    whose, which = pairs >> 32, pairs & 0xFFFFFFFF
    totals = np.bincount(whose, weights=sums, minlength=count)
    shares = sums / totals[whose]
    order = np.lexsort([which, -shares, whose])
    whose, which, shares = whose[order], which[order], shares[order]
    starts = np.searchsorted(whose, np.arange(count + 1))
    return [
        [(int(which[i]), float(shares[i])) for i in range(low, min(high, low + limit))]
        for low, high in itertools.pairwise(starts)
    ]

"""The tokens a behaviour responds to, and the share of each."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from atlas_builder.describe.terms import first_of_each


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
    """For each of `count` owners its `limit` weightiest tokens, each with its share of the owner's weight.

    The weights of one token are added in the order in which they are given.
    """
    pairs, inverse = numbered_pairs(owner, token)
    sums = np.bincount(inverse[1], weights=weight[inverse[0]], minlength=len(pairs))
    whose, which = pairs >> 32, pairs & 0xFFFFFFFF
    shares = sums / np.bincount(whose, weights=sums, minlength=count)[whose]
    chosen = largest_of_each(shares, whose, limit)
    ends = np.searchsorted(whose[chosen], np.arange(count + 1)).tolist()
    ranked = list(zip(which[chosen].tolist(), shares[chosen].tolist(), strict=True))
    return [ranked[low:high] for low, high in itertools.pairwise(ends)]


def numbered_pairs(
    owner: NDArray[np.int64], token: NDArray[np.int32]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each pair of owner and token once, owner << 32 | token, in rising order; and the places by pair, with its number.

    Sorting numbers is several times as fast as finding their order, so the places are sorted along in the low bits.
    """
    low, middle = (int(most).bit_length() for most in (len(owner), token.max(initial=0)))
    if int(owner.max(initial=0)).bit_length() + middle + low > 63:
        pairs, inverse = np.unique(owner << 32 | token, return_inverse=True)
        return pairs, (np.arange(len(owner)), inverse)
    keys = np.sort((owner << middle | token) << low | np.arange(len(owner)))
    place, pair = keys & ((1 << low) - 1), keys >> low
    firsts = first_of_each(pair)
    once, number = pair[firsts], np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(pair)))
    return once >> middle << 32 | once & ((1 << middle) - 1), (place, number)


def largest_of_each(values: NDArray[np.float64], owner: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The places of the `limit` largest values of each owner, by owner and falling; of equals the first come first.

    Shapes (values,) each; owners rise, values are above zero.
    """
    left = values.copy()
    firsts = first_of_each(owner)
    sizes = np.diff(firsts, append=len(owner))
    rounds = []
    for _ in range(min(limit, int(sizes.max(initial=0)))):
        most = np.maximum.reduceat(left, firsts)
        hits = np.flatnonzero((left == np.repeat(most, sizes)) & (left > 0))
        chosen = hits[first_of_each(owner[hits])]
        left[chosen] = 0
        rounds.append(chosen)
    every = np.concatenate([np.zeros(0, np.int64), *rounds])
    return every[np.argsort(owner[every], kind="stable")]

"""The baseline for the demo model: an interpolated Kneser-Ney trigram model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


class Trigram:
    """Interpolated Kneser-Ney with one discount an order (Chen and Goodman 1999, equation 4.34).

    The discount of an order is n₁ / (n₁ + 2 n₂), with n₁ and n₂ the numbers of its
    n-grams seen once and twice. The unigram order is interpolated with the uniform
    distribution by the same rule, so no token has probability zero.
    """

    def __init__(self, tokens: Tokens, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        a, b, c = tokens[:-2], tokens[1:-1], tokens[2:]
        triples, counts = np.unique(self._key(a, b, c), return_counts=True)
        # Lower orders count the contexts in which a token was seen, not its occurrences.
        pairs, pair_counts = np.unique(triples % vocabulary**2, return_counts=True)
        singles, single_counts = np.unique(pairs % vocabulary, return_counts=True)
        self._orders = [
            _Order(singles, single_counts, vocabulary),
            _Order(pairs, pair_counts, vocabulary),
            _Order(triples, counts, vocabulary),
        ]

    def loss(self, tokens: Tokens) -> float:
        """Mean negative log-likelihood of every token but the first two, in nats a token."""
        a, b, c = tokens[:-2], tokens[1:-1], tokens[2:]
        probability = np.full(len(c), 1 / self.vocabulary)
        for order, key in zip(self._orders, (c, self._key(b, c), self._key(a, b, c)), strict=True):
            probability = order.interpolate(key, probability)
        return float(-np.log(probability).mean())

    def _key(self, *tokens: Tokens) -> Tokens:
        key = np.zeros_like(tokens[0])
        for token in tokens:
            key = key * self.vocabulary + token
        return key


class _Order:
    """Discounted counts of n-grams, looked up by a key whose last digit is the token."""

    def __init__(self, keys: Tokens, counts: Tokens, vocabulary: int) -> None:
        self.keys, self.counts, self.vocabulary = keys, counts, vocabulary
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self.discount = once / (once + 2 * twice) if once else 0.5
        self.histories, starts = np.unique(keys // vocabulary, return_index=True)
        self.totals = np.add.reduceat(counts, starts)
        self.kinds = np.diff(np.append(starts, len(keys)))

    def interpolate(self, key: Tokens, lower: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(token | history), interpolated with `lower` by the discounted mass."""
        count = _look_up(self.keys, self.counts, key)
        total = _look_up(self.histories, self.totals, key // self.vocabulary)
        kinds = _look_up(self.histories, self.kinds, key // self.vocabulary)
        seen = total > 0
        total = np.maximum(total, 1)
        mixed = (np.maximum(count - self.discount, 0) + self.discount * kinds * lower) / total
        return np.where(seen, mixed, lower)


def _look_up(keys: Tokens, values: Tokens, searched: Tokens) -> Tokens:
    """The value of each searched key, 0 if it is missing; `keys` are sorted."""
    place = np.minimum(np.searchsorted(keys, searched), len(keys) - 1)
    return np.where(keys[place] == searched, values[place], 0)

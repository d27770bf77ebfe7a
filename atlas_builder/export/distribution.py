"""Percentiles and equal bins of a unit's activations, from the histogram of its record.

Bin j holds c_j of N tokens, taken to lie evenly between its edges e_j and e_(j+1). The first edge is moved to the
minimum, the last to the maximum, and the others into the range between them, so that

    F(x) = Σ_j c_j · min(1, max(0, (x − e_j) / (e_(j+1) − e_j)))

tokens lie below x. The p-th percentile is the least x with F(x) ≥ p · N / 100; a bin between a and b has
F(b) − F(a) tokens, in whole numbers, for which F is rounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

from atlas_builder.errors import SiteError

PERCENTILES = 100
BARS = 32
"""Equal bins; as many as the record's histogram has at most."""


class Distribution:
    """How many tokens lie where, from `edges` and `counts`, one edge more than counts, between two extremes."""

    def __init__(self, edges: Sequence[float], counts: Sequence[int], low: float, high: float) -> None:
        """Raises `SiteError` for what is no histogram: edges that fall, counts below zero, extremes in reverse."""
        rises = all(one <= other for one, other in pairwise(edges))
        if len(edges) != len(counts) + bool(counts) or not rises or min(counts, default=0) < 0 or low > high:
            raise SiteError("its histogram is none")
        self._edges = [low, *(min(max(edge, low), high) for edge in edges[1:-1]), high]
        self._counts = counts
        self._below = list(accumulate(counts, initial=0))
        """Tokens below each edge."""

    def percentiles(self, number: int = PERCENTILES) -> list[float]:
        """The values below which 1, 2, … of `number` equal parts of the tokens lie; the last is the maximum.

        Zeros where there are no tokens.
        """
        total = self._below[-1]
        return [self._at(part * total / number) if total else 0.0 for part in range(1, number + 1)]

    def bars(self, number: int = BARS) -> list[int]:
        """The tokens in each of `number` equal bins from the minimum to the maximum; their sum is that of all."""
        low, high = self._edges[0], self._edges[-1]
        cuts = [low + (high - low) * place / number for place in range(1, number)]
        below = [0, *(round(self._tokens_below(cut)) for cut in cuts), self._below[-1]]
        return [after - before for before, after in pairwise(below)]

    def _at(self, rank: float) -> float:
        """The least value with so many tokens below it, more than none."""
        place = bisect_left(self._below, rank, 1) - 1
        low, high = self._edges[place : place + 2]
        share = (rank - self._below[place]) / self._counts[place]
        return high if share >= 1 else low + (high - low) * share

    def _tokens_below(self, value: float) -> float:
        place = bisect_left(self._edges, value, 1, len(self._edges) - 1) - 1
        if place >= len(self._counts):
            return 0.0  # no tokens at all
        low, high = self._edges[place : place + 2]
        share = 1.0 if value >= high else max(0.0, (value - low) / (high - low))
        return self._below[place] + self._counts[place] * share

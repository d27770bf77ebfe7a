"""Which part of a text directions are found on, and in which blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.contexts import Contexts

BLOCKS = 16
"""Of the text, even ones of one half of it, odd ones of the other."""
_SHARE_OF_A_HALF = 1 / 3


class RotationPlan:
    """Which contexts of a text are read, and in which block."""

    def __init__(self, read: Contexts, most: int | None) -> None:
        lengths = np.diff(read.starts)
        wanted = len(read) if most is None else min(len(read), max(1, most * len(read) // max(1, read.token_count)))
        self.contexts = np.arange(wanted, dtype=np.int64) * len(read) // max(1, wanted)
        """Numbers of the contexts, spread evenly: (n,)."""
        lengths = lengths[self.contexts]
        self.first_row = np.concatenate([[0], np.cumsum(lengths)])
        """The number of the first token of each context, among all tokens that are read: (n + 1,)."""
        half = _halves(read.document[self.contexts], lengths)
        self.block = np.empty(wanted, np.int64)
        for side in (0, 1):
            places = np.flatnonzero(half == side)
            self.block[places] = 2 * (np.arange(len(places)) % (BLOCKS // 2)) + side

    @property
    def tokens(self) -> int:
        """Number of tokens that are read."""
        return int(self.first_row[-1])

    def batches(self, block: int, at_once: int) -> Iterator[NDArray[np.int64]]:
        """Places of contexts of a block in `contexts`, those of one length together, so many tokens at once."""
        places = np.flatnonzero(self.block == block)
        lengths = np.diff(self.first_row)[places]
        for length in np.unique(lengths):
            same = places[lengths == length]
            size = max(1, at_once // int(length))
            yield from (same[first : first + size] for first in range(0, len(same), size))

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the tokens of contexts: (contexts · tokens,)."""
        return np.concatenate([np.arange(self.first_row[place], self.first_row[place + 1]) for place in places])


def _halves(document: NDArray[np.int32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 or 1 for each context: whole documents, as many tokens in both halves; contexts in turn where one is large."""
    totals = np.bincount(document, weights=lengths)
    half, filled = np.zeros(len(totals), np.int64), [0.0, 0.0]
    for number in np.flatnonzero(totals):
        half[number] = int(filled[1] < filled[0])
        filled[half[number]] += totals[number]
    if min(filled) < _SHARE_OF_A_HALF * sum(filled):
        return np.arange(len(document)) % 2
    return half[document]

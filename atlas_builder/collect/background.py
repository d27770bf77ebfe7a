"""The background of a layer: what its units read at random tokens of the corpus.

A uniform sample without replacement: of all tokens of text, those of smallest chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.sampling import Chances, tokens_chances
from atlas_builder.collect.vector_log import RowLog

BACKGROUND_TOKENS = 1024
"""Tokens in the sample of a layer; a corpus of fewer is taken whole."""


class Background:
    """The sample of one layer so far, by chance.

    Only places are held in memory; inputs are in `log`. With `saved`, which has what
    `arrays` gave, it continues from there.
    """

    def __init__(self, stream: np.uint64, log: RowLog, saved: Mapping[str, Any] | None = None) -> None:
        self._stream, self.log = stream, log
        self.context: NDArray[np.int64] = np.zeros(0, np.int64)
        self.position: NDArray[np.int64] = np.zeros(0, np.int64)
        self._row: NDArray[np.int64] = np.zeros(0, np.int64)
        if saved is not None:
            self.context, self.position = saved["background_context"], saved["background_position"]
            self._row = saved["background_row"]
        self._chances = self._chances_of(self.context, self.position)

    def visit(
        self, batch: NDArray[np.int64], inputs: Tensor, head: int, special: NDArray[np.bool_] | None = None
    ) -> None:
        """Take in the inputs of a batch, (batch, context, width), but for the first `head` tokens of every context.

        Nor are those that are `special`, (batch, tokens).
        """
        place, position = self.places(batch, inputs.shape[1] - head, special)
        if len(place):
            # Indexed by numpy: torch would wake all its threads for these few rows.
            self.add(batch[place], position, inputs.numpy()[place, head + position])

    def places(
        self, batch: NDArray[np.int64], tokens: int, special: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places in a batch of contexts of `tokens` tokens, and the positions, of those that are in the sample."""
        context, position = np.repeat(batch, tokens), np.tile(np.arange(tokens), len(batch))
        if special is None:
            return np.divmod(self._chosen(self._chances_of(context, position)), tokens)
        counted = np.flatnonzero(~special)
        return np.divmod(counted[self._chosen(self._chances_of(context[counted], position[counted]))], tokens)

    def merge(self, other: Background) -> None:
        """Merge in the sample of other contexts."""
        chosen = self._chosen(other._chances)
        if len(chosen):
            self.add(other.context[chosen], other.position[chosen], other._inputs(chosen))

    def _chosen(self, chances: Chances) -> NDArray[np.int64]:
        """Which of these tokens are in the sample of all tokens so far and of these: ascending."""
        held = len(self._chances)
        below = np.arange(len(chances))
        if held == BACKGROUND_TOKENS:
            below = np.flatnonzero(chances < self._chances[-1])
        order = np.argsort(np.concatenate([self._chances, chances[below]]))[:BACKGROUND_TOKENS]
        return np.sort(below[order[order >= held] - held])

    def add(self, context: NDArray[np.int64], position: NDArray[np.int64], inputs: NDArray[np.float32]) -> None:
        """Take tokens of `places` into the sample, with their inputs: (tokens, width)."""
        chances = np.concatenate([self._chances, self._chances_of(context, position)])
        order = np.argsort(chances)[:BACKGROUND_TOKENS]  # no two are equal, so this order is total
        self._chances = chances[order]
        self.context = np.concatenate([self.context, context])[order]
        self.position = np.concatenate([self.position, position])[order]
        self._row = np.concatenate([self._row, self.log.append(inputs)])[order]

    def _chances_of(self, context: NDArray[np.int64], position: NDArray[np.int64]) -> Chances:
        chances: Chances = tokens_chances(self._stream, context.astype(np.uint64), position.astype(np.uint64))
        return chances

    @property
    def inputs(self) -> NDArray[np.float32]:
        """The inputs of the sample, by chance: (tokens, width)."""
        return self._inputs(np.arange(len(self._row)))

    def _inputs(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = list(self.log.parts(self._row[places]))
        return np.concatenate(parts) if parts else np.zeros((0, self.log.width), np.float32)

    def thin(self) -> None:
        """Drop inputs that are no longer in the sample, on disk as well."""
        if self.log.is_mostly_waste(len(self._row)):
            self.log.retain(self._row)
            self._row = np.arange(len(self._row))

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """What a checkpoint saves, beside the length of the log."""
        return {
            "background_context": self.context,
            "background_position": self.position,
            "background_row": self._row,
        }

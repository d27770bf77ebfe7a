"""A layer collected where its activations are: statistics are counted there, and only candidates cross.

A device counts a batch and finds what reaches the bounds of `selection` and `bands`; the host
considers that with the loops that the scan uses, so the results are the same bytes. What a batch
needs of the device's memory it has before anything is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect import bands, candidates, selection
from atlas_builder.collect.candidates import Pool
from atlas_builder.collect.device_candidates import (
    DeviceCandidates,
    HostCandidates,
    cross,
    leading_zeros,
    own_places,
    peak_candidates,
    token_candidates,
)
from atlas_builder.collect.device_counts import BlockCounts, DeviceCounts, count_block
from atlas_builder.collect.gather import Gatherer
from atlas_builder.collect.layer import LayerBatch, LayerCollector, NotFiniteError, joined_places
from atlas_builder.collect.replay import UnitBlock, chances_of, replay_peaks, replay_tokens
from atlas_builder.collect.sampling import SIDE_BY_SIDE
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.models.memory import free_memory, is_out_of_memory, to_host

BYTES_AN_ACTIVATION = 96
"""Most memory that looking at an activation takes at one time: sums in float64, bins, limits, places."""
_SHARE = 0.25  # of free memory for a block, beside what the model needs
_LARGEST_BLOCK = 1 << 24
_LARGEST_ON_CPU = 1 << 19  # activations: intermediate results stay in its caches
_GROWTH = 1.5


class _Found(NamedTuple):
    """What is known of one block of a batch before it is counted."""

    block: UnitBlock
    counts: BlockCounts
    peaks: HostCandidates
    drawn: HostCandidates
    wide: HostCandidates


class DeviceLayer:
    """Collects one layer on a device into a `LayerCollector`, whose counts are up to date after `settle`.

    With `logs` off, neither windows nor inputs are read as the pass goes: candidates keep a row
    below zero, until a second run over their contexts reads them.
    """

    def __init__(self, collector: LayerCollector, device: str, *, logs: bool) -> None:
        self._collector, self._logs, self._device = collector, logs, device
        self._counts = DeviceCounts(collector.shape.units, collector.shape.signs, device)
        self._masks = torch.from_numpy(collector.draw.masks.view(np.int64)).to(device)
        self._gather = Gatherer(device, collector.examples.window)
        limit = _LARGEST_ON_CPU if device == "cpu" else _LARGEST_BLOCK
        self._room = min(limit, int(_SHARE * free_memory(device)) // BYTES_AN_ACTIVATION)
        self._tokens = self._pruned = int(collector.tally.tokens[0])

    def contexts_at_once(self, tokens: int) -> int:
        """How many contexts of `tokens` tokens to show next: as many as all before, since bounds are low at first."""
        return max(1, self._tokens // tokens)

    def look(self, batch: LayerBatch) -> Callable[[], None]:
        """Look at a batch, whose tensors are on the device; it is collected by what this returns.

        Raises `NotFiniteError`, and torch's errors where
        the device's memory is too small, before anything is collected.
        """
        text, inputs = batch.activations[:, batch.head :], batch.inputs[:, batch.head :]
        column = text.shape[0] * text.shape[1]  # activations of one unit
        while True:
            try:
                found = self._look(batch.contexts, text, batch.own)
            except RuntimeError as error:
                used = min(self._room, column * text.shape[2])
                if not is_out_of_memory(error) or used <= column * SIDE_BY_SIDE:
                    raise
                self._room = used // 2  # fewer units at once, before there are fewer contexts
            else:
                return partial(self._collect, batch.contexts, inputs, text, batch.own, found)

    def _look(self, batch: NDArray[np.int64], activations: Tensor, own: NDArray[np.int32] | None) -> list[_Found]:
        """Look at (batch, tokens, units) activations, some units at a time."""
        collector, (contexts, tokens, units) = self._collector, activations.shape
        chances = torch.from_numpy(chances_of(collector.draw.stream, batch, tokens)).to(self._device)
        at_once = max(1, self._room // (contexts * tokens * SIDE_BY_SIDE)) * SIDE_BY_SIDE
        blocks: list[UnitBlock] = []
        counted: list[BlockCounts] = []
        crossing: list[DeviceCandidates] = []
        for first in range(0, units, at_once):
            values = activations[:, :, first : first + at_once].detach().float().contiguous()
            blocks.append(UnitBlock(first, values.shape[2], tokens))
            counted.append(count_block(values, collector.shape.signs))
            crossing += self._candidates(values, counted[-1], chances, first, own)
        self._check(batch, activations, torch.cat([counts.bad for counts in counted], dim=1))
        crossed = cross(crossing)
        return [
            _Found(block, counts, *crossed[3 * number : 3 * number + 3])
            for number, (block, counts) in enumerate(zip(blocks, counted, strict=True))
        ]

    def _candidates(
        self, values: Tensor, counts: BlockCounts, chances: Tensor, first: int, own: NDArray[np.int32] | None
    ) -> list[DeviceCandidates]:
        """Of a block: candidates for examples, for bands, and for the draw from the whole range."""
        collector = self._collector
        start = first // SIDE_BY_SIDE
        left_out = None if own is None else own_places(own, values.shape, first, values.device)
        levels = leading_zeros(chances, self._masks[start : start + -(-values.shape[2] // SIDE_BY_SIDE)])
        none = DeviceCandidates(levels.new_zeros(0, dtype=torch.int32), values.new_zeros(0))
        return [
            peak_candidates(values, counts, collector.rule, first),
            *(
                token_candidates(values, draw, levels, first, left_out) if draw.keep else none
                for draw in (collector.draw, collector.wide_draw)
            ),
        ]

    def _check(self, batch: NDArray[np.int64], activations: Tensor, bad: Tensor) -> None:
        """Refuse activations that are not numbers: `bad` is (batch, units)."""
        if not bool(bad.any()):
            return
        place = int(bad.any(1).int().argmax())
        is_finite = bool(activations[place].isfinite().all())
        raise NotFiniteError(int(batch[place]), np.flatnonzero(to_host(bad[place])), too_large=is_finite)

    def _collect(
        self,
        batch: NDArray[np.int64],
        inputs: Tensor,
        activations: Tensor,
        own: NDArray[np.int32] | None,
        found: list[_Found],
    ) -> None:
        """Count what was found, and read what it asks for: (batch, tokens, width) and (batch, tokens, units)."""
        collector, tokens = self._collector, activations.shape[1]
        for part in found:
            self._counts.add(part.block.first, part.counts)
            self._replay_peaks(part.block, batch, part.peaks)
            collector.band_candidates = self._replay_tokens(
                collector.draw, collector.band_candidates, part.block, batch, part.drawn
            )
            collector.wide_candidates = self._replay_tokens(
                collector.wide_draw, collector.wide_candidates, part.block, batch, part.wide
            )
        self._counts.add_tokens(len(batch) * tokens)
        self._tokens += len(batch) * tokens
        if self._tokens > _GROWTH * self._pruned:
            self._raise_bounds()
        if self._logs:
            self._log(batch, inputs, activations)
        place, position = collector.background.places(batch, tokens)
        if len(place):
            collector.background.add(batch[place], position, self._gather.inputs(inputs, place, position))
        if collector.own is not None and own is not None:
            collector.own.visit(
                batch,
                own,
                partial(self._gather.values, activations),
                partial(self._gather.windows, activations),
            )

    def _replay_peaks(self, block: UnitBlock, batch: NDArray[np.int64], found: HostCandidates) -> None:
        collector, start = self._collector, 0
        while (start := replay_peaks(collector.rule, collector.top_candidates, block, batch, *found, start)) < len(
            found.flat
        ):
            collector.top_candidates = _doubled(collector.top_candidates)

    @staticmethod
    def _replay_tokens(
        draw: bands.BandSampling, pool: Pool, block: UnitBlock, batch: NDArray[np.int64], found: HostCandidates
    ) -> Pool:
        """The pool with the tokens that it takes, wider where they were too many."""
        start = 0
        while (start := replay_tokens(draw, pool, block, batch, *found, start)) < len(found.flat):
            pool = _doubled(pool)
        return pool

    def _raise_bounds(self) -> None:
        """Prune all pools: the higher the bounds, the fewer cross. Each time, half as much again was seen."""
        collector = self._collector
        selection.prune_all(collector.rule, collector.top_candidates)
        for draw, pool in (
            (collector.draw, collector.band_candidates),
            (collector.wide_draw, collector.wide_candidates),
        ):
            if draw.keep:
                bands.prune_all_tokens(draw, pool)
        self._pruned = self._tokens

    def _log(self, batch: NDArray[np.int64], inputs: Tensor, activations: Tensor) -> None:
        """Read the windows of new candidates and the inputs of their tokens, and log them."""
        collector = self._collector
        fired = self._log_windows(collector.top_candidates, collector.windows, activations, collector.shape.signs)
        self._log_windows(collector.band_candidates, collector.band_windows, activations, 1)
        place, position = np.divmod(np.unique(fired), activations.shape[1])
        if len(place):
            collector.inputs.append(self._gather.inputs(inputs, place, position))
            tokens = joined_places(batch[place], position)
            collector.input_tokens = np.append(collector.input_tokens, tokens)

    def _log_windows(self, pool: Pool, log: RowLog, activations: Tensor, signs: int) -> NDArray[np.int64]:
        """Log the windows of new candidates; returns their tokens, numbered through the batch: (new,)."""
        column, slot, place = candidates.unsettled(pool).T
        position = pool.position[column, slot].astype(np.int64)
        pool.row[column, slot] = log.append(self._gather.windows(activations, place, position, column // signs))
        tokens: NDArray[np.int64] = place * activations.shape[1] + position
        return tokens

    def settle(self) -> None:
        """Take all counts to the collector."""
        self._counts.move_to(self._collector.tally)


def _doubled(pool: Pool) -> Pool:
    """Rare: by chance, some unit has more candidates than usual."""
    return candidates.widened(pool, pool.value.shape[1] * 2)

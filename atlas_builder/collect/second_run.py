"""The second run: windows and inputs of what is chosen, read at the end of a pass that did not log them.

A candidate is logged whenever it comes and most are dropped later. Where that is more work than to run
the model once more, a pass on a device keeps places only. Its shard then runs those of its batches
again that have a chosen context, as they ran first, so that activations have the same bits.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect import bands, candidates
from atlas_builder.collect.candidates import Candidates, Pool
from atlas_builder.collect.gather import Gatherer
from atlas_builder.collect.layer import LayerCollector, LayerShape, joined_places
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.collect.write import chosen_examples, shown_tokens
from atlas_builder.config import ExampleSettings

_LOGGED_A_SECOND = 2e8
"""Bytes that are taken to the host, written, rewritten and merged in a second."""
_OPERATIONS_A_SECOND = {"cpu": 5e10, "mps": 2e12, "cuda": 2e13}
_SHARE_OF_DISK = 0.5


def reads_again(
    shapes: Sequence[LayerShape],
    examples: ExampleSettings,
    contexts: int,
    tokens: int,
    parameters: int,
    device: str,
    folder: Path,
) -> bool:
    """Whether a pass over so many contexts and tokens reads windows and inputs in a second run.

    It does where logging the candidates (`bytes_logged`) takes longer, at 200 MB a second, than running
    the model again (two operations for each parameter and token, at 5 · 10¹⁰ a second on cpu, 2 · 10¹² on mps,
    2 · 10¹³ on cuda), and where the log would fill more than half of the free disk. The result is the same.
    """
    logged = bytes_logged(shapes, examples, contexts, tokens)
    if logged > _SHARE_OF_DISK * shutil.disk_usage(folder).free:
        return True
    seconds = 2 * parameters * tokens / _OPERATIONS_A_SECOND[device.partition(":")[0]]
    return logged / _LOGGED_A_SECOND > seconds


def bytes_logged(shapes: Sequence[LayerShape], examples: ExampleSettings, contexts: int, tokens: int) -> float:
    """About how many bytes of windows and inputs a pass logs.

    Of n, about k (1 + ln(n / k)) are at some time among the k first, or highest.
    """
    keep = examples.per_band * bands.DRAWN
    window = 4 * (sum(examples.window) + 1)
    total = 0.0
    for shape in shapes:
        near = shape.units * shape.signs * _at_some_time_first(examples.per_unit, contexts)
        drawn = shape.units * _at_some_time_first(keep, tokens)
        total += (near + drawn) * window + min(near, tokens) * shape.width * 4
    return total


def _at_some_time_first(keep: int, of: int) -> float:
    return min(of, keep * (1 + math.log(max(1.0, of / keep)))) if keep else 0.0


class _Wanted(NamedTuple):
    """Candidates of a pool that are to be read, by batch and place in it: (wanted,) each."""

    batch: NDArray[np.int64]
    place: NDArray[np.int64]
    column: NDArray[np.int64]
    slot: NDArray[np.int64]
    """Place in the column's candidates."""
    position: NDArray[np.int64]


class LayerReading:
    """What is still to be read of one layer, after a pass of which no window or input was logged.

    `batches` are those of the shard. Where it is the whole pass, what is chosen in the end is known,
    and nothing else is read; else, all candidates are.
    """

    def __init__(
        self, collector: LayerCollector, batches: Sequence[NDArray[np.int64]], device: str, *, is_whole: bool
    ) -> None:
        self._collector = collector
        self._gather = Gatherer(device, collector.examples.window)
        collector.thin()  # from here on candidates stay in their slots
        near, drawn = collector.top_candidates, collector.band_candidates
        for pool in (near, drawn):
            _number_slots(pool)
        only = is_whole and collector.own is None  # bands of output neurons need all own positions sorted
        place_of = _places(batches)
        self._near = _wanted(chosen_examples(collector).examples if only else candidates.candidates(near), place_of)
        self._drawn = _wanted(shown_tokens(collector) if only else candidates.candidates(drawn), place_of)

    def has(self, batch: int) -> bool:
        """Whether anything of a batch is to be read."""
        return any(_of_batch(wanted, batch) != slice(0, 0) for wanted in (self._near, self._drawn))

    def look(
        self, batch: int, part: slice, contexts: NDArray[np.int64], inputs: Tensor, activations: Tensor
    ) -> Callable[[], None]:
        """Read a part of a batch: (part, tokens, width) and (part, tokens, units), no beginnings of sequences.

        `contexts` are those of the part. What this returns logs what was read.
        """
        collector, signs = self._collector, self._collector.shape.signs
        near, drawn = (_within(wanted, batch, part) for wanted in (self._near, self._drawn))
        near_windows = self._gather.windows(activations, near.place, near.position, near.column // signs)
        drawn_windows = self._gather.windows(activations, drawn.place, drawn.position, drawn.column)
        tokens = np.unique(near.place * activations.shape[1] + near.position)
        place, position = np.divmod(tokens, activations.shape[1])
        rows = self._gather.inputs(inputs, place, position)

        def log() -> None:
            _settle(collector.top_candidates, near, collector.windows, near_windows)
            _settle(collector.band_candidates, drawn, collector.band_windows, drawn_windows)
            collector.inputs.append(rows)
            numbers = joined_places(contexts[place], position)
            collector.input_tokens = np.append(collector.input_tokens, numbers)

        return log


def _number_slots(pool: Pool) -> None:
    """Give every candidate without a window its place in its column as row, −1 − slot."""
    slots = np.arange(pool.row.shape[1], dtype=np.int32)
    np.copyto(pool.row, -1 - slots, where=(pool.row < 0) & (slots < pool.fill[:, None]))


def _places(batches: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The batch and the place in it of every context of some batches: (contexts, 2)."""
    places = np.zeros((1 + max((int(batch.max()) for batch in batches), default=-1), 2), np.int64)
    for number, batch in enumerate(batches):
        places[batch, 0], places[batch, 1] = number, np.arange(len(batch))
    return places


def _wanted(chosen: Candidates, place_of: NDArray[np.int64]) -> _Wanted:
    unread = candidates.take(chosen, chosen.row < 0)
    batch, place = place_of[unread.context].T
    order = np.lexsort([unread.position, place, batch])
    return _Wanted(
        batch[order],
        place[order],
        unread.column[order].astype(np.int64),
        -1 - unread.row[order].astype(np.int64),
        unread.position[order].astype(np.int64),
    )


def _of_batch(wanted: _Wanted, batch: int) -> slice:
    first, last = np.searchsorted(wanted.batch, [batch, batch + 1]).tolist()
    return slice(first, last) if last > first else slice(0, 0)


def _within(wanted: _Wanted, batch: int, part: slice) -> _Wanted:
    """Those of a part of a batch, with their places in the part."""
    of_batch = _Wanted(*(array[_of_batch(wanted, batch)] for array in wanted))
    first, last = np.searchsorted(of_batch.place, [part.start, part.stop]).tolist()
    within = _Wanted(*(array[first:last] for array in of_batch))
    return within._replace(place=within.place - part.start)


def _settle(pool: Pool, read: _Wanted, log: RowLog, windows: NDArray[np.float32]) -> None:
    pool.row[read.column, read.slot] = log.append(windows)

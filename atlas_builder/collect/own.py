"""Where an output neuron's own token comes next: all such positions, and a sample of them with their surroundings.

Every position is logged on disk, since its quantiles are exact. The sample is the first
`OWN_SAMPLE` of each unit in a random order that depends on the position in the corpus alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.candidates import rank_in_column
from atlas_builder.collect.results import band_type, draw_type
from atlas_builder.collect.sampling import Chances, mix, stream, tokens_chances
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.rounding import first_rank

OWN_SAMPLE = 256
"""Own positions of a unit of which surroundings are kept, and bands drawn from."""
OTHER, UNKNOWN = -1, -2
"""A position whose next token is no unit's, or that has none; else it is the number of the unit."""
_ROW = 4  # numbers of `draw_type`, of four bytes each
_ROWS_AT_ONCE = 1 << 16

Windows = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Activations at or around (tokens,) places in a batch, positions and units: (tokens,) or (tokens, window)."""


_sample_type = np.dtype([*draw_type.descr, ("row", "<i8")])
"""An own position of the sample, and the row of its window on disk."""


class OwnPositions:
    """The own positions of one layer's output neurons so far; with `saved`, which has what `arrays` gave."""

    def __init__(
        self, seed: int, layer: int, log: RowLog, windows: RowLog, saved: Mapping[str, Any] | None = None
    ) -> None:
        self._stream = np.uint64(mix(np.uint64(int(mix(stream(seed, layer))) ^ 1)))
        self.log, self.windows = log, windows
        self.sample: np.ndarray = np.zeros(0, _sample_type) if saved is None else saved["own_sample"]
        """By unit and chance, `_sample_type`."""

    def visit(self, batch: NDArray[np.int64], own: NDArray[np.int32], values: Windows, windows: Windows) -> None:
        """Take in a batch, of which `own` has the unit of each next token: (batch, tokens)."""
        place, position = np.nonzero(own >= 0)
        unit = own[place, position]
        rows = np.empty(len(place), draw_type)
        rows["unit"], rows["value"] = unit, values(place, position, unit.astype(np.int64))
        rows["context"], rows["position"] = batch[place], position
        self.log.append(rows.view(np.float32).reshape(-1, _ROW))
        chosen = self._chosen(rows)
        if len(chosen):
            around = windows(place[chosen], position[chosen].astype(np.int64), unit[chosen].astype(np.int64))
            self._add(rows[chosen], self.windows.append(around))

    def merge(self, other: OwnPositions) -> None:
        """Merge in the positions of other contexts."""
        for part in other.log.parts(np.arange(other.log.rows)):
            self.log.append(part)
        numbers = [self.windows.append(part) for part in other.windows.parts(other.sample["row"])]
        self._add(other.sample, np.concatenate([np.zeros(0, np.int64), *numbers]))

    def _chosen(self, rows: np.ndarray) -> NDArray[np.int64]:
        """Which of some positions come before the last of their unit's sample, or find it incomplete."""
        sample = self.sample
        if not len(sample):
            return np.arange(len(rows))
        ends = np.searchsorted(sample["unit"], rows["unit"], side="right")
        is_full = ends - np.searchsorted(sample["unit"], rows["unit"]) >= OWN_SAMPLE
        last = self._chances(sample)[np.maximum(ends - 1, 0)]
        return np.flatnonzero(~is_full | (self._chances(rows) < last))

    def _add(self, rows: np.ndarray, numbers: NDArray[np.int64]) -> None:
        added = np.empty(len(rows), _sample_type)
        for name in draw_type.names or ():
            added[name] = rows[name]
        added["row"] = numbers
        union = np.concatenate([self.sample, added])
        union = union[np.lexsort([self._chances(union), union["unit"]])]
        self.sample = union[rank_in_column(union["unit"]) < OWN_SAMPLE]

    def _chances(self, rows: np.ndarray) -> Chances:
        places = rows["context"].astype(np.uint64), rows["position"].astype(np.uint64)
        chances: Chances = tokens_chances(self._stream, *places)
        return chances

    def thin(self) -> None:
        """Drop the windows of what is no longer in the sample."""
        if self.windows.is_mostly_waste(len(self.sample)):
            self.windows.retain(self.sample["row"])
            self.sample["row"] = np.arange(len(self.sample))

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint saves, beside the lengths of the logs."""
        return {"own_sample": self.sample}

    def write(self, units: int, path: Path) -> np.ndarray:
        """Write all positions to `path`, by unit and chance; returns them, on disk."""
        starts = np.zeros(units + 1, np.int64)
        for part in self._rows():
            starts[1:] += np.bincount(part["unit"], minlength=units)
        starts = np.cumsum(starts)
        if not starts[-1]:
            np.save(path, np.zeros(0, draw_type))
            return np.zeros(0, draw_type)
        written: np.ndarray = np.lib.format.open_memmap(path, "w+", draw_type, (int(starts[-1]),))
        filled = starts[:-1].copy()
        for part in self._rows():
            part = part[np.argsort(part["unit"], kind="stable")]
            written[filled[part["unit"]] + rank_in_column(part["unit"])] = part
            filled += np.bincount(part["unit"], minlength=units)
        for first, last in itertools.pairwise(starts.tolist()):
            written[first:last] = written[first:last][np.argsort(self._chances(written[first:last]))]
        return written

    def _rows(self) -> Any:
        for first in range(0, self.log.rows, _ROWS_AT_ONCE):
            for part in self.log.parts(np.arange(first, min(first + _ROWS_AT_ONCE, self.log.rows))):
                yield np.ascontiguousarray(part).view(draw_type).reshape(-1)


def own_edges(own: np.ndarray, maximum: NDArray[np.float64], quantiles: list[float]) -> NDArray[np.float64]:
    """The edges of bands of output neurons: (units, quantiles + 1), NaN for a token that never comes next.

    The first is −∞. The others are exact quantiles of a unit's n own activations, v ascending:
    v[min(⌈q·n⌉, n − 1)], so that no fewer than q·n of them are smaller, ties aside; that of quantile 1 is
    the unit's maximum.
    """
    edges = np.full((len(maximum), len(quantiles) + 1), np.nan)
    starts = np.searchsorted(own["unit"], np.arange(len(maximum) + 1))
    for unit, (first, last) in enumerate(itertools.pairwise(starts.tolist())):
        if first == last:
            continue
        values, count = np.sort(own["value"][first:last]), last - first
        edges[unit, 0] = -np.inf
        for place, quantile in enumerate(quantiles, start=1):
            edges[unit, place] = maximum[unit] if quantile >= 1 else values[min(first_rank(quantile, count), count - 1)]
    return edges


def own_bands(sample: np.ndarray, edges: NDArray[np.float64], keep: int) -> tuple[np.ndarray, NDArray[np.int64]]:
    """The first `keep` of the sample in each band of own positions, `band_type`, and the rows of their windows."""
    bands = np.full(len(sample), -1)
    of_unit = edges[sample["unit"]]  # (tokens, quantiles + 1)
    for band in range(1, edges.shape[1] - 1):
        low, high = of_unit[:, band], of_unit[:, band + 1]
        is_last = band == edges.shape[1] - 2
        below = (sample["value"] <= high) if is_last else (sample["value"] < high)
        bands[(sample["value"] >= low) & below] = band
    cell = sample["unit"].astype(np.int64) * edges.shape[1] + bands
    order = np.argsort(cell, kind="stable")  # by chance within a band
    order = order[bands[order] > 0]
    rank = rank_in_column(cell[order])
    order, rank = order[rank < keep], rank[rank < keep]
    rows = np.empty(len(order), band_type)
    for name in draw_type.names or ():
        rows[name] = sample[name][order]
    rows["band"], rows["rank"] = bands[order], rank
    return rows, sample["row"][order]

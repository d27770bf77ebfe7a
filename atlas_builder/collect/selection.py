"""Which contexts stand for a unit, chosen exactly while they stream by.

Both policies are a total order over contexts, so the choice does not depend on the
order in which they are met: a pool keeps every candidate that could still be chosen,
and drops the others whenever it has grown.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Candidates = np.ndarray[Any, Any]  # structured, one row a (unit, context) pair; see `candidate_type`

_NO_PRIORITY = np.iinfo(np.uint64).max


def candidate_type(window: int) -> np.dtype:
    """One candidate: a context in which a unit fires, seen around its key token.

    `position` is the key token's place in the context, `row` the number of its input
    in the layer's log, `window` the activations around it, NaN outside the context.
    """
    return np.dtype(
        [
            ("unit", "<i4"),
            ("value", "<f4"),
            ("context", "<i4"),
            ("position", "<i4"),
            ("row", "<i8"),
            ("window", "<f4", (window,)),
        ]
    )


def priority(seed: int, layer: int, unit: NDArray[np.int32], context: NDArray[np.int32]) -> NDArray[np.uint64]:
    """A random number for each (unit, context) that depends on nothing else (SplitMix64).

    The `k` smallest of a set are a uniform sample of it, whichever way it was met.
    """
    key = (unit.astype(np.uint64) << np.uint64(32)) | context.astype(np.uint64)
    stream = _mix(_mix(np.array([seed], dtype=np.uint64)) + np.uint64(layer))
    return _mix(_mix(key) ^ stream)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Pool:
    """The candidates of one layer.

    `bound` (units,) is what a key activation must reach to matter; it only rises.
    """

    def __init__(
        self,
        layer: int,
        units: int,
        *,
        policy: Literal["threshold", "top"],
        per_unit: int,
        threshold: float,
        seed: int,
        window: int,
    ) -> None:
        self.layer, self.units = layer, units
        self.policy, self.per_unit, self.threshold, self.seed = policy, per_unit, threshold, seed
        self.bound = np.full(units, np.finfo(np.float32).smallest_subnormal, dtype=np.float32)
        self.kept: Candidates = np.zeros(0, dtype=candidate_type(window))
        self._fresh: list[Candidates] = []
        self._fresh_rows = 0

    def raise_bound(self, highest: NDArray[np.float32]) -> None:
        """Take note of new maxima, (units,): under `threshold` they lift the bound at once."""
        if self.policy == "threshold":
            floor = np.float32(self.threshold) * highest
            # One step down, so that rounding never turns away what the exact test would take.
            np.maximum(self.bound, np.nextafter(floor, np.float32(-np.inf)), out=self.bound)

    def add(self, candidates: Candidates) -> bool:
        """Take candidates in; true when the pool has grown enough to be compacted."""
        if len(candidates):
            self._fresh.append(candidates)
            self._fresh_rows += len(candidates)
        return self._fresh_rows > max(len(self.kept), self.units * self.per_unit // 2, 4096)

    def compact(self) -> None:
        """Drop every candidate that cannot be chosen any more, and raise the bound."""
        pool = _by_value(np.concatenate([self.kept, *self._fresh]))
        self._fresh, self._fresh_rows = [], 0
        if self.policy == "top":
            pool = pool[_rank(pool["unit"]) < self.per_unit]
            full = np.flatnonzero(_rank(pool["unit"]) == self.per_unit - 1)
            self.bound[pool["unit"][full]] = pool["value"][full]
        else:
            pool = self._above_threshold(pool)
            pool = pool[self._undominated(pool)]
        self.kept = pool

    def select(self) -> Candidates:
        """The chosen examples, by unit, highest activation first, ties by place in the corpus."""
        self.compact()
        if self.policy == "top":
            return self.kept
        pool = self.kept
        order = np.lexsort([pool["context"], self._priority(pool), pool["unit"]])
        sample = pool[order]
        return _by_value(sample[_rank(sample["unit"]) < self.per_unit])

    def _priority(self, pool: Candidates) -> NDArray[np.uint64]:
        return priority(self.seed, self.layer, pool["unit"], pool["context"])

    def _above_threshold(self, pool: Candidates) -> Candidates:
        first = np.flatnonzero(_rank(pool["unit"]) == 0)
        highest = np.zeros(self.units)
        highest[pool["unit"][first]] = pool["value"][first]
        reaches = pool["value"].astype(np.float64) >= self.threshold * highest[pool["unit"]]
        return np.compress(reaches, pool)

    def _undominated(self, pool: Candidates) -> NDArray[np.bool_]:
        """Drop a candidate when `per_unit` others beat it in activation and in priority alike.

        Wherever the threshold ends up, those others pass it if this one does, and are
        drawn first. Candidates come by falling value and are looked at in blocks, each
        against all blocks before it, so a few more are kept than need be.
        """
        k = self.per_unit
        starts = np.flatnonzero(_rank(pool["unit"]) == 0)
        counts = np.diff(np.append(starts, len(pool)))
        keep = np.ones(len(pool), dtype=bool)
        chance = np.append(self._priority(pool), _NO_PRIORITY)
        starts, counts = starts[counts > k], counts[counts > k]
        best = chance[starts[:, None] + np.arange(k)]  # (units, per_unit)
        for block in range(k, int(counts.max(initial=0)), k):
            more = counts > block
            starts, counts, best = starts[more], counts[more], best[more]
            offset = block + np.arange(k)
            place = np.where(offset < counts[:, None], starts[:, None] + offset, len(pool))  # (units, per_unit)
            here = chance[place]
            lost = here > best.max(axis=1, keepdims=True)
            keep[place[lost & (place < len(pool))]] = False
            best = np.partition(np.concatenate([best, here], axis=1), k - 1, axis=1)[:, :k]
        return keep


def _by_value(pool: Candidates) -> Candidates:
    order = np.lexsort([pool["context"], -pool["value"], pool["unit"]])
    return np.take(pool, order)


def _rank(units: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each row among those of its unit; equal units lie together."""
    if not len(units):
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.append(True, units[1:] != units[:-1]))
    sizes = np.diff(np.append(first, len(units)))
    return np.arange(len(units)) - np.repeat(first, sizes)

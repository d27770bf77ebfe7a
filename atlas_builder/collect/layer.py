"""What one layer gives up while the contexts stream by."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect import bands, candidates, selection, statistics
from atlas_builder.collect.candidates import Candidates, Pool
from atlas_builder.collect.kernel import POOL_FULL, scan, windows
from atlas_builder.collect.sampling import SIDE_BY_SIDE, masks, stream
from atlas_builder.collect.statistics import Tally
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.config import ExampleSettings

_ROOM = 64  # candidates a column holds beside those it is to keep


class NotFiniteError(Exception):
    """An activation that is NaN or infinite, in the context of this number."""

    def __init__(self, context: int) -> None:
        super().__init__(context)
        self.context = context


@dataclass(frozen=True)
class LayerShape:
    """A layer, as far as collecting goes."""

    layer: int
    units: int
    width: int
    signs: int
    """2 where units also answer below zero."""


class LayerCollector:
    """Statistics, candidates and their inputs for the units of one layer.

    Vectors are logged in `folder`; with `saved`, a file of `save`, it goes on from there,
    and what was logged since is forgotten. `executor` runs parts of a batch side by side,
    in threads of this process.
    """

    def __init__(
        self,
        shape: LayerShape,
        examples: ExampleSettings,
        folder: Path,
        executor: Executor,
        threads: int = 1,
        saved: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.examples, self.folder = shape, examples, folder
        self._executor, self._parts = executor, _parts(shape.units, threads)
        self.tally: Tally = statistics.empty_tally(shape.units)
        chance = stream(examples.seed, shape.layer)
        self.rule = selection.selection_rule(examples, shape.units, shape.signs, chance)
        self.top_candidates: Pool = candidates.empty_pool(shape.units * shape.signs, 2 * examples.per_unit + _ROOM)
        self.draw = bands.band_sampling(
            examples.per_band, shape.units, chance, masks(examples.seed, shape.layer, shape.units)
        )
        self.band_candidates: Pool = candidates.empty_pool(shape.units, 8 * self.draw.keep + 1)
        window = sum(examples.window) + 1
        self.input_tokens: NDArray[np.int64] = np.zeros(0, np.int64)
        """The token of each logged input, as `token_numbers` numbers them."""
        logs = np.zeros((3, 2), np.int64) if saved is None else self._load(saved)
        window = sum(examples.window) + 1
        self.windows, self.band_windows, self.inputs = (
            RowLog(folder, name, width, *place)
            for name, width, place in zip(
                ("windows", "band-windows", "inputs"), (window, window, shape.width), logs.tolist(), strict=True
            )
        )

    def visit(self, batch: NDArray[np.int64], inputs: Tensor, activations: Tensor, head: int) -> None:
        """Take in a batch: (batch, context, width) and (batch, context, units), float32 on the cpu.

        The first `head` tokens of every context count nowhere. Raises `NotFiniteError`
        where an activation is not a number.
        """
        shown = activations.numpy()
        self._scan(batch, shown, head, counting=True)
        self.tally.tokens[0] += len(batch) * (shown.shape[1] - head)
        near = self._log_candidates(self.top_candidates, self.windows, shown, head, self.shape.signs)
        self._log_candidates(self.band_candidates, self.band_windows, shown, head, 1)
        if len(near):
            # Units that fire on the same token share its input.
            fired = np.zeros(len(batch) * shown.shape[1], bool)
            fired[near] = True
            place, position = np.divmod(np.flatnonzero(fired), shown.shape[1])
            self.inputs.append(inputs[place, head + position].numpy())
            self.input_tokens = np.append(self.input_tokens, _token(batch[place], position))

    def _scan(self, batch: NDArray[np.int64], shown: NDArray[np.float32], head: int, counting: bool) -> None:
        def part(units: tuple[int, int]) -> int:
            found: int = scan(
                shown,
                head,
                batch,
                *units,
                counting,
                self.tally,
                self.rule,
                self.top_candidates,
                self.draw,
                self.band_candidates,
            )
            return found

        found = list(self._executor.map(part, self._parts))
        if bad := [place for place in found if place >= 0]:
            raise NotFiniteError(int(batch[min(bad)]))
        if POOL_FULL in found:
            # Rare: the draw of some unit went so that more must be kept than is usual.
            self.top_candidates = candidates.widened(self.top_candidates, self.top_candidates.value.shape[1] * 2)
            self.band_candidates = candidates.widened(self.band_candidates, self.band_candidates.value.shape[1] * 2)
            self._scan(batch, shown, head, counting=False)

    def _log_candidates(
        self, held: Pool, log: RowLog, shown: NDArray[np.float32], head: int, signs: int
    ) -> NDArray[np.int64]:
        """Log the windows of new candidates; their tokens, numbered through the batch: (new,)."""
        new = candidates.unsettled(held)
        # Context by context: what lies together is fetched together.
        column, slot, place = new[np.argsort(new[:, 2].astype(np.int16), kind="stable")].T
        position = held.position[column, slot].astype(np.int64)
        edges = np.linspace(0, len(place), len(self._parts) + 1).astype(int)

        def part(first: int, last: int) -> NDArray[np.float32]:
            these = slice(first, last)
            found: NDArray[np.float32] = windows(
                shown, head, place[these], position[these], column[these] // signs, *self.examples.window
            )
            return found

        numbers = [log.append(rows) for rows in self._executor.map(part, edges[:-1], edges[1:])]
        held.row[column, slot] = np.concatenate(numbers)
        fired: NDArray[np.int64] = place * shown.shape[1] + position
        return fired

    def thin(self) -> None:
        """Let go of all that cannot be chosen any more, on disk as well."""
        selection.prune_all(self.rule, self.top_candidates)
        bands.prune_all_tokens(self.draw, self.band_candidates)
        _free_of_waste(self.top_candidates, self.windows)
        _free_of_waste(self.band_candidates, self.band_windows)
        wanted = np.isin(self.input_tokens, token_numbers(candidates.candidates(self.top_candidates)))
        if self.inputs.is_mostly_waste(int(wanted.sum())):
            self.inputs.retain(np.flatnonzero(wanted))
            self.input_tokens = self.input_tokens[wanted]

    def save(self, path: Path) -> None:
        """Write all that is known to a file; the logs stay where they are."""
        self.thin()
        for log in self._logs:
            log.settle()
        arrays: dict[str, Any] = {
            **self.tally._asdict(),
            **{f"near_{name}": part for name, part in candidates.candidates(self.top_candidates)._asdict().items()},
            **{f"spread_{name}": part for name, part in candidates.candidates(self.band_candidates)._asdict().items()},
            "highest": self.rule.highest,
            "bound": self.rule.bound,
            "limit": self.draw.limit,
            "input_tokens": self.input_tokens,
            "logs": np.array([(log.generation, log.rows) for log in self._logs]),
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)

    def _load(self, path: Path) -> NDArray[np.int64]:
        """Take up what `save` wrote; returns generation and rows of each log."""
        with np.load(path, allow_pickle=False) as arrays:
            self.tally = Tally(*(arrays[name] for name in Tally._fields))
            self.top_candidates = self._pool("near", arrays, self.top_candidates)
            self.band_candidates = self._pool("spread", arrays, self.band_candidates)
            self.rule = self.rule._replace(highest=arrays["highest"], bound=arrays["bound"])
            self.draw = self.draw._replace(limit=arrays["limit"])
            self.input_tokens = arrays["input_tokens"]
            logs: NDArray[np.int64] = arrays["logs"]
        return logs

    @staticmethod
    def _pool(name: str, arrays: Any, like: Pool) -> Pool:
        found = Candidates(*(arrays[f"{name}_{part}"] for part in Candidates._fields))
        return candidates.filled(len(like.fill), like.value.shape[1], found)

    def merge(self, other: LayerCollector) -> None:
        """Take in what another collector of the same layer saw of other contexts."""
        statistics.add(self.tally, other.tally)
        np.maximum(self.rule.highest, other.rule.highest, out=self.rule.highest)
        np.maximum(self.rule.bound, other.rule.bound, out=self.rule.bound)
        np.maximum(self.draw.limit, other.draw.limit, out=self.draw.limit)
        self.top_candidates = _joined(self.top_candidates, self.windows, other.top_candidates, other.windows)
        self.band_candidates = _joined(
            self.band_candidates, self.band_windows, other.band_candidates, other.band_windows
        )
        for part in other.inputs.parts(np.arange(other.inputs.rows)):
            self.inputs.append(part)
        self.input_tokens = np.append(self.input_tokens, other.input_tokens)
        self.thin()

    def clean(self) -> None:
        """Remove files that no checkpoint speaks of any more."""
        for log in self._logs:
            log.clean()

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs:
            log.close()

    @property
    def _logs(self) -> tuple[RowLog, RowLog, RowLog]:
        return self.windows, self.band_windows, self.inputs


def _parts(units: int, threads: int) -> list[tuple[int, int]]:
    """Ranges of units to look at side by side, each but the last a multiple of `SIDE_BY_SIDE`."""
    blocks = -(-units // SIDE_BY_SIDE)
    edges = sorted({round(blocks * part / threads) * SIDE_BY_SIDE for part in range(threads)} | {units})
    return list(itertools.pairwise(edges))


def _token(context: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
    return (context.astype(np.int64) << 32) | position.astype(np.int64)


def token_numbers(found: Candidates) -> NDArray[np.int64]:
    """Context and position of each candidate, joined into one number that rises with both."""
    return _token(found.context, found.position)


def _free_of_waste(held: Pool, log: RowLog) -> None:
    """Rewrite the windows of a pool's candidates if most of the log is of others."""
    if log.is_mostly_waste(int(held.fill.sum())):
        inside = np.arange(held.row.shape[1]) < held.fill[:, None]
        order = np.argsort(held.row[inside])
        log.retain(held.row[inside][order].astype(np.int64))
        renumbered = np.empty(len(order), np.int32)
        renumbered[order] = np.arange(len(order))
        held.row[inside] = renumbered


def _joined(held: Pool, log: RowLog, other: Pool, other_log: RowLog) -> Pool:
    """A pool of the candidates of two, whose windows are in the first one's log."""
    here, there = candidates.candidates(held), candidates.candidates(other)
    first = log.rows
    for part in other_log.parts(np.arange(other_log.rows)):
        log.append(part)
    both = candidates.joined(here, there._replace(row=there.row + np.int32(first)))
    return candidates.filled(len(held.fill), held.value.shape[1], both)

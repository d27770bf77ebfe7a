"""Statistics and candidate examples of one layer, collected while the contexts stream by."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect import bands, candidates, selection, statistics
from atlas_builder.collect.background import Background
from atlas_builder.collect.candidates import Candidates, Pool
from atlas_builder.collect.kernel import POOL_FULL, scan, windows
from atlas_builder.collect.own import OwnPositions
from atlas_builder.collect.results import draw_type
from atlas_builder.collect.sampling import SIDE_BY_SIDE, background_stream, masks, stream
from atlas_builder.collect.statistics import LARGEST_SQUARES, Tally
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.config import ExampleSettings

_NONE = np.zeros((0, 0), np.int32)
_NOTHING_SPECIAL = np.zeros((0, 0), np.bool_)
_ROOM = 64  # spare candidates of a column beyond those it keeps


class NotFiniteError(Exception):
    """Activations that are NaN, infinite or too large to be counted, of these `units` in this context."""

    def __init__(self, context: int, units: NDArray[np.int64], *, too_large: bool) -> None:
        super().__init__(context)
        self.context, self.units, self.too_large = context, units, too_large


@dataclass(frozen=True)
class LayerShape:
    """What collecting depends on in a layer."""

    layer: int
    units: int
    width: int
    signs: int
    """2 where units have negative activations, else 1."""
    draws: int = 0
    """Tokens drawn from the whole range of a unit, as `CollectedLayer.draws` says; 0 for none."""
    predicts: bool = False
    """Whether each unit is a token, so that its own positions are kept apart from others."""


class LayerBatch(NamedTuple):
    """What a layer computes of some contexts of one length, on any device and of any precision."""

    contexts: NDArray[np.int64]
    """Their numbers: (batch,)."""
    inputs: Tensor
    """(batch, context, width)"""
    activations: Tensor
    """(batch, context, units)"""
    head: int
    """Tokens at the head of every context that are left out."""
    own: NDArray[np.int32] | None = None
    """For units that are tokens, which of them comes next, as `OwnPositions` has it: (batch, tokens)."""
    special: NDArray[np.bool_] | None = None
    """Tokens that count nowhere, where there are some: (batch, tokens)."""


class LayerCollector:
    """Statistics, candidates and their inputs for the units of one layer.

    Vectors are logged in `folder`; with `saved`, a file of `save`, it continues from there,
    and what was logged since is discarded. `executor` runs parts of a batch in parallel,
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
        self.tally: Tally = statistics.empty_tally(shape.units, shape.signs)
        chance = stream(examples.seed, shape.layer)
        self.rule = selection.selection_rule(examples, shape.units, shape.signs, chance)
        self.top_candidates: Pool = candidates.empty_pool(shape.units * shape.signs, 2 * examples.per_unit + _ROOM)
        of_blocks = masks(examples.seed, shape.layer, shape.units)
        self.draw = bands.band_sampling(examples.per_band * bands.DRAWN, chance, of_blocks, of_any_sign=shape.predicts)
        self.band_candidates: Pool = candidates.empty_pool(shape.units, 8 * self.draw.keep + 1)
        self.wide_draw = bands.band_sampling(shape.draws, chance, of_blocks, of_any_sign=shape.predicts)
        self.wide_candidates: Pool = candidates.empty_pool(shape.units, 16 * shape.draws + 1)
        self.input_tokens: NDArray[np.int64] = np.zeros(0, np.int64)
        """The token of each logged input, as `token_numbers` numbers them."""
        arrays = None if saved is None else self._load(saved)
        window = sum(examples.window) + 1
        widths = {"windows": window, "band-windows": window, "inputs": shape.width, "background": shape.width}
        widths |= {"own": len(draw_type.names or ()), "own-windows": window} if shape.predicts else {}
        places = np.zeros((len(widths), 2), np.int64) if arrays is None else arrays["logs"]
        self.logs = [
            RowLog(folder, name, width, *place)
            for (name, width), place in zip(widths.items(), places.tolist(), strict=True)
        ]
        self.windows, self.band_windows, self.inputs, background, *own = self.logs
        self.background = Background(background_stream(examples.seed, shape.layer), background, arrays)
        self.own = OwnPositions(examples.seed, shape.layer, own[0], own[1], arrays) if own else None

    def visit(
        self,
        batch: NDArray[np.int64],
        inputs: Tensor,
        activations: Tensor,
        head: int,
        own: NDArray[np.int32] | None = None,
        special: NDArray[np.bool_] | None = None,
    ) -> None:
        """Collect a batch: (batch, context, width) and (batch, context, units), float32 on the CPU.

        The first `head` tokens of every context are left out, and those that are `special`, (batch, tokens).
        For units that are tokens, `own` says which of them comes next, (batch, tokens), as `OwnPositions` has
        it. Raises `NotFiniteError` where an activation is not a number.
        """
        values = activations.numpy()
        self._scan(batch, values, head, True, own, special)
        left_out = 0 if special is None else int(np.count_nonzero(special))
        self.tally.tokens[0] += len(batch) * (values.shape[1] - head) - left_out
        tokens = self._log_candidates(self.top_candidates, self.windows, values, head, self.shape.signs)
        self._log_candidates(self.band_candidates, self.band_windows, values, head, 1)
        if self.own is not None and own is not None:
            self.own.visit(
                batch,
                own,
                lambda place, position, unit: values[place, head + position, unit],
                lambda *places: windows(values, head, *places, *self.examples.window),
            )
        if len(tokens):
            # Units that are active on the same token share its input.
            is_key = np.zeros(len(batch) * values.shape[1], bool)
            is_key[tokens] = True
            place, position = np.divmod(np.flatnonzero(is_key), values.shape[1])
            self.inputs.append(inputs[place, head + position].numpy())
            self.input_tokens = np.append(self.input_tokens, joined_places(batch[place], position))
        self.background.visit(batch, inputs, head, special)

    def _scan(
        self,
        batch: NDArray[np.int64],
        values: NDArray[np.float32],
        head: int,
        counting: bool,
        own: NDArray[np.int32] | None = None,
        special: NDArray[np.bool_] | None = None,
    ) -> None:
        def part(units: tuple[int, int]) -> int:
            outcome: int = scan(
                values,
                head,
                batch,
                *units,
                counting,
                self.tally,
                self.rule,
                self.top_candidates,
                self.draw,
                self.band_candidates,
                self.wide_draw,
                self.wide_candidates,
                _NONE if own is None else own,
                _NOTHING_SPECIAL if special is None else special,
            )
            return outcome

        outcomes = list(self._executor.map(part, self._parts))
        if bad := [place for place in outcomes if place >= 0]:
            place = min(bad)
            counted = values[place, head:] if special is None else values[place, head:][~special[place]]
            squares = np.square(counted, dtype=np.float64).sum(axis=0)  # (units,)
            units = np.flatnonzero(~(squares < LARGEST_SQUARES))
            raise NotFiniteError(int(batch[place]), units, too_large=bool(np.isfinite(counted).all()))
        if POOL_FULL in outcomes:
            # Rare: by chance, some unit has more candidates than usual.
            self.top_candidates = candidates.widened(self.top_candidates, self.top_candidates.value.shape[1] * 2)
            self.band_candidates = candidates.widened(self.band_candidates, self.band_candidates.value.shape[1] * 2)
            self.wide_candidates = candidates.widened(self.wide_candidates, self.wide_candidates.value.shape[1] * 2)
            self._scan(batch, values, head, False, own, special)

    def _log_candidates(
        self, pool: Pool, log: RowLog, values: NDArray[np.float32], head: int, signs: int
    ) -> NDArray[np.int64]:
        """Log the windows of new candidates; returns their tokens, numbered through the batch: (new,)."""
        new = candidates.unsettled(pool)
        # Context by context, so that adjacent memory is read together.
        column, slot, place = new[np.argsort(new[:, 2].astype(np.int16), kind="stable")].T
        position = pool.position[column, slot].astype(np.int64)
        edges = np.linspace(0, len(place), len(self._parts) + 1).astype(int)

        def part(first: int, last: int) -> NDArray[np.float32]:
            these = slice(first, last)
            rows: NDArray[np.float32] = windows(
                values, head, place[these], position[these], column[these] // signs, *self.examples.window
            )
            return rows

        numbers = [log.append(rows) for rows in self._executor.map(part, edges[:-1], edges[1:])]
        pool.row[column, slot] = np.concatenate(numbers)
        pool.unsettled[:] = False
        tokens: NDArray[np.int64] = place * values.shape[1] + position
        return tokens

    def thin(self) -> None:
        """Drop all candidates that cannot be chosen any more, on disk as well."""
        selection.prune_all(self.rule, self.top_candidates)
        bands.prune_all_tokens(self.draw, self.band_candidates)
        bands.prune_all_tokens(self.wide_draw, self.wide_candidates)
        _free_of_waste(self.top_candidates, self.windows)
        _free_of_waste(self.band_candidates, self.band_windows)
        needed = np.isin(self.input_tokens, token_numbers(candidates.candidates(self.top_candidates)))
        if self.inputs.is_mostly_waste(int(needed.sum())):
            self.inputs.retain(np.flatnonzero(needed))
            self.input_tokens = self.input_tokens[needed]
        self.background.thin()
        if self.own is not None:
            self.own.thin()

    def save(self, path: Path) -> None:
        """Write the state of the collector to a file; the logs stay where they are."""
        self.thin()
        for log in self.logs:
            log.settle()
        arrays: dict[str, Any] = {
            **self.tally._asdict(),
            **{f"near_{name}": part for name, part in candidates.candidates(self.top_candidates)._asdict().items()},
            **{f"spread_{name}": part for name, part in candidates.candidates(self.band_candidates)._asdict().items()},
            **{name: getattr(self.rule, name) for name in selection.STREAMED},
            **self._wide_arrays(),
            "limit": self.draw.limit,
            "input_tokens": self.input_tokens,
            **self.background.arrays(),
            **({} if self.own is None else self.own.arrays()),
            "logs": np.array([(log.generation, log.rows) for log in self.logs]),
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)

    def _wide_arrays(self) -> dict[str, Any]:
        if not self.shape.draws:
            return {}
        tokens = candidates.candidates(self.wide_candidates)._asdict()
        return {f"wide_{name}": part for name, part in tokens.items()} | {"wide_limit": self.wide_draw.limit}

    def _load(self, path: Path) -> dict[str, NDArray[np.int64]]:
        """Restore what `save` wrote; returns the arrays of the background and of own positions, and each log's state.

        That is its generation and its rows.
        """
        with np.load(path, allow_pickle=False) as arrays:
            self.tally = Tally(*(arrays[name] for name in Tally._fields))
            self.top_candidates = self._pool("near", arrays, self.top_candidates)
            self.band_candidates = self._pool("spread", arrays, self.band_candidates)
            self.rule = self.rule._replace(**{name: arrays[name] for name in selection.STREAMED})
            self.draw = self.draw._replace(limit=arrays["limit"])
            if self.shape.draws:
                self.wide_candidates = self._pool("wide", arrays, self.wide_candidates)
                self.wide_draw = self.wide_draw._replace(limit=arrays["wide_limit"])
            self.input_tokens = arrays["input_tokens"]
            return {name: arrays[name] for name in arrays.files if name.startswith(("background_", "own_", "logs"))}

    @staticmethod
    def _pool(name: str, arrays: Any, like: Pool) -> Pool:
        saved = Candidates(*(arrays[f"{name}_{part}"] for part in Candidates._fields))
        return candidates.filled(len(like.fill), like.value.shape[1], saved)

    def merge(self, other: LayerCollector) -> None:
        """Merge in another collector of the same layer, of other contexts."""
        statistics.add(self.tally, other.tally)
        selection.merge(self.rule, other.rule)
        np.maximum(self.draw.limit, other.draw.limit, out=self.draw.limit)
        np.maximum(self.wide_draw.limit, other.wide_draw.limit, out=self.wide_draw.limit)
        self.top_candidates = _joined(self.top_candidates, self.windows, other.top_candidates, other.windows)
        self.band_candidates = _joined(
            self.band_candidates, self.band_windows, other.band_candidates, other.band_windows
        )
        both = (candidates.candidates(pool) for pool in (self.wide_candidates, other.wide_candidates))
        capacity = self.wide_candidates.value.shape[1]
        self.wide_candidates = candidates.filled(self.shape.units, capacity, candidates.joined(*both))
        for part in other.inputs.parts(np.arange(other.inputs.rows)):
            self.inputs.append(part)
        self.input_tokens = np.append(self.input_tokens, other.input_tokens)
        self.background.merge(other.background)
        if self.own is not None and other.own is not None:
            self.own.merge(other.own)
        self.thin()

    def clean(self) -> None:
        """Remove files to which no checkpoint refers any more."""
        for log in self.logs:
            log.clean()

    def close(self) -> None:
        """Close the logs."""
        for log in self.logs:
            log.close()


def _parts(units: int, threads: int) -> list[tuple[int, int]]:
    """Ranges of units to scan in parallel, each but the last a multiple of `SIDE_BY_SIDE`."""
    blocks = -(-units // SIDE_BY_SIDE)
    edges = sorted({round(blocks * part / threads) * SIDE_BY_SIDE for part in range(threads)} | {units})
    return list(itertools.pairwise(edges))


def joined_places(context: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
    """Contexts and positions in them, joined into one number that increases with both."""
    return (context.astype(np.int64) << 32) | position.astype(np.int64)


def token_numbers(pooled: Candidates) -> NDArray[np.int64]:
    """The token of each candidate, by `joined_places`."""
    return joined_places(pooled.context, pooled.position)


def _free_of_waste(pool: Pool, log: RowLog) -> None:
    """Rewrite the log of a pool's windows if most of it belongs to dropped candidates."""
    if log.is_mostly_waste(int(pool.fill.sum())):
        filled = np.arange(pool.row.shape[1]) < pool.fill[:, None]
        order = np.argsort(pool.row[filled])
        log.retain(pool.row[filled][order].astype(np.int64))
        renumbered = np.empty(len(order), np.int32)
        renumbered[order] = np.arange(len(order))
        pool.row[filled] = renumbered


def _joined(pool: Pool, log: RowLog, other: Pool, other_log: RowLog) -> Pool:
    """A pool of the candidates of two pools, with all windows in the first one's log."""
    here, there = candidates.candidates(pool), candidates.candidates(other)
    first = log.rows
    for part in other_log.parts(np.arange(other_log.rows)):
        log.append(part)
    union = candidates.joined(here, there._replace(row=there.row + np.int32(first)))
    return candidates.filled(len(pool.fill), pool.value.shape[1], union)

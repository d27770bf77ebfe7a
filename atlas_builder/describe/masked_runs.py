"""Activations at key tokens with one token before masked: four ways to run a model, with the same numbers.

Packed: the text runs once, and after its cached keys and values, the runs with a masked token, each from
that token to the key token. These are of lengths 1 to `masked`, so that two together fill a row, and
the rows half a square: no token is run that need not be. Each token is given its place and what it sees.
Trimmed: packed, and the last layer is computed at key tokens alone, but for keys and values.
Unpacked: each run holds all tokens that may be masked. Whole: each run holds the whole text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import Packing, Rows
from atlas_builder.models.wanted_places import RowCache
from atlas_builder.units.base import ActivationHook, Units


@dataclass(frozen=True)
class KeyTokens:
    """Key tokens of contexts, and the units whose activations are wanted there."""

    text: Tensor
    """A context each, up to the key token at least; what follows is anything: (keys, tokens)."""
    ends: NDArray[np.int64]
    """The place of the key token in each: (keys,)."""
    key: NDArray[np.int64]
    """The key token of each example: (examples,)."""
    layer: NDArray[np.int64]
    """(examples,)"""
    unit: NDArray[np.int64]
    """(examples,)"""
    causal: bool = True
    """Whether what follows a key token is of no account there."""

    def only(self, keys: NDArray[np.int64]) -> tuple[KeyTokens, NDArray[np.int64]]:
        """Some of the key tokens, given in rising order, up to the last of them; and which examples are theirs."""
        examples = np.flatnonzero(np.isin(self.key, keys))
        ends = self.ends[keys]
        rows = torch.from_numpy(keys).to(self.text.device)
        # A context that is read whole stays whole.
        tokens = int(ends.max()) + 1 if self.causal else self.text.shape[1]
        return KeyTokens(
            self.text[rows, :tokens],
            ends,
            np.searchsorted(keys, self.key[examples]),
            self.layer[examples],
            self.unit[examples],
            self.causal,
        ), examples

    def read(self, into: NDArray[np.float64], column: Callable[[Tensor], Tensor]) -> ActivationHook:
        """A hook that writes activations into rows of examples; `column` makes them (keys, columns, units)."""

        def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
            here = np.flatnonzero(self.layer == layer)
            if len(here):
                rows, units = (torch.from_numpy(which[here]).to(activations.device) for which in (self.key, self.unit))
                into[here] = as_float32(column(activations)[rows, :, units]).numpy()

        return visit


Way = Callable[[Units, KeyTokens, int, int], NDArray[np.float64]]
"""Called as `way(units, keys, masked, mask)`; returns activations of the examples, (examples, 1 + masked): without
a masked token, then with each of the last `masked` tokens up to the key token replaced by `mask`, in their order."""


def packed(units: Units, keys: KeyTokens, masked: int, mask: int) -> NDArray[np.float64]:
    """A `Way`: no token runs twice but the masked ones and those after them."""
    return _packed(units, keys, masked, mask, trims=False)


def trimmed(units: Units, keys: KeyTokens, masked: int, mask: int) -> NDArray[np.float64]:
    """A `Way`: packed, and of the last layer, all tokens have keys and values, but only key tokens the rest."""
    return _packed(units, keys, masked, mask, trims=True)


def _packed(units: Units, keys: KeyTokens, masked: int, mask: int, trims: bool) -> NDArray[np.float64]:
    found = np.zeros((len(keys.key), 1 + masked))
    last, device = int(keys.layer.max()), keys.text.device
    ends = torch.from_numpy(keys.ends).to(device)
    texts = RowCache(trims=trims)
    plain = Packing.plain(keys.text.shape[1], device)
    units.run(keys.text, keys.read(found[:, :1], lambda seen: seen), last, Rows(texts, plain, ends[:, None]))
    layout = RowLayout.of(masked)
    texts.crop(-1)  # no run sees the last token but its own
    cached = texts.get_seq_length()
    cache = RowCache(texts if cached else None, trims=trims)
    rows, packing, at = layout.pack(keys.text, ends, mask, cached)
    order = torch.from_numpy(layout.order).to(device)

    def by_place(seen: Tensor) -> Tensor:
        return seen.reshape(len(ends), -1, seen.shape[-1])[:, order]  # (keys, masked, units)

    units.run(rows, keys.read(found[:, 1:], by_place), last, Rows(cache, packing, at))
    return found


@dataclass(frozen=True)
class RowLayout:
    """How the runs of one key token lie in rows, two in each; places are counted from the first that is masked."""

    place: NDArray[np.int64]
    """The place of the token that each slot holds: (rows, slots)."""
    start: NDArray[np.int64]
    """The masked place of the run that each slot is part of: (rows, slots)."""
    ends: NDArray[np.int64]
    """The slots of the last tokens of a row's two runs: (rows, 2); of one run, both times that."""
    order: NDArray[np.int64]
    """For each masked place, the index of its run's last token in `ends`, flat: (masked,)."""

    @classmethod
    def of(cls, masked: int) -> RowLayout:
        """Runs of lengths 1 to `masked`; the run of a length begins at that many places before the end."""
        slots = masked if masked % 2 else masked + 1
        first = np.arange(masked % 2 == 0, -(-slots // 2))[:, None]  # lengths of each row's first run, 0 for none
        slot = np.arange(slots)
        second = slot >= first
        length = np.where(second, slots - first, first)
        start = masked - length
        place = start + slot - np.where(second, first, 0)
        ends = np.concatenate([np.where(first > 0, first - 1, slots - 1), np.full_like(first, slots - 1)], axis=1)
        order = np.empty(masked, np.int64)
        order[np.take_along_axis(start, ends, axis=1).ravel()] = np.arange(ends.size)
        return cls(place, start, ends, order)

    def pack(self, text: Tensor, ends: Tensor, mask: int, cached: int) -> tuple[Tensor, Packing, Tensor]:
        """The rows of several key tokens, their packing and the slots of key tokens.

        `text`, (keys, tokens), has the key tokens at places `ends`, (keys,). Shapes are (keys · rows, slots),
        and (keys · rows, 2) of the last; `cached` tokens of the text precede each row.
        """
        device = text.device
        place, start = (torch.from_numpy(which).to(device) for which in (self.place, self.start))
        first = ends[:, None, None] - int(self.place.max())  # the first place that is masked
        places, starts = first + place, first + start  # (keys, rows, slots)
        tokens = text[torch.arange(len(text), device=device)[:, None, None], places]
        tokens = torch.where(place == start, mask, tokens)
        before = torch.arange(cached, device=device)
        sees_before = before < starts[..., None]  # (keys, rows, slots, cached)
        slot = torch.arange(place.shape[1], device=device)
        own = (start[:, :, None] == start[:, None]) & (slot[:, None] >= slot)  # (rows, slots, slots)
        visible = torch.cat([sees_before, own.expand(len(text), -1, -1, -1)], dim=-1)
        places = torch.cat([before.expand(*places.shape[:2], -1), places], dim=-1)
        at = torch.from_numpy(self.ends).to(device).repeat(len(text), 1)
        return tokens.flatten(0, 1), Packing(places.flatten(0, 1), visible.flatten(0, 1)), at


def unpacked(units: Units, keys: KeyTokens, masked: int, mask: int) -> NDArray[np.float64]:
    """A `Way` that asks nothing of the model: key tokens of one place at a time, each run with all `masked` tokens."""
    found = np.zeros((len(keys.key), 1 + masked))
    for end in np.unique(keys.ends):
        same, examples = keys.only(np.flatnonzero(keys.ends == end))
        found[examples] = _unpacked(units, same, masked, mask)
    return found


def _unpacked(units: Units, keys: KeyTokens, masked: int, mask: int) -> NDArray[np.float64]:
    last = int(keys.layer.max())
    before, after = keys.text[:, :-masked], keys.text[:, -masked:]  # (keys, masked)
    runs = after[:, None].repeat(1, 1 + masked, 1)  # (keys, 1 + masked, masked)
    runs[:, 1:][:, torch.eye(masked, dtype=torch.bool, device=runs.device)] = mask
    cache = None
    if before.shape[1]:
        cache = DynamicCache()
        units.run(before, lambda *_: None, last, Rows(cache))
        if cache.get_seq_length() == before.shape[1]:
            cache.batch_repeat_interleave(1 + masked)
        else:  # a model without one takes it and passes it over
            cache, same = None, before[:, None].repeat(1, 1 + masked, 1)
            runs = torch.cat([same, runs], dim=2)
    found = np.zeros((len(keys.key), 1 + masked))
    last_slot = torch.full((len(runs) * (1 + masked), 1), runs.shape[2] - 1, device=runs.device)
    units.run(runs.flatten(0, 1), keys.read(found, _by_run(masked)), last, Rows(cache, at=last_slot))
    return found


def whole(units: Units, keys: KeyTokens, masked: int, mask: int) -> NDArray[np.float64]:
    """A `Way` for models that read in both directions: contexts of one length, each run a whole one."""
    found = np.zeros((len(keys.key), 1 + masked))
    ends = torch.from_numpy(keys.ends).to(keys.text.device)
    places = ends[:, None] + torch.arange(1 - masked, 1, device=ends.device)  # (keys, masked)
    row = torch.arange(len(ends), device=ends.device)[:, None]
    runs = keys.text[:, None].repeat(1, 1 + masked, 1)
    runs[row, torch.arange(1, 1 + masked, device=ends.device), places] = mask
    at = ends.repeat_interleave(1 + masked)[:, None]
    units.run(runs.flatten(0, 1), keys.read(found, _by_run(masked)), int(keys.layer.max()), Rows(at=at))
    return found


def _by_run(masked: int) -> Callable[[Tensor], Tensor]:
    """From (keys · (1 + masked), 1, units) to (keys, 1 + masked, units)."""
    return lambda seen: seen.reshape(-1, 1 + masked, seen.shape[-1])

"""The activation range of units in records: their bands, and the tokens that are shown of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.histogram import bin_edges, fine_histogram
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import ExampleSettings
from atlas_builder.describe.novelty import Novelty
from atlas_builder.describe.results import Described
from atlas_builder.records.schema import Record
from atlas_builder.rounding import published_values, significant


class UnitBands(NamedTuple):
    """The bands of a unit's range as its record has them, and the tokens that are shown of them."""

    records: list[Record]
    tokens: np.ndarray
    """`band_type`, in the order in which the bands list them: (shown,)."""
    windows: NDArray[np.float32]
    """Activations around each: (shown, window)."""


class BandSide:
    """Bands of one layer's units and the tokens drawn from them.

    Of output neurons these are the positions of one side: those where a unit's token comes next, or others.
    """

    def __init__(
        self,
        name: str | None,
        drawn: tuple[np.ndarray, NDArray[np.float32]],
        novelty: Novelty,
        *,
        per_band: int,
        first: int = 0,
    ) -> None:
        tokens, self._windows = drawn
        self.name, self.first = name, first
        self._tokens = tokens[tokens["rank"] < per_band]  # those that have a window
        self._starts = np.searchsorted(self._tokens["unit"], np.arange(len(novelty.drawn) + 1))
        self.drawn = novelty.drawn.tolist()
        self.share, self.chance = published_values(novelty.share), published_values(novelty.chance)

    def shown(self, unit: int, limit: int) -> tuple[np.ndarray, NDArray[np.float32]]:
        """At most `limit` of the tokens drawn from each band of a unit, and the activations around each."""
        first, last = self._starts[unit : unit + 2]
        shown = first + np.flatnonzero(self._tokens["rank"][first:last] < limit)
        return self._tokens[shown], self._windows[shown]


class LayerBands:
    """Makes the bands of one layer's units."""

    def __init__(self, layer: CollectedLayer, described: Described, examples: ExampleSettings) -> None:
        self._layer, self._described, self._examples = layer, described, examples

    def of(self, unit: int, first: int, limit: int) -> UnitBands:
        """The bands of a unit; at most `limit` tokens are shown of each, listed after `first` other examples."""
        is_there = not np.isnan(self._layer.band_edges[unit, 0])
        records, tokens, windows = [], [], []
        for side in self._sides:
            drawn, around = side.shown(unit, limit)
            if is_there:
                records += self._records(unit, side, drawn["band"].tolist(), first)
            first += len(drawn)
            tokens.append(drawn)
            windows.append(around)
        return UnitBands(records, np.concatenate(tokens), np.concatenate(windows))

    @cached_property
    def middle_differs(self) -> NDArray[np.bool_]:
        """Whether the middle of each unit's range differs from its top; of an output neuron, its own: (units,)."""
        return middle_differs(self._described)

    def _records(self, unit: int, side: BandSide, of_bands: Sequence[int], first: int) -> list[Record]:
        """The bands of one side; its tokens shown, of bands `of_bands`, are listed after `first` other examples."""
        edges, quantiles = self._edges[unit], self._quantiles
        positions = self._positions(unit, side)
        return [
            {
                **({} if side.name is None else {"side": side.name, "positions": positions[band]}),
                "quantiles": quantiles[band],
                "range": [edges[band], edges[band + 1]],
                "examples": [first + place for place, band_of in enumerate(of_bands) if band_of == band],
                "drawn": side.drawn[unit][band],
                "novelty": side.share[unit][band],
                "p": side.chance[unit][band],
            }
            for band in range(side.first, len(quantiles))
        ]

    @cached_property
    def _sides(self) -> list[BandSide]:
        layer, per_band = self._layer, self._examples.per_band
        novelty = self._described.bands
        if layer.own_bands is None or layer.own_band_windows is None or self._described.own_bands is None:
            return [BandSide(None, (layer.bands, layer.band_windows), novelty, per_band=per_band)]
        own = layer.own_bands, layer.own_band_windows
        return [
            BandSide("own", own, self._described.own_bands, per_band=per_band, first=1),  # none is below all of them
            BandSide("others", (layer.bands, layer.band_windows), novelty, per_band=per_band),
        ]

    @cached_property
    def _quantiles(self) -> list[list[float | None]]:
        """The quantiles of each band."""
        if self._layer.own is None:
            return [list(pair) for pair in pairwise(self._examples.bands)]
        return [list(pair) for pair in pairwise([None, *self._examples.own_bands])]

    @cached_property
    def _edges(self) -> list[list[Any]]:
        """The edges of each unit's bands; what is below all of an output neuron's begins at its minimum."""
        edges = self._layer.band_edges
        return published_values(np.where(np.isneginf(edges), self._layer.moments.minimum[:, None], edges))

    def _positions(self, unit: int, side: BandSide) -> list[int]:
        """How many positions each band of an output neuron's side has; nothing for other kinds of units."""
        if self._layer.own is None or side.name is None:
            return []
        edges = self._layer.band_edges[unit]
        values = self._layer.own["value"][slice(*self._own_starts[unit : unit + 2])]
        if side.name == "own":
            counted: list[int] = _counts_between(values, edges).tolist()
            return counted
        extremes = self._layer.moments.minimum[unit], self._layer.moments.maximum[unit]
        others = others_between(self._layer.histogram[unit], values, edges, extremes)
        return [
            max(drawn, round(significant(count, 2) or 0)) if known is None else known
            for drawn, count, known in zip(
                side.drawn[unit], others.tolist(), self._known_others(unit, edges), strict=True
            )
        ]

    def _known_others(self, unit: int, edges: NDArray[np.float64]) -> list[int | None]:
        """How many others each band has, where all that are at least as active were drawn; else None."""
        if self._layer.draws is None:
            return [None] * (len(edges) - 1)
        values = self._layer.draws["value"][slice(*self._draw_starts[unit : unit + 2])]
        counts = _counts_between(values, edges).tolist()
        all_known = [np.count_nonzero(values >= low) < self._examples.association_draws for low in edges[:-1]]
        return [count if known else None for count, known in zip(counts, all_known, strict=True)]

    @cached_property
    def _draw_starts(self) -> list[int]:
        assert self._layer.draws is not None
        starts: list[int] = np.searchsorted(self._layer.draws["unit"], np.arange(self._layer.units + 1)).tolist()
        return starts

    @cached_property
    def _own_starts(self) -> list[int]:
        assert self._layer.own is not None
        starts: list[int] = np.searchsorted(self._layer.own["unit"], np.arange(self._layer.units + 1)).tolist()
        return starts


def middle_differs(described: Described) -> NDArray[np.bool_]:
    """Whether the middle of each unit's range differs from its top; of an output neuron, its own: (units,)."""
    own = described.own_bands
    return (described.bands if own is None else own).middle_differs()


def others_between(
    histogram: NDArray[np.integer[Any]],
    own: NDArray[np.float32],
    edges: NDArray[np.float64],
    extremes: tuple[float, float],
) -> NDArray[np.float64]:
    """About how many positions that are not `own` lie in each interval between edges: (edges - 1,).

    Own positions are known, and many may be equal, so they leave the `histogram`, (BINS,), before
    its bins are divided.
    """
    others = np.maximum(histogram.astype(np.int64) - fine_histogram(own), 0)
    return np.diff(tokens_below(others, edges, extremes))


def tokens_below(
    histogram: NDArray[np.integer[Any]], edges: NDArray[np.float64], extremes: tuple[float, float]
) -> NDArray[np.float64]:
    """About how many tokens have an activation below each edge of bands; all where the last is the maximum: (edges,).

    Tokens of a bin of its fine `histogram`, (BINS,), count as lying evenly in it, but for `extremes`,
    a unit's minimum, below which is none, and its maximum, which is in the last band.
    """
    below = np.concatenate([[0], np.cumsum(histogram, dtype=np.int64)])
    about: NDArray[np.float64] = np.where(edges <= extremes[0], 0.0, np.interp(edges, bin_edges(), below))
    if edges[-1] >= extremes[1]:
        about[-1] = below[-1]
    return about


def _counts_between(values: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values lie in each interval between edges; the last has its upper end too."""
    ordered = np.sort(values.astype(np.float64))
    places = np.searchsorted(ordered, edges)
    places[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return np.maximum(np.diff(places), 0)

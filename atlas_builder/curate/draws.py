"""The positions of a unit's range that lie between two quantiles, from what a build kept of the pass."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.bands import band_edges
from atlas_builder.collect.histogram import SIDE, bin_edges
from atlas_builder.collect.own import own_edges
from atlas_builder.collect.results import CollectedLayer, drawn_between

Side = Literal["own", "others", "positive"]
"""Of an output neuron where its token comes next, or another; of any other unit its positive activations."""
SIDES: tuple[Side, ...] = get_args(Side)


class RangeDraw(NamedTuple):
    """Positions of one unit, in random order."""

    rows: np.ndarray
    """`draw_type`."""
    quantile: NDArray[np.float64]
    """The share of the side's activations that are smaller: (rows,)."""


class LayerDraws:
    """The positions of one layer's units that can be drawn; at most `keep` of a band but of own positions all."""

    def __init__(self, layer: CollectedLayer, keep: int) -> None:
        self.layer, self._keep = layer, keep

    def between(self, unit: int, side: Side, quantiles: tuple[float, float]) -> RangeDraw:
        """All known positions of a unit between two quantiles; that of quantile 1 is one of them.

        Quantiles of output neurons are of its activation at own positions, for both sides, and exact;
        those of other units are of positive activations, of bins a sixteenth of a power of two wide.
        """
        rows, low, high = self._of(unit, side), *self._edges(unit, side, quantiles)
        if not len(rows) or np.isnan(low):
            return RangeDraw(rows[:0], np.zeros(0))
        chosen = drawn_between(rows, low, high, None if side == "own" else self._keep, closed=quantiles[1] >= 1)
        return RangeDraw(chosen, self._quantile(unit, side, chosen["value"]))

    def _of(self, unit: int, side: Side) -> np.ndarray:
        rows, starts = self._rows[side]
        return np.asarray(rows[starts[unit] : starts[unit + 1]])

    @cached_property
    def _rows(self) -> dict[str, tuple[np.ndarray, NDArray[np.int64]]]:
        found: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
        for names, rows in ((("own",), self.layer.own), (("others", "positive"), self.layer.draws)):
            if rows is not None:
                starts = np.searchsorted(rows["unit"], np.arange(self.layer.units + 1))
                found |= dict.fromkeys(names, (rows, starts))
        return found

    def _edges(self, unit: int, side: Side, quantiles: tuple[float, float]) -> tuple[float, float]:
        maximum = self.layer.moments.maximum[unit : unit + 1]
        if side == "positive":
            low, high = band_edges(self.layer.histogram[unit : unit + 1], maximum, quantiles)[0].tolist()
        else:
            own = self._of(unit, "own").copy()
            own["unit"] = 0
            _, low, high = own_edges(own, maximum, list(quantiles))[0].tolist()
        return low, high

    def _quantile(self, unit: int, side: Side, values: NDArray[np.float32]) -> NDArray[np.float64]:
        if side != "positive":
            own = np.sort(self._of(unit, "own")["value"])
            return np.searchsorted(own, values, side="left") / max(1, len(own))
        counts = np.cumsum(self.layer.histogram[unit, SIDE + 1 :], dtype=np.int64)
        place = np.searchsorted(bin_edges()[SIDE + 1 : -1], values, side="right") - 1
        return np.asarray(np.where(place > 0, counts[np.maximum(place - 1, 0)], 0) / max(1, int(counts[-1])))

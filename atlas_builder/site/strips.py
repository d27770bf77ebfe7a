"""The activation range as a page shows it: one strip of bands or, of an output neuron, one for each side."""

from __future__ import annotations

from typing import NamedTuple

from atlas_builder.records.schema import Record
from atlas_builder.rounding import significant


class ShownBand(NamedTuple):
    """A band of a strip."""

    band: Record
    of: int | None
    """Of an output neuron's own band: about how many positions there are in its range, others included."""

    @property
    def is_below(self) -> bool:
        """Whether it lies below the first quantile of own positions."""
        return self.band["quantiles"][0] is None


class Strip(NamedTuple):
    """Bands of a unit, from low to high."""

    side: str | None
    """`own` and `others` of an output neuron, else None."""
    bands: list[ShownBand]

    @property
    def positions(self) -> int:
        """How many positions its bands have, of an output neuron; to two digits where they are others."""
        total = sum(int(shown.band["positions"]) for shown in self.bands)
        return total if self.side == "own" else round(significant(total, 2) or 0)


def strips_of(record: Record) -> list[Strip]:
    """The strips of a record's unit; none where it has no bands."""
    bands: list[Record] = record["bands"]
    others = {tuple(band["quantiles"]): int(band["positions"]) for band in bands if band.get("side") == "others"}
    sides = dict.fromkeys(band.get("side") for band in bands)
    return [
        Strip(side, [ShownBand(band, _all_in_range(band, others)) for band in bands if band.get("side") == side])
        for side in sides
    ]


def own_edges_of(record: Record) -> list[float]:
    """Activations at the quantiles of an output neuron's own positions; none for other kinds of units."""
    return [float(band["range"][0]) for band in record["bands"] if band.get("side") == "own"]


def _all_in_range(band: Record, others: dict[tuple[float | None, ...], int]) -> int | None:
    if band.get("side") != "own":
        return None
    own = int(band["positions"])
    return max(own, round(significant(own + others.get(tuple(band["quantiles"]), 0), 2) or 0))

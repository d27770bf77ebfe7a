"""A band of a unit's activation range, from its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atlas_builder.records.schema import Record

if TYPE_CHECKING:
    from atlas_builder.reader.unit import Example, Unit


@dataclass(frozen=True, repr=False)
class Band:
    """A band of a unit's activation range, and tokens drawn from it."""

    unit: Unit
    place: int
    """Its place among the unit's bands, from 0."""
    record: Record = field(compare=False)

    @property
    def side(self) -> str | None:
        """`own` where the token of an output neuron comes next, `others` elsewhere; None for other kinds of units."""
        return self.record.get("side")

    @property
    def positions(self) -> int | None:
        """Of an output neuron: how many positions of its side it has, about as many where they are others."""
        return self.record.get("positions")

    @property
    def quantiles(self) -> tuple[float | None, float]:
        """Its limits, as quantiles of the unit's positive activations.

        Of an output neuron, of its activations where its token comes next; the band below the first begins with None.
        """
        low, high = self.record["quantiles"]
        return low, high

    @property
    def range(self) -> tuple[float, float]:
        """Its limits, as activations."""
        low, high = self.record["range"]
        return low, high

    @property
    def examples(self) -> tuple[Example, ...]:
        """Some of the tokens drawn from it."""
        return tuple(self.unit.examples[place] for place in self.record["examples"])

    @property
    def drawn(self) -> int | None:
        """The number of tokens drawn for the comparison with the top band."""
        return self.record.get("drawn")

    @property
    def novelty(self) -> float | None:
        """The share of them that read like none drawn from the top band."""
        return self.record.get("novelty")

    @property
    def p(self) -> float | None:
        """P-value of that many if it were equal to the top band; None for the top band."""
        return self.record.get("p")

    def __repr__(self) -> str:
        low, high = self.range
        return f"<Band {self.place} of {self.unit.id}: {low} to {high}>"

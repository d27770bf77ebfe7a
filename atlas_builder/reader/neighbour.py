"""A record's reference to a similar behaviour of another unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas_builder.records.schema import Record

if TYPE_CHECKING:
    from atlas_builder.reader.atlas import Atlas
    from atlas_builder.reader.unit import Behaviour, Unit


@dataclass(frozen=True, repr=False, eq=False)
class Neighbour:
    """A similar behaviour of another unit, whose record is read on first access."""

    atlas: Atlas
    record: Record

    @property
    def id(self) -> str:
        """The id of the unit, `demo/L3/N512`."""
        return str(self.record["id"])

    @property
    def similarity(self) -> float:
        """The cosine of the MLP inputs at both central examples."""
        return float(self.record["similarity"])

    @property
    def wiring(self) -> float | None:
        """Weight cosine: the earlier unit's output weights with the later one's read weights; None within a layer."""
        return self.record.get("wiring")

    @property
    def unit(self) -> Unit:
        """The other unit."""
        return self.atlas[self.id]

    @property
    def behaviour(self) -> Behaviour:
        """The other behaviour."""
        return self.unit.behaviours[self.record["behaviour"]]

    def __repr__(self) -> str:
        return f"<Neighbour {self.id}#b{self.record['behaviour']}: similarity {self.similarity}>"

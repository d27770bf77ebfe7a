"""What overview pages show of a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import ByBehaviour
from atlas_builder.records.measures import MEASURES, Measure
from atlas_builder.records.schema import Record
from atlas_builder.site.in_words import Said, said_of_unit


@dataclass
class Summary:
    """What the overview pages show of a unit."""

    layer: int
    unit: int
    labels: list[str]
    measures: dict[str, Any]
    """Of `MEASURES`, by name."""
    coverage: list[float] = field(default_factory=list)
    hash: str = ""
    """Of its record."""
    similarity: float = 0.0
    """Mean cosine of its behaviours with their nearest neighbours, 0 for one that has none."""
    direction: dict[str, Any] | None = None
    """Of a direction, what its record says of it."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Of a direction, the tokens of its behaviours, by the mean of their weights: large behaviours count most."""
    said: Said | None = None
    """What a model said of it or of its first behaviour in words."""

    @property
    def name(self) -> str:
        """`L2/N17`."""
        return UnitAddress(self.layer, self.unit).id

    @property
    def page(self) -> str:
        """Address from the site's root."""
        return UnitAddress(self.layer, self.unit).page


def compared_number(units: Sequence[Summary]) -> Measure:
    """The number of behaviours by which to compare units: at equal sample coverage, if most with examples have it.

    Else the effective number in the examples at hand, which grows with how many there are.
    """
    known = [unit.measures["standard_behaviours"] is not None for unit in units if unit.measures["examples"]]
    name = "standard_behaviours" if 2 * sum(known) > len(known) else "effective_behaviours"
    return next(measure for measure in MEASURES if measure.name == name)


def summary_of(record: Record, explanations: ByBehaviour | None = None) -> Summary:
    """The summary of a record's unit, and what a model said of it."""
    behaviours = record["behaviours"]
    return Summary(
        layer=record["layer"],
        unit=record["unit"],
        labels=[behaviour["label"] for behaviour in behaviours],
        measures={measure.name: measure.of(record) for measure in MEASURES},
        coverage=[behaviour["coverage"] for behaviour in behaviours if behaviour["sign"] > 0],
        hash=record["hash"],
        similarity=_similarity(behaviours),
        direction=record.get("direction"),
        tokens=_tokens(behaviours) if "direction" in record else {},
        said=said_of_unit(record, explanations) if explanations else None,
    )


def _tokens(behaviours: list[Record]) -> dict[str, float]:
    total = sum(behaviour["coverage"] or 0.0 for behaviour in behaviours)
    weights: dict[str, float] = {}
    for behaviour in behaviours if total else ():
        for token, weight in behaviour["tokens"]:
            weights[token] = weights.get(token, 0.0) + behaviour["coverage"] * weight / total
    return weights


def _similarity(behaviours: list[Record]) -> float:
    nearest = [max((near["similarity"] for near in behaviour["neighbours"]), default=0.0) for behaviour in behaviours]
    return sum(nearest) / len(nearest) if nearest else 0.0

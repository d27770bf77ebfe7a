"""Units worth a first look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atlas_builder.link.run import Links
from atlas_builder.site.summary import Summary

_UNITS_SHOWN = 6  # in each list

Highlight = tuple[str, str, Sequence[Summary]]
"""Title, reason, units."""


def highlights(summaries: Mapping[int, Sequence[Summary]], links: Links) -> list[Highlight]:
    """Lists of units worth a first look, of those with ten examples at least."""
    units = [unit for layer in summaries.values() for unit in layer if unit.measures["examples"] >= 10]
    linked = connections(links)

    def best(score: Callable[[Summary], float | None]) -> list[Summary]:
        """The units with the highest score, if above zero."""
        scored = [(score(unit) or 0.0, unit) for unit in units]
        scored.sort(key=lambda entry: (-entry[0], entry[1].layer, entry[1].unit))
        return [unit for value, unit in scored[:_UNITS_SHOWN] if value > 0]

    lists: list[Highlight] = [
        ("Most polysemantic", "The highest effective number of behaviours.", best(_several)),
        ("Two or three things", "Behaviours of similar coverage, far from each other.", best(_separate)),
        ("One thing only", "A single behaviour, whose examples are most similar.", best(_single)),
        ("Most unusual", "Stable, coherent behaviours, least similar to those of other units.", best(_unusual)),
        (
            "Most connected",
            "Most often among the nearest neighbours of other units’ behaviours.",
            best(lambda unit: linked.get((unit.layer, unit.unit))),
        ),
    ]
    return [entry for entry in lists if entry[2]]


def connections(links: Links) -> dict[tuple[int, int], int]:
    """How many behaviours of other units have one of a unit's among their neighbours, by layer and unit."""
    counts = np.bincount(links.neighbours[links.neighbours >= 0], minlength=len(links.address))  # (behaviours,)
    totals: dict[tuple[int, int], int] = {}
    for (layer, unit, _), count in zip(links.address.tolist(), counts.tolist(), strict=True):
        totals[layer, unit] = totals.get((layer, unit), 0) + count
    return totals


def _several(unit: Summary) -> float | None:
    effective: float = unit.measures["effective_behaviours"]
    return effective if unit.measures["behaviours"] > 1 else None


def _separate(unit: Summary) -> float | None:
    """Between-cluster distance × the coverage of the smallest behaviour."""
    distance: float | None = unit.measures["inter_distance"]
    return distance * min(unit.coverage) if distance and 2 <= unit.measures["behaviours"] <= 3 else None


def _single(unit: Summary) -> float | None:
    distance: float | None = unit.measures["mean_distance"]
    return 2 - distance if distance is not None and unit.measures["behaviours"] == 1 else None


def _unusual(unit: Summary) -> float:
    """Dissimilarity to other units' behaviours × stability × MonoScore."""
    return (1 - unit.similarity) * (unit.measures["stability"] or 0.0) * max(0.0, unit.measures["mono_score"] or 0.0)

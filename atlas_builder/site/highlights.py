"""Units worth a first look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atlas_builder.link.run import Links
from atlas_builder.site.summary import Summary

_STARTS = 6  # units in each list

Start = tuple[str, str, Sequence[Summary]]
"""Title, reason, units."""


def highlights(summaries: Mapping[int, Sequence[Summary]], links: Links) -> list[Start]:
    """Lists of units worth a first look, of those with ten examples at least."""
    units = [unit for layer in summaries.values() for unit in layer if unit.measures["examples"] >= 10]
    named = connections(links)

    def best(score: Callable[[Summary], float | None]) -> list[Summary]:
        """The units of the highest score above zero."""
        scored = [(score(unit) or 0.0, unit) for unit in units]
        scored.sort(key=lambda entry: (-entry[0], entry[1].layer, entry[1].unit))
        return [unit for found, unit in scored[:_STARTS] if found > 0]

    lists: list[Start] = [
        ("Most polysemantic", "The highest effective number of behaviours.", best(_several)),
        ("Two or three lives", "Few behaviours of like weight, far from each other.", best(_apart)),
        ("One thing only", "A single behaviour, whose examples are most alike.", best(_single)),
        ("Strangest", "Clear, steady behaviours that no other unit shares.", best(_strange)),
        (
            "Most connected",
            "Most often among the nearest of other units’ behaviours.",
            best(lambda unit: named.get((unit.layer, unit.unit))),
        ),
    ]
    return [entry for entry in lists if entry[2]]


def connections(links: Links) -> dict[tuple[int, int], int]:
    """How many behaviours of other units have one of a unit's among their neighbours, by layer and unit."""
    named = np.bincount(links.neighbours[links.neighbours >= 0], minlength=len(links.address))  # (behaviours,)
    found: dict[tuple[int, int], int] = {}
    for (layer, unit, _), count in zip(links.address.tolist(), named.tolist(), strict=True):
        found[layer, unit] = found.get((layer, unit), 0) + count
    return found


def _several(unit: Summary) -> float | None:
    effective: float = unit.measures["effective_behaviours"]
    return effective if unit.measures["behaviours"] > 1 else None


def _apart(unit: Summary) -> float | None:
    """Distance between behaviours × the share of the smallest."""
    apart: float | None = unit.measures["inter_distance"]
    return apart * min(unit.coverage) if apart and 2 <= unit.measures["behaviours"] <= 3 else None


def _single(unit: Summary) -> float | None:
    distance: float | None = unit.measures["mean_distance"]
    return 2 - distance if distance is not None and unit.measures["behaviours"] == 1 else None


def _strange(unit: Summary) -> float:
    """How unlike others its behaviours are × stability × MonoScore."""
    return (1 - unit.similarity) * (unit.measures["stability"] or 0.0) * max(0.0, unit.measures["mono_score"] or 0.0)

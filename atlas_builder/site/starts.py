"""Units worth a first look."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atlas_builder.site.pages import Summary

_STARTS = 6  # units in each list


def starts(summaries: dict[int, list[Summary]]) -> list[tuple[str, str, Sequence[Summary]]]:
    """Lists of units worth a first look: title, reason, units."""
    units = [unit for layer in summaries.values() for unit in layer if unit.measures["examples"] >= 10]

    def best(score: Callable[[Summary], float | None]) -> list[Summary]:
        """The units of the highest score above zero."""
        scored = [(score(unit) or 0.0, unit) for unit in units]
        scored.sort(key=lambda entry: (-entry[0], entry[1].layer, entry[1].unit))
        return [unit for found, unit in scored[:_STARTS] if found > 0]

    many = best(lambda unit: unit.measures["behaviours"] > 1 and unit.measures["effective_behaviours"])
    apart = best(
        lambda unit: 2 <= unit.measures["behaviours"] <= 3 and unit.measures["inter_distance"] * min(unit.coverage)
    )
    single = best(lambda unit: unit.measures["behaviours"] == 1 and 2 - unit.measures["mean_distance"])
    alike = best(lambda unit: unit.likeness)
    lists = [
        ("Most behaviours", "Highest effective number of behaviours.", many),
        ("Two or three lives", "Few behaviours of like weight, far from each other.", apart),
        ("One thing only", "One behaviour, whose examples are most alike.", single),
        ("Seen elsewhere", "All they do, other units do much alike.", alike),
    ]
    return [entry for entry in lists if entry[2]]

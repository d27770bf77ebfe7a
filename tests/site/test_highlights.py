"""Units worth a first look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atlas_builder.link.run import Links
from atlas_builder.site.highlights import connections, highlights
from atlas_builder.site.summary import Summary

_ADDRESS = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [2, 0, 0]], dtype=np.int32)
_NEIGHBOURS = np.array([[2, 3], [3, -1], [0, 3], [-1, -1]], dtype=np.int32)


def _links(folder: Path) -> Links:
    np.save(folder / "address.npy", _ADDRESS)
    np.save(folder / "neighbours.npy", _NEIGHBOURS)
    return Links(folder)


def _unit(layer: int, unit: int, behaviours: int, **changed: Any) -> Summary:
    measures = {
        "behaviours": behaviours,
        "effective_behaviours": float(behaviours),
        "examples": 50,
        "mean_distance": 0.3,
        "inter_distance": 0.8 if behaviours > 1 else None,
        "stability": 0.9,
        "mono_score": 0.5,
        **changed,
    }
    labels = [f"word {number}" for number in range(behaviours)]
    return Summary(layer, unit, labels, measures, [1 / max(1, behaviours)] * behaviours)


def test_connections_count_by_whom_a_unit_is_named(tmp_path: Path) -> None:
    found = connections(_links(tmp_path))
    slow = {(0, 0): 0, (0, 1): 0, (2, 0): 0}
    for row in _NEIGHBOURS:
        for other in row:
            if other >= 0:
                slow[tuple(_ADDRESS[other][:2].tolist())] += 1  # type: ignore[index]
    assert found == slow


def test_lists_hold_the_units_they_are_named_after(tmp_path: Path) -> None:
    one, two, many = _unit(0, 0, 1, mean_distance=0.1), _unit(0, 1, 2), _unit(2, 0, 9)
    few = _unit(2, 1, 30, examples=9)  # too few examples to say so
    lists = {title: units for title, _, units in highlights({0: [one, two], 2: [many, few]}, _links(tmp_path))}
    assert lists["Most polysemantic"] == [many, two]
    assert lists["Two or three things"] == [two]
    assert lists["One thing only"] == [one]
    assert lists["Most connected"] == [many, one, two]
    assert set(map(id, lists["Most unusual"])) == {id(one), id(two), id(many)}

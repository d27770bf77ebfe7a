"""The table of a layer's units: its columns, its pages, and its data for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from atlas_builder.records.measures import Measure, shown_in
from atlas_builder.site.html import in_per_cent
from atlas_builder.site.summary import Summary

ROWS = 512
"""Units on one page of a layer; scripts sort and filter all of them."""


def columns(units: Sequence[Summary]) -> list[Measure]:
    """The measures that some unit has a value of: the stage may have left out token predictors."""
    shown = shown_in("layer")
    return [measure for measure in shown if not units or any(unit.measures[measure.name] is not None for unit in units)]


class Leaf(NamedTuple):
    """One page of a layer's table."""

    name: str
    """Its file: `index.html`, `index-2.html`, …"""
    first: int
    last: int
    units: Sequence[Summary]


def leaf_names(units: int) -> list[str]:
    """The files of a layer of this many units, `ROWS` on each; one even where there is no unit."""
    return ["index.html", *(f"index-{number}.html" for number in range(2, -(-units // ROWS) + 1))]


def leaves(units: Sequence[Summary]) -> list[Leaf]:
    """The pages of a layer."""
    return [
        Leaf(name, number * ROWS, min((number + 1) * ROWS, len(units)) - 1, units[number * ROWS : (number + 1) * ROWS])
        for number, name in enumerate(leaf_names(len(units)))
    ]


def data(layer: int, units: Sequence[Summary], tokens: Sequence[str] | None = None) -> bytes:
    """The measures of all units of a layer as a script, column by column, with names of output neurons and words.

    `digits` are significant digits shown: null for a count, 0 for a share in per cent.
    """
    columns_ = [
        {
            "name": measure.word,
            "former": measure.former,
            "digits": None if measure.values == "count" else 0 if in_per_cent(measure) else measure.digits,
            "values": [unit.measures[measure.name] for unit in units],
        }
        for measure in columns(units)
    ]
    # What is left out at the end need not be said.
    more = [tokens, [unit.said and unit.said[:3] for unit in units] if is_said(units) else None]
    while more and more[-1] is None:
        more.pop()
    return b"Atlas.columns(%d," % layer + b",".join(map(orjson.dumps, [columns_, *more])) + b");\n"


def is_said(units: Sequence[Summary]) -> bool:
    """Whether a model said anything of some unit in words."""
    return any(unit.said is not None for unit in units)

"""The table of a layer's units: its columns, its pages, and its data for scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from atlas_builder.site.summary import Summary
from atlas_builder.site.text import number, percent

ROWS = 512
"""Units on one page of a layer; scripts sort and filter all of them."""


@dataclass(frozen=True)
class Column:
    """A measure of units; `name` is what a filter calls it."""

    name: str
    heading: str
    why: str
    of: Callable[[Summary], Any]
    show: Callable[[Any], str] = str
    digits: int | None = None
    """Significant digits shown; None for a count, 0 for a share."""


def _count(name: str, heading: str, why: str) -> Column:
    measure = "behaviours" if name == "number" else name
    return Column(name, heading, why, lambda unit: unit.measures[measure])


def _measure(name: str, heading: str, why: str, measure: str, digits: int = 3) -> Column:
    return Column(name, heading, why, lambda unit: unit.measures[measure], lambda value: number(value, digits), digits)


def _share(name: str, heading: str, why: str, of: Callable[[Summary], Any]) -> Column:
    return Column(name, heading, why, of, percent, 0)


COLUMNS: Sequence[Column] = (
    _count("number", "Number", "of behaviours"),
    _measure("effective", "Effective", "number: exp of the entropy of their sizes", "effective_behaviours"),
    _share("none", "In none", "share of examples in no behaviour", lambda unit: unit.measures["noise_fraction"]),
    _measure("stability", "Stability", "how well half of the examples show the same behaviours", "stability", 2),
    _measure("mono", "MonoScore", "mean cosine of pairs of examples, weighted by activation", "mono_score", 2),
    _measure("distance", "Distance", "mean distance of pairs of examples", "mean_distance"),
    Column(
        "told",
        "Told",
        "by its token: F1 of firing, foretold on held-out text",
        lambda unit: unit.told,
        lambda value: number(value, 2),
        2,
    ),
    Column("max", "Maximum", "largest activation", lambda unit: unit.stats["max"], number, 3),
    _share("active", "Active on", "share of tokens with an activation above zero", lambda unit: unit.stats["density"]),
    _count("examples", "Examples", "that the measures rest on"),
)


def columns(units: Sequence[Summary]) -> list[Column]:
    """Those that say something of some unit: predictions may not have been tried."""
    return [column for column in COLUMNS if not units or any(column.of(unit) is not None for unit in units)]


class Leaf(NamedTuple):
    """One page of a layer's table."""

    name: str
    """Its file: `index.html`, `index-2.html`, …"""
    first: int
    last: int
    units: Sequence[Summary]


def leaf_names(units: int) -> list[str]:
    """The files of a layer of so many units, `ROWS` on each; one even where there is no unit."""
    return ["index.html", *(f"index-{number}.html" for number in range(2, -(-units // ROWS) + 1))]


def leaves(units: Sequence[Summary]) -> list[Leaf]:
    """The pages of a layer."""
    return [
        Leaf(name, number * ROWS, min((number + 1) * ROWS, len(units)) - 1, units[number * ROWS : (number + 1) * ROWS])
        for number, name in enumerate(leaf_names(len(units)))
    ]


def data(layer: int, units: Sequence[Summary]) -> bytes:
    """The measures of all units of a layer as a script, column by column."""
    found = [
        {"name": column.name, "digits": column.digits, "values": [column.of(unit) for unit in units]}
        for column in columns(units)
    ]
    return b"Atlas.columns(%d," % layer + orjson.dumps(found) + b");\n"

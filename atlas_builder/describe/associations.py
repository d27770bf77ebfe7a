"""Named associations: what comes before the middle of a unit's range more often than before its top, or the reverse.

Tokens are drawn from each band of the range, of an output neuron from those where its token came and from others
apart. `association_test` asks of each attribute, such as a token that leads up to the place, how well
it goes with the activation among the tokens of the middle and the top, and how often shifted attributes do
as well. The middle is all bands but the first, which is below, and the last, the top.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import Executor
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.collect.results import Collected, CollectedLayer, draw_type, drawn_between
from atlas_builder.config import ExampleSettings
from atlas_builder.describe.association_test import LEAST_CONTEXTS, association_test
from atlas_builder.describe.attributes import Attribute, Attributes
from atlas_builder.describe.results import associations_file
from atlas_builder.files import write_json
from atlas_builder.progress import Progress

MOST_NAMED = 5
"""Associations kept of a unit."""
_UNITS_AT_ONCE = 64


class Part(IntEnum):
    """Parts of the activation range."""

    BELOW = 0
    MIDDLE = 1
    TOP = 2


class DrawnRows(NamedTuple):
    """Tokens drawn from a unit's range to name associations: (tokens,) each."""

    value: NDArray[np.float32]
    side: NDArray[np.int8]
    """1 where an output neuron's token came next, else 0."""
    part: NDArray[np.int8]
    context: NDArray[np.int32]
    position: NDArray[np.int32]


def associate(
    collected: Collected, examples: ExampleSettings, folder: Path, executor: Executor, progress: Progress
) -> None:
    """Name the associations of every unit; a layer that is done is kept."""
    layers = [layer for layer in collected.layers if not associations_file(folder, layer.layer).exists()]
    with progress.task("associations", total=sum(layer.units for layer in layers), unit="units") as advance:
        tasks = [
            [
                executor.submit(_associate_units, collected.folder, layer, examples, first)
                for first in range(0, layer.units, _UNITS_AT_ONCE)
            ]
            for layer in layers
        ]
        for layer, of_layer in zip(layers, tasks, strict=True):
            units = []
            for task in of_layer:
                part = task.result()
                units += part
                advance(len(part))
            write_json(associations_file(folder, layer.layer), units)


def _associate_units(
    collected_folder: Path, layer: CollectedLayer, examples: ExampleSettings, first: int
) -> list[dict[str, Any]]:
    """The associations of some adjacent units."""
    collected = Collected(collected_folder)
    attributes = Attributes(collected, examples.window[0])
    with threadpool_limits(limits=1):
        return [
            associations_of(
                drawn_rows(layer, unit, examples.association_draws), attributes, [examples.seed, layer.layer, unit]
            )
            for unit in range(first, min(first + _UNITS_AT_ONCE, layer.units))
        ]


def drawn_rows(layer: CollectedLayer, unit: int, most: int) -> DrawnRows:
    """At most `most` tokens of each band and side of a unit; none where it has no range.

    What is below the range of an output neuron's own tokens has others alone.
    """
    edges = layer.band_edges[unit]
    parts: list[DrawnRows] = []
    if layer.draws is not None and not np.isnan(edges).any():
        sides = [_of_unit(rows, unit) for rows in (layer.draws, layer.own) if rows is not None]
        for band, (low, high) in enumerate(pairwise(edges.tolist())):
            is_last = band == len(edges) - 2
            part = Part.TOP if is_last else Part.MIDDLE if band else Part.BELOW
            for side, rows in enumerate(sides):
                if side and part == Part.BELOW:
                    continue
                drawn = drawn_between(rows, low, high, None if side else most, closed=is_last)
                parts.append(_drawn(drawn[:most], side, part))
    return DrawnRows(*map(np.concatenate, zip(_drawn(np.zeros(0, draw_type), 0, Part.BELOW), *parts, strict=True)))


def _of_unit(rows: np.ndarray, unit: int) -> np.ndarray:
    """A unit's rows, of those of all units: a few are read, where a search by NumPy would copy a whole column."""
    first, end = (bisect_left(rows, number, key=lambda row: row["unit"]) for number in (unit, unit + 1))
    return rows[first:end]


def _drawn(rows: np.ndarray, side: int, part: Part) -> DrawnRows:
    return DrawnRows(
        rows["value"],
        np.full(len(rows), side, np.int8),
        np.full(len(rows), part, np.int8),
        rows["context"],
        rows["position"],
    )


def associations_of(drawn: DrawnRows, attributes: Attributes, seed: Sequence[int]) -> dict[str, Any]:
    """What goes with the middle or the top, as it is saved: numbers `tested`, `draws` and `named`, and `found`.

    `found` has the largest effects of those that are named. A token is saved by its place in
    `Collected.texts_read`. What holds more often in the middle has a negative effect; where the shares of middle and
    top say otherwise, as in a middle that is not of one kind, nothing is named.
    """
    compared = drawn.part != Part.BELOW
    count = int(np.count_nonzero(compared))
    nothing = {"tested": 0, "draws": count, "named": 0, "found": []}
    if not ((drawn.part == Part.MIDDLE).any() and (drawn.part == Part.TOP).any()):
        return nothing
    table = attributes.at(drawn.context, drawn.position, compared, LEAST_CONTEXTS)
    scores = association_test(
        drawn.value[compared],
        drawn.side[compared],
        drawn.context[compared],
        table.holds[compared],
        position=drawn.position[compared],
        seed=seed,
    )
    found = []
    for place in scores.named().tolist():
        shares = {part.name.lower(): _share(table.holds[drawn.part == part, place]) for part in reversed(Part)}
        effect = float(scores.effect[place])
        if effect * (shares["top"] - shares["middle"]) > 0:
            found.append({**_name(table.named[place]), "effect": effect, **shares, "p": float(scores.p[place])})
    tested = int(np.count_nonzero(scores.tested))
    return {"tested": tested, "draws": count, "named": len(found), "found": found[:MOST_NAMED]}


def _share(holds: NDArray[np.bool_]) -> float:
    """NaN where nothing was drawn."""
    return float(holds.mean()) if len(holds) else math.nan


def _name(attribute: Attribute) -> dict[str, Any]:
    if isinstance(attribute, tuple):
        return dict(zip(("field", "value"), attribute, strict=True))
    return {"token": attribute}

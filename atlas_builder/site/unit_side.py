"""What a unit's page shows of positive and of negative activations, made from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from atlas_builder.records.schema import Record
from atlas_builder.site import figures, html
from atlas_builder.site.headline import measures_by_sign

COLOURS = 8
"""Behaviours with a colour of their own; those after share one."""


PlanePoints = tuple[NDArray[np.float32], NDArray[np.int32], float]
"""What `LayerRecords.plane` returns: points (examples, 2), labels (examples,), the share of variance shown."""


@dataclass(frozen=True)
class UnitSide:
    """A unit's behaviours and measures for one sign of its activations; `projection` where its plane is drawn."""

    sign: int
    behaviours: list[dict[str, Any]]
    noise: list[int]
    measures: dict[str, Any]
    colours: list[str]
    projection: PlanePoints | None

    @property
    def main(self) -> list[dict[str, Any]]:
        """Its main behaviours; they are the larger ones, so they come first."""
        return self.behaviours[: self.measures["main_behaviours"]]

    @property
    def rare(self) -> list[dict[str, Any]]:
        """Its behaviours of few examples."""
        return self.behaviours[self.measures["main_behaviours"] :]

    @property
    def has_unclustered(self) -> bool:
        """Whether some of its examples are unclustered, shown or not."""
        return bool(self.measures["noise_fraction"])

    @property
    def unexplained(self) -> float:
        """The share of the activation that is of unclustered examples."""
        return max(0.0, 1 - float(sum(behaviour["coverage"] for behaviour in self.behaviours)))

    @property
    def bar(self) -> Markup:
        """The coverage of its main behaviours, of all rare ones and of unclustered examples, as the list beside it."""
        parts = [(self.colours[behaviour["id"]], behaviour["coverage"]) for behaviour in self.main]
        if self.rare:
            parts.append(("c0", sum(behaviour["coverage"] for behaviour in self.rare)))
        return figures.shares([*parts, ("c0", self.unexplained)] if self.has_unclustered else parts)

    @property
    def spread(self) -> float:
        """The share of its examples' variance that the plane shows."""
        return self.projection[2] if self.projection else math.nan

    @cached_property
    def plane(self) -> Markup | None:
        """Its examples by principal coordinates; None where they do not vary, or are not to be drawn."""
        if self.projection is None or math.isnan(self.spread):
            return None
        points, labels, _ = self.projection
        return figures.plane(points, labels, self.colours)


@dataclass(frozen=True)
class ExamplePlaces:
    """Places in a record's list of examples."""

    in_bands: set[int]
    negative: set[int]
    """Examples, not of bands, whose key token has a negative activation."""
    own: set[int]
    """Examples of bands where the token of an output neuron comes next."""
    unclustered: list[int]

    @classmethod
    def of(cls, record: Record) -> ExamplePlaces:
        """Those of a record."""
        in_bands = {place for band in record["bands"] for place in band["examples"]}
        others = [(place, example) for place, example in enumerate(record["examples"]) if place not in in_bands]
        return cls(
            in_bands,
            own={place for band in record["bands"] if band.get("side") == "own" for place in band["examples"]},
            negative={place for place, example in others if example["values"][example["key"]] < 0},
            unclustered=[place for place, example in others if example["behaviour"] is None],
        )


def sides_of(
    record: Record, places: ExamplePlaces, planes: Mapping[int, PlanePoints], colours: list[str]
) -> list[UnitSide]:
    """A unit's positive side, and its negative one where it has negative activations; `planes` of those to be drawn."""
    return [
        UnitSide(
            sign,
            [behaviour for behaviour in record["behaviours"] if behaviour["sign"] == sign],
            [place for place in places.unclustered if (place in places.negative) == (sign < 0)],
            measures,
            colours,
            planes.get(sign),
        )
        for sign, measures in measures_by_sign(record).items()
    ]


def colours_of(record: Record) -> list[str]:
    """The class of each behaviour by its number, and of unclustered examples at 0; each sign begins with the first."""
    signs = [behaviour["sign"] for behaviour in record["behaviours"]]
    positive = signs.count(1)
    ranks = [0, *(place + 1 if sign > 0 else place + 1 - positive for place, sign in enumerate(signs))]
    return [f"c{rank if rank <= COLOURS else 0}" for rank in ranks]


def shown_examples(record: Record, places: ExamplePlaces, *, titles: bool) -> list[Markup]:
    """Each example as it is shown, highlighted by shares of the unit's maximum, or of its minimum.

    Activations of tokens are `titles`, but for those of bands.
    """
    maximum, minimum = record["stats"]["max"], record["stats"]["min"]
    return [
        _shown(
            example,
            minimum if place in places.negative else max(maximum, 0),  # an output neuron may never be active
            in_a_band=place in places.in_bands,
            titles=titles,
            is_own=place in places.own,
        )
        for place, example in enumerate(record["examples"])
    ]


def _shown(example: dict[str, Any], extreme: float, *, in_a_band: bool, titles: bool, is_own: bool) -> Markup:
    """The text of an example of a band; the whole line of another, with activation and source."""
    key, importance = example["key"], example.get("importance", ())
    values = example["values"]
    if special := example.get("special"):
        values = [None if place in special else value for place, value in enumerate(values)]
    text = html.highlight(
        example["tokens"],
        values,
        key,
        extreme,
        importance,
        titles=titles and not in_a_band,
        marks_next=is_own,
    )
    if in_a_band:
        return text
    value, source = example["values"][key], example["source"]
    role = example.get("role", "")
    return html.example(text, value, source, example["position"], weighed=bool(importance), role=role)

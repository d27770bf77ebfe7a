"""The measures that a unit's page lists, as it writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atlas_builder.records.measures import Measure, shown_in
from atlas_builder.records.schema import Record
from atlas_builder.site.html import measured

_ACTIVATION, _UNIT, _NEGATIVE = shown_in("activation"), shown_in("unit"), shown_in("negative")

MeasureRow = tuple[str, str, str]
"""Name, title and value of a measure."""


class MeasureRows(NamedTuple):
    """The lists of measures of a unit's page."""

    activation: list[MeasureRow]
    unit: list[MeasureRow]
    negative: list[MeasureRow]
    """Of negative activations; empty where it has none."""


def measured_of(record: Record) -> MeasureRows:
    """Those of a record; the minimum is one of them where negative activations are, predictions where there are any."""
    prediction, negative = record["prediction"], record["negative"]
    is_predicted = prediction and prediction["fired"]
    ways = {("prediction", way) for way in prediction if way != "fired"} if is_predicted else set()
    return MeasureRows(
        _rows(record, [measure for measure in _ACTIVATION if negative or measure.name != "min"]),
        _rows(record, [measure for measure in _UNIT if measure.path[0] != "prediction" or measure.path[:2] in ways]),
        _rows(negative, _NEGATIVE) if negative else [],
    )


def _rows(record: Record, measures: Sequence[Measure]) -> list[MeasureRow]:
    return [(measure.name, measure.title, measured(measure.of(record), measure)) for measure in measures]

"""The columns of the tables of an atlas: their names, types, and the fields of records that they correspond to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from atlas_builder.config import Configuration
from atlas_builder.records.explanations import ByBehaviour
from atlas_builder.records.measures import MEASURES, OF_CLUSTERS, Measure
from atlas_builder.records.schema import SCHEMA, schema


class Column(NamedTuple):
    """A column; `path` is that of its field in the record, whose description it shares."""

    name: str
    type: pa.DataType
    path: tuple[str, ...] = ()
    description: str = ""
    """Of a column that is computed from several fields, and so has no path."""


def _column(measure: Measure, prefix: str = "", *path: str) -> Column:
    return Column(prefix + measure.name, pa.int32() if measure.values == "count" else pa.float64(), path + measure.path)


_ADDRESS = [
    Column("id", pa.string(), ("id",)),
    Column("layer", pa.int32(), ("layer",)),
    Column("unit", pa.int32(), ("unit",)),
]
_PAGE = Column("page", pa.string())
NEIGHBOUR = pa.struct({"id": pa.string(), "behaviour": pa.int32(), "similarity": pa.float64(), "wiring": pa.float64()})

_EXPLANATION = [
    Column("explanation", pa.string(), (), "What a model said of it in words: the first of this edition, if any."),
    Column("explanation_model", pa.string(), (), "The model that said so."),
    Column("explanation_detection", pa.float64(), (), "Balanced accuracy of detection by that explanation."),
    Column("explanation_fuzzing", pa.float64(), (), "Balanced accuracy of fuzzing by that explanation."),
    Column(
        "explanation_simulation",
        pa.float64(),
        (),
        "Correlation of activations simulated from that explanation with the true ones.",
    ),
]
UNIT_EXPLANATION = [column.name for column in _EXPLANATION[:2]]
"""Columns of the table of units that no record has."""

UNITS = [
    *_ADDRESS,
    Column("kind", pa.string(), ("kind",)),
    *(_column(measure) for measure in MEASURES if measure.path[0] == "stats"),
    Column("tokens", pa.int64(), ("stats", "tokens")),
    *(_column(measure) for measure in OF_CLUSTERS),
    *(_column(measure, "negative_", "negative") for measure in OF_CLUSTERS),
    Column("middle_differs", pa.bool_(), ("middle_differs",)),
    *(_column(measure) for measure in MEASURES if measure.path[0] == "prediction"),
    *(_column(measure) for measure in MEASURES if measure.path[0] == "associations"),
    *(_column(measure) for measure in MEASURES if measure.path[0] == "direction"),
    Column("token_id", pa.int32(), ("token", "id")),
    Column("token", pa.string(), ("token", "text")),
    *_EXPLANATION[:2],
    _PAGE,
]
"""One row a unit. Measures below zero are null for units without negative activations."""

BEHAVIOURS = [
    *_ADDRESS,
    Column("behaviour", pa.int32(), ("behaviours", "id")),
    Column("sign", pa.int32(), ("behaviours", "sign")),
    Column("size", pa.int32(), ("behaviours", "size")),
    Column("coverage", pa.float64(), ("behaviours", "coverage")),
    Column("stability", pa.float64(), ("behaviours", "stability")),
    Column("label", pa.string(), ("behaviours", "label")),
    Column("tokens", pa.list_(pa.string()), ("behaviours", "tokens")),
    Column("weights", pa.list_(pa.float64()), ("behaviours", "tokens")),
    Column("next", pa.list_(pa.string()), ("behaviours", "next")),
    Column("next_weights", pa.list_(pa.float64()), ("behaviours", "next")),
    Column("neighbours", pa.list_(NEIGHBOUR), ("behaviours", "neighbours")),
    *_EXPLANATION,
    _PAGE,
]
"""One row a behaviour, by unit and number. Weights are in the order of the tokens in the list beside."""

EXAMPLES = [
    *_ADDRESS,
    Column("behaviour", pa.int32(), ("examples", "behaviour")),
    Column("document", pa.int32(), ("examples", "document")),
    Column("position", pa.int32(), ("examples", "position")),
    Column("activation", pa.float64()),
    Column("role", pa.string(), ("examples", "role")),
]
"""One row an example: all that the measures are computed from, shown in records or not."""


class EdgeRow(NamedTuple):
    """A row of the table of edges."""

    layer_before: int
    direction_before: int
    layer_after: int
    direction_after: int
    strength: float


EDGES = [
    Column("layer_before", pa.int32(), (), "The layer at whose MLP's input the edge begins."),
    Column("direction_before", pa.int32(), (), "Its direction."),
    Column("layer_after", pa.int32(), (), "The layer at whose MLP's input the edge ends."),
    Column("direction_after", pa.int32(), (), "Its direction."),
    Column(
        "strength",
        pa.float64(),
        (),
        "The mean over tokens of the square of what the activation of the direction before, at all tokens of the "
        "context, contributes to that of the direction after, to first order.",
    ),
]
"""One row an edge above the floor of its layers, of an atlas of directions; the strongest of two layers first."""

TABLES = {"units": UNITS, "behaviours": BEHAVIOURS, "examples": EXAMPLES}


def explanation_columns(explanations: ByBehaviour, unit: str, behaviour: int | None) -> dict[str, Any]:
    """The columns of the tables: the first explanation of this edition, nulls without one; of a unit the first two."""
    said = (one for one in explanations.get((unit, behaviour), ()) if one.current and not one.is_computed)
    one = next(said, None)
    columns = {"explanation": one and one.explanation, "explanation_model": one and one.model}
    if behaviour is None:
        return columns
    return columns | {
        f"explanation_{name}": one and getattr(one.scores, name) for name in ("detection", "fuzzing", "simulation")
    }


def tables_of(config: Configuration) -> dict[str, list[Column]]:
    """The tables of an atlas by name."""
    return {**TABLES, "edges": EDGES} if config.units.kind == "basis" else TABLES


def table_schema(columns: Sequence[Column], config: Configuration) -> pa.Schema:
    """The schema of a table, with the meaning of its columns and the facts of its atlas as metadata."""
    atlas = config.atlas
    facts = {"atlas": atlas.id, "edition": atlas.version, "license": atlas.license, "records": SCHEMA}
    fields = []
    for column in columns:
        description = _description(column)
        fields.append(
            pa.field(column.name, column.type, metadata={"description": description} if description else None)
        )
    return pa.schema(fields, metadata={name: value.encode("utf-8", "replace") for name, value in facts.items()})


def _description(column: Column) -> str:
    """A column's own description, and those in the schema of records along the path of its field."""
    node, descriptions = schema(), [column.description]
    for step in column.path:
        node = node.get("items", node)["properties"][step]
        descriptions.append(node.get("description"))
        if "$ref" in node:
            node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return " ".join(filter(None, descriptions))

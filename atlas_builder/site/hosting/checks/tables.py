"""Rows of the Parquet tables, compared with records, and what only the tables have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atlas_builder.config import Configuration
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.columns import TABLES, UNIT_EXPLANATION, UNITS, explanation_columns, table_schema, tables_of
from atlas_builder.records.explanations import PUBLISHED, ByBehaviour
from atlas_builder.records.rows import numbers, read_rows
from atlas_builder.records.schema import Record
from atlas_builder.rounding import grain_of
from atlas_builder.site.headline import measures_by_sign

_CLOSE = 1e-3
_OF_A_BEHAVIOUR = ("sign", "size", "coverage", "stability", "label")
_OF_A_NEIGHBOUR = ("id", "behaviour", "similarity", "wiring")


class LayerTables(NamedTuple):
    """The rows of one layer, and where those of each unit begin: (units + 1,)."""

    units: list[dict[str, Any]]
    behaviours: list[dict[str, Any]]
    behaviour_starts: list[int]
    examples: dict[str, Any]
    """Columns; a behaviour of 0 is none."""
    example_starts: list[int]


@lru_cache(maxsize=2)
def layer_tables(folder: Path, layer: int, units: int, run: str) -> LayerTables:
    """A layer's tables, read once in a `run`; `ValueError` where rows are missing or not in order."""
    read = {name: read_rows(folder / "tables" / f"{name}.parquet", layer=layer) for name in TABLES}
    starts = {name: _starts(name, numbers(table["unit"]), units) for name, table in read.items()}
    if starts["units"] != list(range(units + 1)):
        raise ValueError(f"tables/units.parquet: layer {layer} has not one row for each of its units")
    columns = {name: read["examples"][name] for name in ("id", "behaviour", "document", "position", "activation")}
    return LayerTables(
        read["units"].to_pylist(),
        read["behaviours"].to_pylist(),
        starts["behaviours"],
        {
            "id": columns["id"].to_pylist(),
            "behaviour": numbers(columns["behaviour"], null=0),
            "document": numbers(columns["document"]),
            "position": numbers(columns["position"]),
            "activation": numbers(columns["activation"]),
        },
        starts["examples"],
    )


def _starts(name: str, unit: np.ndarray, units: int) -> list[int]:
    if len(unit) and (np.any(np.diff(unit) < 0) or unit[0] < 0 or unit[-1] >= units):
        raise ValueError(f"tables/{name}.parquet: its rows are not in the order of units")
    starts: list[int] = np.searchsorted(unit, np.arange(units + 1)).tolist()
    return starts


def row_problems(
    tables: LayerTables,
    record: Record,
    labels: Mapping[tuple[str, int], str],
    neighbours: int,
    explanations: ByBehaviour,
) -> Iterator[str]:
    """Where rows of the tables differ from a unit's record; `neighbours` are shown of a main behaviour at most."""
    unit = record["unit"]
    yield from _unit(tables.units[unit], record)
    rows = tables.behaviours[slice(*tables.behaviour_starts[unit : unit + 2])]
    yield from _behaviours(rows, record, labels, neighbours)
    yield from _examples(tables, record)
    for name, row, number in (
        ("units", tables.units[unit], None),
        *(("behaviours", row, row["behaviour"]) for row in rows),
    ):
        expected = explanation_columns(explanations, record["id"], number)
        if any(row[column] != value for column, value in expected.items()):
            yield f"tables/{name}.parquet: the explanation of {record['id']} is not that of {PUBLISHED}"


def _unit(row: Mapping[str, Any], record: Record) -> Iterator[str]:
    for column in UNITS:
        if column.name in UNIT_EXPLANATION:
            continue  # of no record
        expected: Any = record
        for step in column.path:
            expected = expected.get(step) if isinstance(expected, dict) else None
        if column.name == "page":
            expected = UnitAddress(record["layer"], record["unit"]).page
        if row[column.name] != expected:
            yield f"tables/units.parquet: {column.name} of {record['id']} is not that of its record"


def _behaviours(
    rows: Sequence[Mapping[str, Any]], record: Record, labels: Mapping[tuple[str, int], str], neighbours: int
) -> Iterator[str]:
    if len(rows) != len(record["behaviours"]):
        yield f"tables/behaviours.parquet: {record['id']} has {len(rows)} rows, its record {len(record['behaviours'])}"
        return
    address = UnitAddress(record["layer"], record["unit"])
    main = {
        sign: side["main_behaviours"] for sign, side in measures_by_sign(record).items()
    }  # the first behaviours of a sign
    for row, behaviour in zip(rows, record["behaviours"], strict=True):
        what = f"of {record['id']}, behaviour {behaviour['id']}, is not that of its record"
        sign = behaviour["sign"]
        is_main, main[sign] = main[sign] > 0, main[sign] - 1
        expected = {
            **{name: behaviour[name] for name in _OF_A_BEHAVIOUR},
            "id": record["id"],
            "behaviour": behaviour["id"],
            "page": address.anchor(behaviour["id"]),
        }
        different = [name for name, value in expected.items() if row[name] != value]
        for name, weights in (("tokens", "weights"), ("next", "next_weights")):
            pairs = [list(pair) for pair in zip(row[name], row[weights], strict=False)]
            shown = behaviour[name]
            if len(row[name]) != len(row[weights]) or (pairs if is_main else pairs[: len(shown)]) != shown:
                different.append(name)
            elif any(one[1] < other[1] for one, other in itertools.pairwise(pairs)):
                different.append(f"order of {name}")
            elif pairs and not (pairs[0][1] <= 1 and pairs[-1][1] >= 0):
                different.append(f"share of {name}")
        near = [{name: one[name] for name in _OF_A_NEIGHBOUR} for one in row["neighbours"]]
        shown = [{name: one[name] for name in _OF_A_NEIGHBOUR} for one in behaviour["neighbours"]]
        if shown != (near[:neighbours] if is_main else []):
            different.append("neighbours")
        elif any((one["id"], one["behaviour"]) not in labels for one in near):
            different.append("neighbours (one is no behaviour of the atlas)")
        yield from (f"tables/behaviours.parquet: {name} {what}" for name in different)


def _examples(tables: LayerTables, record: Record) -> Iterator[str]:
    """The examples count as the record says, cover as much, and those that it shows are among them."""
    what = f"tables/examples.parquet: the rows of {record['id']}"
    first, last = tables.example_starts[record["unit"] : record["unit"] + 2]
    behaviour, document, position, activation = (
        tables.examples[name][first:last] for name in ("behaviour", "document", "position", "activation")
    )
    if set(tables.examples["id"][first:last]) - {record["id"]}:
        yield f"{what} have another id"
    sides = measures_by_sign(record)
    if len(behaviour) != sum(side["examples"] for side in sides.values()):
        yield f"{what} are not as many as its examples"
        return
    own = record["behaviours"]
    sizes = np.bincount(behaviour, minlength=len(own) + 1)
    if sizes[1:].tolist() != [one["size"] for one in own]:
        yield f"{what} are not in behaviours of the sizes of its record"
        return
    slack = _CLOSE * max(abs(record["stats"]["max"]), abs(record["stats"]["min"]))
    if (
        len(activation)
        and not record["stats"]["min"] - slack <= activation.min() <= activation.max() <= record["stats"]["max"] + slack
    ):
        yield f"{what} have an activation beyond its minimum and maximum"
    sums = np.bincount(behaviour, weights=np.abs(activation), minlength=len(own) + 1)
    for sign in sides:
        total = float(np.abs(activation[activation * sign > 0]).sum())
        for one in own:
            if (
                one["sign"] == sign
                and abs(sums[one["id"]] - one["coverage"] * total) > 2 * _CLOSE * one["coverage"] * total
            ):
                yield f"{what} have activations that do not give the coverage of behaviour {one['id']}"
    rows = dict(
        zip(
            zip(document.tolist(), position.tolist(), (np.sign(activation)).tolist(), strict=True),
            zip(behaviour.tolist(), activation.tolist(), strict=True),
            strict=True,
        )
    )
    in_bands = {place for band in record["bands"] for place in band["examples"]}
    grains = {1: grain_of(record["stats"]["max"]), -1: grain_of(-record["stats"]["min"])}
    signs = {one["id"]: one["sign"] for one in own}
    for place, example in enumerate(record["examples"]):
        if place in in_bands:
            continue
        value = example["values"][example["key"]]
        sign = signs.get(example["behaviour"]) or (-1 if value < 0 else 1)
        row = rows.get((example["document"], example["position"], float(sign)))
        if (
            row is None
            or row[0] != (example["behaviour"] or 0)
            or abs(row[1] - value) > 0.51 * grains[sign] + _CLOSE * abs(value)
        ):
            yield f"{what} lack example {place} of its record"


def schema_problems(folder: Path, config: Configuration) -> Iterator[str]:
    """Tables whose columns are of other types, or have another meaning or other facts in their metadata."""
    for name, columns in tables_of(config).items():
        found = pq.read_schema(folder / "tables" / f"{name}.parquet")
        expected = table_schema(columns, config)
        if not found.equals(expected):
            yield f"tables/{name}.parquet: its columns are not those of the builder"
        elif _meaning(found) != _meaning(expected):
            yield f"tables/{name}.parquet: its metadata are not those of the builder"


def _meaning(schema: pa.Schema) -> tuple[Any, ...]:
    """The metadata of a table, and what describes each of its columns."""
    described = [(field.metadata or {}).get(b"description") for field in schema]
    return {name: value for name, value in (schema.metadata or {}).items() if name != b"ARROW:schema"}, described


def count_problems(folder: Path) -> Iterator[str]:
    """Whether there are as many examples as units have."""
    columns = read_rows(folder / "tables" / "units.parquet", ["examples", "negative_examples"])
    total = sum(int(np.nansum(numbers(column))) for column in columns.columns)
    rows = pq.read_metadata(folder / "tables" / "examples.parquet").num_rows
    if rows != total:
        yield f"tables/examples.parquet: {rows:,} rows do not match the units' {total:,} examples"

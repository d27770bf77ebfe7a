"""All units, behaviours and examples as three Parquet tables, in place of thousands of records.

Names and numbers are those of the records, so that either can be looked up in the other.
Each layer is one row group, in the order of the atlas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import Configuration
from atlas_builder.describe.results import Interactions
from atlas_builder.describe.token_scores import WAYS, predictor_scores
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.bands import middle_differs
from atlas_builder.records.columns import (
    EDGES,
    NEIGHBOUR,
    TABLES,
    UNIT_EXPLANATION,
    Column,
    EdgeRow,
    explanation_columns,
    table_schema,
)
from atlas_builder.records.explanations import ByBehaviour, read_published
from atlas_builder.records.rows import read_rows
from atlas_builder.records.stages import Stages
from atlas_builder.rounding import significant, significant_all

_Numbers = NDArray[np.integer[Any]]


def write_tables(folder: Path, stages: Stages, config: Configuration, said: Path | None = None) -> None:
    """Write the tables into a folder, which is created if needed.

    Memory holds one layer at a time. `config` is the one that the records are made with,
    and sets how many neighbours are listed; `said` is the published file of explanations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = _Source(stages, config, read_published(said))
    made = {"units": source.units, "behaviours": source.behaviours, "examples": source.examples}
    for name, rows in made.items():
        schema = table_schema(TABLES[name], config)
        with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") as writer:
            for layer in stages.collected.layers:
                writer.write_table(pa.table(rows(layer), schema))
    if stages.interactions is not None:
        _write_edges(folder / "edges.parquet", stages.interactions, config)


def edge_rows(interactions: Interactions) -> list[EdgeRow]:
    """The edges above the floors, with strengths as published."""
    return [
        EdgeRow(layer, before, interactions.after[layer], after, significant(strength) or 0.0)
        for layer in interactions.layers
        for before, after, strength in interactions.shown(layer)
    ]


def read_edges(folder: Path) -> list[EdgeRow]:
    """The rows of the table of edges of an atlas; `OSError`, `ValueError` if unreadable."""
    rows = read_rows(folder / "edges.parquet", EdgeRow._fields).to_pylist()
    return [EdgeRow(**row) for row in rows]


def _write_edges(path: Path, interactions: Interactions, config: Configuration) -> None:
    rows = edge_rows(interactions)
    columns = {name: [row[place] for row in rows] for place, name in enumerate(EdgeRow._fields)}
    pq.write_table(pa.table(columns, table_schema(EDGES, config)), path, compression="zstd")


def table_problems(
    folder: Path, layers: Sequence[Mapping[str, int]], named: Mapping[str, Sequence[Column]] = TABLES
) -> list[str]:
    """The problems of the tables, as `named`, of an atlas whose `atlas.json` lists these layers."""
    files, problems = {}, []
    for name, columns in named.items():
        file = folder / f"{name}.parquet"
        try:
            files[name] = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            problems.append(f"tables/{file.name}: cannot be read ({str(error).splitlines()[0]})")
            continue
        missing = {column.name for column in columns} - set(files[name].schema_arrow.names)
        problems += [f"tables/{file.name}: the column {column} is missing" for column in sorted(missing)]
    if problems:
        return problems
    units = files["units"].read(["layer", "unit", "behaviours", "negative_behaviours"])
    expected = [(layer["layer"], unit) for layer in layers for unit in range(layer["units"])]
    if list(zip(units["layer"].to_pylist(), units["unit"].to_pylist(), strict=True)) != expected:
        return [f"tables/units.parquet: {len(units):,} rows do not match the {len(expected):,} units of atlas.json"]
    total = sum(sum(filter(None, units[name].to_pylist())) for name in ("behaviours", "negative_behaviours"))
    rows = files["behaviours"].metadata.num_rows
    if rows != total:
        problems.append(f"tables/behaviours.parquet: {rows:,} rows do not match the units' {total:,} behaviours")
    return problems


class _Source:
    """Makes the columns of one layer at a time."""

    def __init__(self, stages: Stages, config: Configuration, explanations: ByBehaviour) -> None:
        self._stages, self._config, self._explanations = stages, config, explanations
        layers = stages.collected.layers
        names = [
            UnitAddress(layer.layer, unit).within(config.atlas.id) for layer in layers for unit in range(layer.units)
        ]
        self._ids = pa.array(names, pa.string())
        self._firsts = np.zeros(max(layer.layer for layer in layers) + 1, dtype=np.int64)  # place of a layer's unit 0
        self._firsts[[layer.layer for layer in layers]] = np.cumsum([0, *(layer.units for layer in layers[:-1])])
        self._texts = pa.array(stages.collected.texts_read, pa.string())

    def units(self, layer: CollectedLayer) -> dict[str, Any]:
        """The columns of a layer's units."""
        measures = self._stages.layer(layer.layer).clustered.measures  # (units, sides)
        nothing = pa.nulls(layer.units)
        described = self._stages.layer(layer.layer).described
        counts, associated = described.prediction, described.associations
        maximum, minimum, mean, deviation, density = (_numbers(part) for part in layer.moments)
        return {
            **self._address(layer.layer, np.arange(layer.units)),
            "kind": [self._stages.collected.facts["kind"]] * layer.units,
            "max": maximum,
            "min": minimum,
            "mean": mean,
            "std": deviation,
            "density": density,
            "tokens": np.full(layer.units, layer.tokens),
            **{name: _numbers(measures[name][:, 0]) for name in measures.dtype.names or ()},
            **{
                f"negative_{name}": _numbers(measures[name][:, 1]) if layer.signs == 2 else nothing
                for name in measures.dtype.names or ()
            },
            "middle_differs": middle_differs(described),
            **{f"{way}_f1": nothing if counts is None else _numbers(predictor_scores(counts, way).f1) for way in WAYS},
            "associations": nothing if associated is None else [unit["named"] for unit in associated],
            **self._directions(layer),
            **self._output_tokens(layer),
            **self._said(layer.layer, [(unit, None) for unit in range(layer.units)], UNIT_EXPLANATION),
            "page": [UnitAddress(layer.layer, unit).page for unit in range(layer.units)],
        }

    def _directions(self, layer: CollectedLayer) -> dict[str, Any]:
        """Columns that are null but for directions."""
        rotation = self._stages.rotation
        if self._config.units.kind != "basis" or rotation is None:
            return dict.fromkeys(("importance_share", "direction_stability"), pa.nulls(layer.units))
        directions = rotation.layer(layer.layer)
        return {
            "importance_share": _numbers(directions.share),
            "direction_stability": _numbers(directions.stability),
        }

    def _output_tokens(self, layer: CollectedLayer) -> dict[str, Any]:
        """Columns that are null but for output neurons."""
        tokens, nothing = self._stages.output_tokens, pa.nulls(layer.units)
        names = {"token_id": "id", "token": "text"}
        return {
            column: nothing if tokens is None else [token[name] for token in tokens] for column, name in names.items()
        }

    def behaviours(self, layer: CollectedLayer) -> dict[str, Any]:
        """The columns of a layer's behaviours."""
        behaviours = self._stages.layer(layer.layer).clustered.behaviours
        described = self._stages.layer(layer.layer).described.behaviours
        tokens, weights = self._weighted([behaviour["tokens"] for behaviour in described])
        following, shares = self._weighted([behaviour["next"] for behaviour in described])
        numbers = behaviours["id"] + 1  # people count from one
        return {
            **self._address(layer.layer, behaviours["unit"]),
            "behaviour": numbers,
            "sign": behaviours["sign"],
            "size": behaviours["size"],
            "coverage": _numbers(behaviours["coverage"]),
            "stability": _numbers(behaviours["stability"]),
            "label": [behaviour["label"] for behaviour in described],
            "tokens": tokens,
            "weights": weights,
            "next": following,
            "next_weights": shares,
            "neighbours": self._neighbours(layer.layer, len(behaviours)),
            **self._said(layer.layer, list(zip(behaviours["unit"].tolist(), numbers.tolist(), strict=True)), None),
            "page": [
                UnitAddress(layer.layer, unit).anchor(number)
                for unit, number in zip(behaviours["unit"].tolist(), numbers.tolist(), strict=True)
            ],
        }

    def _said(self, layer: int, of: Sequence[tuple[int, int | None]], names: Sequence[str] | None) -> dict[str, Any]:
        """The columns of what was said of some units and behaviours: those of these names, or all."""
        wanted = tuple(explanation_columns({}, "", 0)) if names is None else names
        if not self._explanations:
            return dict.fromkeys(wanted, pa.nulls(len(of)))
        ids = (UnitAddress(layer, unit).within(self._config.atlas.id) for unit, _ in of)
        rows = [
            explanation_columns(self._explanations, name, number) for name, (_, number) in zip(ids, of, strict=True)
        ]
        return {name: [row[name] for row in rows] for name in wanted}

    def examples(self, layer: CollectedLayer) -> dict[str, Any]:
        """The columns of a layer's examples."""
        examples, contexts = layer.examples, self._stages.collected.contexts
        labels = self._stages.layer(layer.layer).clustered.labels
        context = examples["context"]
        roles = contexts.role_at(contexts.starts[context] + examples["position"])
        return {
            **self._address(layer.layer, examples["unit"]),
            "behaviour": pa.array(labels + 1, mask=labels < 0),
            "document": contexts.document[context],
            "position": contexts.offset[context] + examples["position"],
            "activation": _numbers(examples["value"]),
            "role": pa.nulls(len(examples)) if roles is None else roles,
        }

    def _address(self, layer: int, units: _Numbers) -> dict[str, Any]:
        return {"id": self._id(layer, units), "layer": np.full(len(units), layer), "unit": units}

    def _id(self, layer: int | _Numbers, unit: _Numbers) -> pa.Array:
        return self._ids.take(pa.array(self._firsts[layer] + unit))

    def _weighted(self, pairs: Sequence[Sequence[tuple[int, float]]]) -> tuple[pa.Array, pa.Array]:
        """For each behaviour a list of tokens and a list of their weights, from [token id, weight] pairs."""
        flat = np.fromiter(chain.from_iterable(chain.from_iterable(pairs)), dtype=np.float64).reshape(-1, 2)
        tokens = self._texts.take(pa.array(flat[:, 0].astype(np.int64)))
        counts = [len(part) for part in pairs]
        return _lists(counts, tokens), _lists(counts, _numbers(flat[:, 1]))

    def _neighbours(self, layer: int, behaviours: int) -> pa.Array:
        """The neighbours of each of a layer's behaviours, as many as records list of a main one."""
        links, first = self._stages.links, self._stages.links.first_of(layer)
        shown = np.s_[first : first + behaviours, : self._config.site.neighbours_shown]
        there = ~np.isnan(links.similarities[shown])  # (behaviours, neighbours)
        layers, units, numbers = links.address[links.neighbours[shown][there]].T  # (links,) each
        parts = [
            self._id(layers, units),
            pa.array(numbers + 1),
            _numbers(links.similarities[shown][there]),
            _numbers(links.weight_cosine[shown][there]),
        ]
        return _lists(there.sum(axis=1), pa.StructArray.from_arrays(parts, fields=list(NEIGHBOUR)))


def _lists(lengths: ArrayLike, values: pa.Array) -> pa.Array:
    """An array of lists of these lengths, from all values in a row."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values)


def _numbers(values: ArrayLike) -> pa.Array:
    """Numbers as published: counts in full, others to four significant digits, null for NaN."""
    array = np.asarray(values)
    return pa.array(array if array.dtype.kind == "i" else significant_all(array), from_pandas=True)

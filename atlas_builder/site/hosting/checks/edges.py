"""The table of edges between directions, compared with what records and `atlas.json` say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atlas_builder.describe.results import STRONGEST
from atlas_builder.site.graph import Graph, Place
from atlas_builder.site.summary import Summary

_Ends = dict[Place, list[list[Any]]]
"""By direction the other ends of its edges: layer, direction, strength."""


def edge_problems(
    layers: Mapping[int, Sequence[Summary]], graph: Graph, facts: Mapping[str, Any]
) -> Iterator[str]:  # fmt: skip
    """Where edges are not as many or as strong as said, or a record lists others than the strongest of its own."""
    incoming: _Ends = {}
    outgoing: _Ends = {}
    for pair, said in zip(graph.pairs, facts["pairs"], strict=True):
        where = f"tables/edges.parquet: edges from layer {pair.before} to layer {pair.after}"
        if len(pair.edges) != said["edges"]:
            yield f"{where} are {len(pair.edges):,}, in atlas.json {said['edges']:,}"
        if any(not edge.strength >= pair.floor for edge in pair.edges):
            yield f"{where} are below the floor of atlas.json"
        if len({(edge.before.place, edge.after.place) for edge in pair.edges}) != len(pair.edges):
            yield f"{where} are there twice"
        for edge in pair.edges:
            outgoing.setdefault(edge.before.place, []).append([*edge.after.place, edge.strength])
            incoming.setdefault(edge.after.place, []).append([*edge.before.place, edge.strength])
    for unit in (unit for units in layers.values() for unit in units):
        direction = unit.direction or {}
        edges = direction.get("edges") or {"in": None, "out": None}
        for name, ends in (("in", incoming), ("out", outgoing)):
            strongest = _strongest(ends.get((unit.layer, unit.unit), []))
            if edges[name] is None or _strongest(edges[name]) != strongest:
                yield f"tables/edges.parquet: the strongest edges {name} of {unit.name} are not those of its record"
    numbers = {node.module for node in graph.nodes.values() if node.module is not None}
    if numbers and numbers != set(range(1, max(numbers) + 1)):
        yield "records: modules are not numbered from 1 on"
    if len(graph.modules) != facts["modules"]:
        yield f"atlas.json: {facts['modules']:,} modules, by records {len(graph.modules):,}"


def _strongest(ends: Sequence[Sequence[Any]]) -> list[float]:
    """The strengths that a record lists; which of equally strong ones, rounding decides."""
    return sorted((end[2] for end in ends), reverse=True)[:STRONGEST]

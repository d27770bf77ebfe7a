"""The token graph of a behaviour as its record has it."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_builder.describe.token_graphs import TokenGraph
from atlas_builder.records.schema import Record
from atlas_builder.rounding import significant

NODES = 40
"""Most nodes of a graph in a record, unless its strongest branch alone has more."""
_ALTERNATIVES = 7  # most tokens of a node that are published, the examples' own first


def published_graph(graph: TokenGraph, texts: Sequence[str]) -> Record | None:
    """A graph with tokens by their `texts` and rounded numbers, its strongest branches first; None of an empty one."""
    if not graph:
        return None
    ends = sorted(
        (place for place, node in enumerate(graph) if node.value is not None), key=lambda at: _rank(graph, at)
    )
    places: dict[int, int] = {}
    left_out = 0
    for end in ends:
        new = [place for place in _path(graph, end) if place not in places]
        if places and len(places) + len(new) > NODES:
            left_out += 1
            continue
        for place in reversed(new):
            places[place] = len(places)
    return {
        "nodes": [
            {
                "tokens": [texts[token] for token in graph[place].tokens[:_ALTERNATIVES]],
                "next": places.get(graph[place].parent),
                "value": None if (value := graph[place].value) is None else significant(value),
            }
            for place in places
        ],
        "more": left_out,
    }


def _rank(graph: TokenGraph, end: int) -> tuple[float, int]:
    """Strong ends first, then as the graph has them."""
    return -(graph[end].value or 0.0), end


def _path(graph: TokenGraph, end: int) -> list[int]:
    """The nodes from an end to the key token."""
    path = [end]
    while graph[path[-1]].parent >= 0:
        path.append(graph[path[-1]].parent)
    return path

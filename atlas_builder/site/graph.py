"""How the directions of an atlas interact, as its records and its table of edges say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from atlas_builder.records.address import UnitAddress
from atlas_builder.records.columns import EdgeRow
from atlas_builder.site.summary import Summary

WHOLE = "interaction.html"
"""The page of all layers."""

Place = tuple[int, int]
"""Layer and direction."""


class GraphNode(NamedTuple):
    """A direction."""

    layer: int
    direction: int
    rank: int
    """By importance in its layer, from 1."""
    share: float
    """Of the importance of all directions of its layer."""
    module: int | None
    labels: tuple[str, ...]
    """Of its behaviours, the largest first."""
    tokens: Mapping[str, float]
    """The tokens of its behaviours, by weight."""

    @property
    def place(self) -> Place:
        """What names it."""
        return self.layer, self.direction

    @property
    def name(self) -> str:
        """`L2/N17`."""
        return UnitAddress(self.layer, self.direction).id

    @property
    def page(self) -> str:
        """Address from the site's root."""
        return UnitAddress(self.layer, self.direction).page


class GraphEdge(NamedTuple):
    """An edge between directions."""

    before: GraphNode
    after: GraphNode
    strength: float

    @property
    def module(self) -> int | None:
        """The module that both are of; None where there is none."""
        return self.before.module if self.before.module == self.after.module else None


class GraphPair(NamedTuple):
    """The edges from one layer to the next."""

    before: int
    after: int
    floor: float
    """The strongest edge that does not count."""
    edges: list[GraphEdge]
    """Those above the floor, the strongest first."""

    @property
    def anchor(self) -> str:
        """Of its section on the page of interactions."""
        return f"L{self.before}-L{self.after}"

    def level(self, edge: GraphEdge) -> float:
        """How strong an edge is, on a logarithmic scale from 0 at the floor to 1 at the strongest."""
        top = math.log(self.edges[0].strength / self.floor)
        return math.log(edge.strength / self.floor) / top if top > 0 else 1.0


class GraphModule(NamedTuple):
    """A module."""

    number: int
    members: list[GraphNode]
    """By layer, the most important first."""
    edges: list[GraphEdge]
    """Between members, the strongest first."""

    @property
    def page(self) -> str:
        """Address from the site's root."""
        return module_page(self.number)

    @property
    def layers(self) -> dict[int, list[GraphNode]]:
        """Members by layer."""
        layers: dict[int, list[GraphNode]] = {}
        for member in self.members:
            layers.setdefault(member.layer, []).append(member)
        return layers

    @property
    def names(self) -> list[str]:
        """The first behaviours of the members that are most important in their layers."""
        first = sorted(self.members, key=lambda node: (-node.share, node.layer, node.direction))
        return list(dict.fromkeys(node.labels[0] for node in first if node.labels))

    @property
    def shared(self) -> list[tuple[str, int, float]]:
        """Tokens of several members: token, number of members, and the sum of its weights in them, largest first."""
        weights: dict[str, list[float]] = {}
        for member in self.members:
            for token, weight in member.tokens.items():
                weights.setdefault(token, []).append(weight)
        several = [(token, len(found), math.fsum(found)) for token, found in weights.items() if len(found) > 1]
        return sorted(several, key=lambda one: (-one[2], -one[1], one[0]))


def module_page(number: int) -> str:
    """The address of a module's page, from the site's root."""
    return f"modules/M{number}.html"


def interaction_addresses(facts: Mapping[str, Any]) -> list[str]:
    """The pages of how directions interact, from the site's root, of an atlas with these facts; none of other units."""
    if facts["kind"] != "basis":
        return []
    return [WHOLE, *(module_page(number) for number in range(1, facts["interaction"]["modules"] + 1))]


@dataclass(frozen=True)
class Graph:
    """All directions, and the edges above the floors."""

    nodes: Mapping[Place, GraphNode]
    pairs: Sequence[GraphPair]

    @classmethod
    def of(
        cls, layers: Mapping[int, Sequence[Summary]], facts: Mapping[str, Any], rows: Iterable[EdgeRow]
    ) -> Graph:  # fmt: skip
        """The graph of an atlas: `layers` are its summaries, `facts` those of its interactions.

        `KeyError` where an edge is of a direction or a pair of layers that there is none of.
        """
        nodes = {(unit.layer, unit.unit): _node(unit) for units in layers.values() for unit in units}
        edges: dict[Place, list[GraphEdge]] = {(pair["before"], pair["after"]): [] for pair in facts["pairs"]}
        for row in rows:
            ends = nodes[row.layer_before, row.direction_before], nodes[row.layer_after, row.direction_after]
            edges[row.layer_before, row.layer_after].append(GraphEdge(*ends, row.strength))
        for found in edges.values():
            found.sort(key=lambda edge: (-edge.strength, edge.before.direction, edge.after.direction))
        pairs = [
            GraphPair(pair["before"], pair["after"], pair["floor"], edges[pair["before"], pair["after"]])
            for pair in facts["pairs"]
        ]
        return cls(nodes, pairs)

    @cached_property
    def layers(self) -> dict[int, list[GraphNode]]:
        """Directions by layer, the most important first."""
        layers: dict[int, list[GraphNode]] = {}
        for node in sorted(self.nodes.values(), key=lambda node: (node.layer, node.rank)):
            layers.setdefault(node.layer, []).append(node)
        return layers

    @cached_property
    def modules(self) -> list[GraphModule]:
        """The modules, in the order of their numbers."""
        members: dict[int, list[GraphNode]] = {}
        for nodes in self.layers.values():
            for node in nodes:
                if node.module is not None:
                    members.setdefault(node.module, []).append(node)
        inside: dict[int, list[tuple[float, GraphEdge]]] = {number: [] for number in members}
        for pair in self.pairs:
            for edge in pair.edges:
                if edge.module is not None:
                    inside[edge.module].append((pair.level(edge), edge))
        return [
            GraphModule(number, members[number], [edge for _, edge in sorted(inside[number], key=lambda one: -one[0])])
            for number in sorted(members)
        ]


def _node(unit: Summary) -> GraphNode:
    direction = unit.direction or {}
    return GraphNode(
        unit.layer, unit.unit, direction["rank"], direction["share"] or 0.0, direction["module"], tuple(unit.labels),
        unit.tokens,
    )  # fmt: skip

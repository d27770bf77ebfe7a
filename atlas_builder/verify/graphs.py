"""The token graphs of a unit's behaviours, made again from its examples, and what they say of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from atlas_builder.rerun.passes import Reader
from atlas_builder.verify.branches import BranchFinder, FoundBranch, NearTokens
from atlas_builder.verify.examples import Importance, keys_of_record
from atlas_builder.verify.shown import Key
from atlas_builder.verify.unit import UnitCase

_HELD_OUT = 10  # one context of so many, the last
_NODES, _ALTERNATIVES = 40, 7  # the most that a record has of a graph, and of a node
Route = tuple[int, ...]
"""The examples' own tokens from a key token backwards; −1 for any one token."""


class Alternatives(NamedTuple):
    """A way through a graph to where examples end."""

    tokens: list[set[int]]
    """From the key token backwards, the tokens of which one stands there; none for any one token."""
    value: float


@dataclass
class FoundNode:
    """A node of a graph."""

    tokens: list[int] = field(default_factory=list)
    """The examples' own token, then substitutes."""
    values: list[float] = field(default_factory=list)
    """The shares of the extreme of the examples that end here."""

    @property
    def value(self) -> float:
        """Their mean; NaN where none does."""
        return float(np.mean(self.values)) if self.values else np.nan


class FoundGraph:
    """The trie of some branches."""

    def __init__(self, branches: Iterable[FoundBranch], sign: int) -> None:
        self.sign = sign
        self.nodes: dict[Route, FoundNode] = {}
        self.unsure = False
        for branch in sorted(branches):
            route: Route = ()
            for tokens in branch.places:
                route = (*route, tokens[0] if tokens else -1)
                node = self.nodes.setdefault(route, FoundNode())
                node.tokens += [token for token in tokens if token not in node.tokens]
            self.nodes[route].values.append(branch.value)
            self.unsure |= branch.unsure

    @property
    def ends(self) -> list[Route]:
        """The ways to where examples end, the strongest first."""
        return sorted((route for route, node in self.nodes.items() if node.values), key=lambda e: -self.nodes[e].value)

    def alternatives(self) -> Iterator[Alternatives]:
        """What each end asks of a text."""
        for end in self.ends:
            steps = [self.nodes[end[: depth + 1]] for depth in range(len(end))]
            yield Alternatives([set(node.tokens) for node in steps], self.nodes[end].value)

    def published(self) -> tuple[list[Route], int]:
        """The nodes that a record has, in its order, and how many ends it leaves out."""
        shown: list[Route] = []
        left_out = 0
        for end in self.ends:
            new = [end[: depth + 1] for depth in range(len(end)) if end[: depth + 1] not in shown]
            if shown and len(shown) + len(new) > _NODES:
                left_out += 1
            else:
                shown += new
        return shown, left_out


def graphs_of(
    case: UnitCase, reader: Reader, near: NearTokens, importance: Mapping[Key, Importance]
) -> list[FoundGraph] | None:
    """The graph of each behaviour, then those of unclustered examples; None where another run may take others.

    `importance` is that of the examples that it was measured of.
    """
    published = zip(keys_of_record(case), case.record["examples"], strict=True)
    measured = [key for key, example in published if "importance" in example]
    if any(key not in importance for key in measured):
        return None
    finder = BranchFinder(case, reader, near)
    branches = {
        key: finder.branch(key, values)
        for key, values in importance.items()
        if key.context % _HELD_OUT != _HELD_OUT - 1 and case.activation(key) != 0
    }
    graphs = []
    for behaviour in case.behaviours or ():
        own = [branches.pop(key) for key in behaviour.members if key in branches]
        graphs.append(FoundGraph(own, behaviour.sign))
    for sign in (1, -1):
        graphs.append(FoundGraph([branch for key, branch in branches.items() if sign * case.activation(key) > 0], sign))
    return graphs


def check_graphs(case: UnitCase, graphs: Sequence[FoundGraph] | None) -> None:
    """Compare the graphs of main behaviours; `graphs` are what `graphs_of` found."""
    skipped = False
    for place, (claimed, found) in enumerate(zip(case.record["behaviours"], case.behaviours or (), strict=True)):
        what = f"{case.name}, behaviour {claimed['id']}"
        if ("graph" in claimed) != (case.config.describe.graphs and found.main):
            case.report.wrong(f"{what}: a graph is {'not ' * ('graph' not in claimed)}published, against the settings")
        elif "graph" in claimed:
            if graphs is None or _is_unsure(case, graphs[place]):
                skipped = True
            else:
                _check_graph(case, what, claimed["graph"], graphs[place])
    if skipped:
        case.report.skip("graphs")


def _is_unsure(case: UnitCase, graph: FoundGraph) -> bool:
    """Whether another run may have other branches, or another order of them."""
    values = [graph.nodes[end].value for end in graph.ends]
    return graph.unsure or any(one - other <= slack_of_shares(case, graph.sign) for one, other in pairwise(values))


def slack_of_shares(case: UnitCase, sign: int) -> float:
    """How far the share of the extreme that a node has may be off in another run."""
    extreme = float(case.counted.max() if sign > 0 else -case.counted.min())
    return 2 * case.exactness * case.largest / max(abs(extreme), 1e-30)


def _check_graph(case: UnitCase, what: str, claimed: dict[str, Any] | None, found: FoundGraph) -> None:
    case.report.count("graphs")
    shown, left_out = found.published()
    if claimed is None or not shown:
        if claimed is not None or shown:
            case.report.wrong(f"{what}: the graph has {len(claimed['nodes']) if claimed else 0} nodes, of {len(shown)}")
        return
    if (len(claimed["nodes"]), claimed["more"]) != (len(shown), left_out):
        case.report.wrong(
            f"{what}: the graph has {len(claimed['nodes'])} nodes and leaves out {claimed['more']} branches, but "
            f"{len(shown)} nodes and {left_out} branches left out were found"
        )
        return
    slack = slack_of_shares(case, found.sign)
    for place, (node, route) in enumerate(zip(claimed["nodes"], shown, strict=True)):
        tokens = [case.texts[token] for token in found.nodes[route].tokens[:_ALTERNATIVES]]
        behind = shown.index(route[:-1]) if route[:-1] else None
        if (node["tokens"], node["next"]) != (tokens, behind):
            case.report.wrong(
                f"{what}: node {place} of the graph is published as {node['tokens']} before {node['next']}, but "
                f"computed as {tokens} before {behind}"
            )
        value = found.nodes[route].value
        case.report.compare("graphs", f"{what}: the value of node {place} of the graph", node["value"], value, slack)


def longest_match(by_key: Mapping[int, Sequence[Alternatives]], tokens: Sequence[int], place: int) -> float:
    """The value of the longest way that a text matches backwards from a place, of equals the highest; NaN of none."""
    met = [
        (len(way.tokens), way.value)
        for way in by_key.get(tokens[place], ())
        if place + 1 >= len(way.tokens)
        and all(not some or tokens[place - back] in some for back, some in enumerate(way.tokens))
    ]
    return max(met, default=(0, np.nan))[1]


def ways_by_key(graphs: Iterable[FoundGraph]) -> dict[int, list[Alternatives]]:
    """The ways through graphs by the key tokens that they begin with."""
    found: dict[int, list[Alternatives]] = {}
    for graph in graphs:
        for way in graph.alternatives():
            for token in way.tokens[0]:
                found.setdefault(token, []).append(way)
    return found

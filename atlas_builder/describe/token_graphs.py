"""Token graphs: tries of the tokens that a unit needs, read backwards from its key token (Neuron to Graph).

Foote et al. 2023 (arXiv 2304.12918, 2305.19911). A node is a token with its substitutes, or a
wildcard that stands for exactly one token, so that distances are kept; an end holds the activation
as a share of the unit's extreme. At a token of new text, the match of the most nodes decides: the
unit is predicted to fire where the value of that end is at least half.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.describe.token_scores import FIRES, Numbers, TextOrder
from atlas_builder.files import read_json, write_json


class TokenBranch(NamedTuple):
    """An example that was pruned: what it needs, from its key token backwards."""

    tokens: tuple[tuple[int, ...], ...]
    """Of each place its token, then substitutes; nothing for a wildcard."""
    value: float
    """Its activation as a share of the unit's extreme of its sign."""


class TokenNode(NamedTuple):
    """A node of a graph."""

    tokens: tuple[int, ...]
    """Tokens of which one stands here, the examples' own first; none: any one token."""
    parent: int
    """The node after it in the text, by its place in the graph; −1 for a key token."""
    value: float | None
    """The mean share of the extreme of the examples that end here; None where none does."""


TokenGraph = tuple[TokenNode, ...]
"""The trie of a behaviour; a node stands behind its parent."""


def graph_of(branches: Iterable[TokenBranch]) -> TokenGraph:
    """The trie of some branches, in an order that does not depend on theirs.

    Branches share a node where their own token at a place and all after it are the same; their substitutes are united.
    """
    places: dict[tuple[int, ...], int] = {}
    tokens: list[dict[int, None]] = []
    parents: list[int] = []
    values: list[list[float]] = []
    for branch in sorted(branches):
        path: tuple[int, ...] = ()
        parent = -1
        for alternatives in branch.tokens:
            path = (*path, alternatives[0] if alternatives else -1)
            if path not in places:
                places[path] = len(parents)
                parents.append(parent)
                tokens.append({})
                values.append([])
            parent = places[path]
            tokens[parent] |= dict.fromkeys(alternatives)
        values[parent].append(branch.value)
    return tuple(
        TokenNode(tuple(own), parent, float(np.mean(ends)) if ends else None)
        for own, parent, ends in zip(tokens, parents, values, strict=True)
    )


class BehaviourGraph(NamedTuple):
    """The graph of a behaviour, or of a unit's examples that belong to none."""

    unit: int
    sign: int
    graph: TokenGraph
    """Empty where no example was measured, or all that were are held out."""


class SavedGraphs(NamedTuple):
    """The graphs of a layer."""

    behaviours: list[BehaviourGraph]
    """One for each of the layer's behaviours."""
    others: list[BehaviourGraph]
    """Of examples that belong to no behaviour, by unit."""

    def of_sign(self, sign: int) -> list[BehaviourGraph]:
        """All that are of one sign."""
        return [one for one in (*self.behaviours, *self.others) if one.sign == sign]


def graphs_file(folder: Path, layer: int) -> Path:
    """The file of a layer's graphs in the folder of the describe stage."""
    return folder / f"L{layer}.graphs.json"


def write_graphs(path: Path, graphs: SavedGraphs) -> None:
    """Save the graphs of a layer for `read_graphs`."""
    write_json(
        path,
        {
            name: [{"unit": unit, "sign": sign, "nodes": list(map(list, graph))} for unit, sign, graph in some]
            for name, some in graphs._asdict().items()
        },
    )


def read_graphs(path: Path) -> SavedGraphs | None:
    """What `write_graphs` saved; None where graphs were not asked for."""
    if not path.exists():
        return None
    saved = read_json(path)
    return SavedGraphs(*(list(map(_read, saved[name])) for name in SavedGraphs._fields))


def _read(saved: dict[str, Any]) -> BehaviourGraph:
    nodes = tuple(TokenNode(tuple(tokens), parent, value) for tokens, parent, value in saved["nodes"])
    return BehaviourGraph(saved["unit"], saved["sign"], nodes)


class _Entries(NamedTuple):
    """Nodes by what leads to them, in rising order: (entries,) each."""

    key: Numbers
    node: Numbers

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> _Entries:
        key, node = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
        return cls(key, node)

    def found(self, wanted: Numbers) -> tuple[Numbers, Numbers]:
        """Which of some wanted keys, and each of its nodes: (found,) both."""
        first, last = (np.searchsorted(self.key, wanted, side) for side in ("left", "right"))
        which, at = expanded(first, last - first)
        return which, self.node[at]


def expanded(first: Numbers, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Ranges that begin at `first`, of so many places each: of every place its range and itself."""
    which = np.repeat(np.arange(len(first)), counts)
    return which, np.arange(len(which)) + np.repeat(first - (np.cumsum(counts) - counts), counts)


@dataclass(frozen=True)
class UnitGraphs:
    """The graphs of a layer's units, to be looked for in text: n nodes in a row."""

    unit: Numbers
    """(n,)"""
    value: NDArray[np.float64]
    """NaN where no example ends: (n,)."""
    roots: _Entries
    """Nodes of key tokens by token."""
    edges: _Entries
    """Other nodes by `_edge` of their parent and a token."""
    depth: int
    """Most nodes of a branch."""
    tokens: int
    """Above the highest token."""

    @classmethod
    def of(cls, graphs: Iterable[BehaviourGraph]) -> UnitGraphs:
        """From graphs of one sign."""
        units: list[int] = []
        values: list[float] = []
        depths: list[int] = []
        roots: list[tuple[int, int]] = []
        edges: list[tuple[int, int, int]] = []
        for unit, _, graph in graphs:
            first = len(units)
            for place, node in enumerate(graph, first):
                units.append(unit)
                values.append(np.nan if node.value is None else node.value)
                depths.append(1 if node.parent < 0 else depths[first + node.parent] + 1)
                if node.parent < 0:
                    roots += [(token, place) for token in node.tokens]
                else:
                    edges += [(first + node.parent, token, place) for token in node.tokens or (-1,)]
        highest = max([token for token, _ in roots] + [token for _, token, _ in edges], default=-1) + 1
        pairs = [(parent * (highest + 1) + token + 1, place) for parent, token, place in edges]
        return cls(
            np.array(units, np.int64),
            np.array(values, np.float64),
            _Entries.of(roots),
            _Entries.of(pairs),
            max(depths, default=0),
            highest,
        )

    @cached_property
    def fires(self) -> NDArray[np.bool_]:
        """Whether a unit is predicted to fire where a node decides: (n,)."""
        return np.asarray(self.value >= FIRES)

    def predicted(self, text: TextOrder) -> tuple[Numbers, Numbers]:
        """Where in a text units are predicted to fire: place in the flat text and unit, in rising order, none twice."""
        place, node = self.deciding(text)
        said = self.fires[node]
        return place[said], self.unit[node[said]]

    def deciding(self, text: TextOrder) -> tuple[Numbers, Numbers]:
        """By place in the flat text and unit, the node at which the longest match ends; of equals the strongest."""
        flat, context = text.flat, text.tokens.shape[1]
        first, last = (np.searchsorted(flat, self.roots.key, side, sorter=text.order) for side in ("left", "right"))
        which, at = expanded(first, last - first)
        place, node = text.order[at], self.roots.node[which]
        if text.counted is not None:
            may = text.counted.ravel()[place]
            place, node = place[may], node[may]
        ends = [(place, node)]
        for depth in range(1, self.depth):
            has = place % context >= depth
            place, node = place[has], node[has]
            before = flat[place - depth] + 1
            before[before > self.tokens] = -1  # in no graph, so at most a wildcard; no edge has so low a number
            stem = node * (self.tokens + 1)
            which, node = self.edges.found(np.concatenate([np.where(before < 0, -1, stem + before), stem]))
            place = np.concatenate([place, place])[which]
            ends.append((place, node))
        depths = np.repeat(np.arange(len(ends)), [len(part) for part, _ in ends])
        place, node = (np.concatenate(part) for part in zip(*ends, strict=True))
        is_end = ~np.isnan(self.value[node])
        place, node, depths = place[is_end], node[is_end], depths[is_end]
        order = np.lexsort((node, -self.value[node], -depths, self.unit[node], place))
        place, node = place[order], node[order]
        pairs = np.stack([place, self.unit[node]])
        new = np.append(True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0))[: len(place)]
        return place[new], node[new]

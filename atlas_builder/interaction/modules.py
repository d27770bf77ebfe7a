"""Modules: groups of directions, over all layers, that interact mostly with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import torch
from torch import Tensor

STARTS = 20
"""Runs of Louvain's method, of which the best counts."""

Node = tuple[int, int]
"""Place, counted from 0, and direction."""


class Modules(NamedTuple):
    """A division of the directions that have an edge."""

    members: list[list[Node]]
    """By module, the largest first: places and directions, in order. Directions without an edge are left out."""
    quality: float
    """Modularity of the division (Newman and Girvan 2004): 0 where edges lie as by chance, at most 1."""


def modules(strengths: Sequence[Tensor], floors: Sequence[float], seed: int = 0) -> Modules:
    """Divide directions into modules by Louvain's method (Blondel et al. 2008; networkx's), best of 20 seeds.

    An edge of strength E counts max(0, log10(E / ε)), ε its floor: our choice. Below the floor there is none.

    Args:
        strengths: By pair of neighbouring places, (k after, k before), as `edges` gives them.
        floors: ε by pair, like the smallest edge needed.
        seed: The first of the seeds.
    """
    graph = nx.Graph()
    for place, (matrix, floor) in enumerate(zip(strengths, floors, strict=True)):
        weights = torch.log10(matrix.to(torch.float64).clamp(min=floor) / floor)
        for after, before in weights.nonzero().tolist():
            graph.add_edge((place, before), (place + 1, after), weight=float(weights[after, before]))
    if not graph:
        return Modules([], 0.0)
    divisions = [nx.community.louvain_communities(graph, seed=seed + start) for start in range(STARTS)]
    qualities = [nx.community.modularity(graph, division) for division in divisions]
    best = max(range(STARTS), key=lambda start: (qualities[start], -start))
    members = sorted((sorted(group) for group in divisions[best]), key=lambda group: (-len(group), group))
    return Modules(members, float(qualities[best]))

"""The tree of average linkage, equal to SciPy's to the last bit, ties included.

A unit needs a dozen trees of at most a hundred examples, and at that size a call of SciPy costs several
times what the tree does.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Joins = NDArray[np.int64]
Heights = NDArray[np.float64]


def average_tree(distances: NDArray[np.floating]) -> tuple[Joins, Heights]:
    """The tree of average linkage, lowest joins first: nodes joined, (examples − 1, 2), and their mean distances.

    `distances` is (examples, examples); what is below its diagonal is not read. Nodes are numbered as in
    `scipy.cluster.hierarchy.linkage`: the examples, then the joins. Raises `ValueError` where a distance is
    not finite.
    """
    joins, heights = _average_tree(np.ascontiguousarray(distances, np.float64))
    return joins, heights


@njit(nogil=True, cache=True)
def _average_tree(distances: NDArray[np.float64]) -> tuple[Joins, Heights]:
    pairs, heights = _neighbour_chain(distances)
    order = np.argsort(heights, kind="mergesort")  # equals stay in order
    return _nodes(pairs[order]), heights[order]


@njit(nogil=True, cache=True)
def _neighbour_chain(distances: NDArray[np.float64]) -> tuple[Joins, Heights]:
    """Pairs of examples whose clusters are joined, and heights, by chains of nearest neighbours (Müllner 2011).

    The cluster of a joined pair goes by its second example.
    """
    count = len(distances)
    apart, size = _symmetric(distances), np.ones(count)
    pairs, heights = np.empty((count - 1, 2), np.int64), np.empty(count - 1)
    chain, length = np.empty(count, np.int64), 0
    clusters, left = np.arange(count), count  # those left, ascending, so that ties go to the first
    for step in range(count - 1):
        if length == 0:
            chain[0], length = clusters[0], 1
        while True:
            end = chain[length - 1]
            before = chain[length - 2] if length > 1 else -1  # of equals the nearest, so that the chain ends
            nearest, height = before, apart[end, before] if length > 1 else np.inf
            for other in clusters[:left]:
                if apart[end, other] < height:
                    nearest, height = other, apart[end, other]
            if nearest == before:
                break
            chain[length] = nearest
            length += 1
        length -= 2
        gone, kept = min(end, before), max(end, before)
        pairs[step, 0], pairs[step, 1], heights[step] = gone, kept, height
        left -= 1
        for place in range(np.searchsorted(clusters[: left + 1], gone), left):
            clusters[place] = clusters[place + 1]
        joined = size[gone] + size[kept]
        for other in clusters[:left]:
            if other != kept:
                total = size[gone] * apart[gone, other] + size[kept] * apart[kept, other]
                apart[kept, other] = apart[other, kept] = total / joined
        size[kept] = joined
    return pairs, heights


@njit(nogil=True, cache=True)
def _symmetric(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances above the diagonal, on both its sides: no example is its own neighbour."""
    count = len(distances)
    apart = np.full((count, count), np.inf)
    for one in range(count):
        for other in range(one + 1, count):
            if not np.isfinite(distances[one, other]):
                raise ValueError("distances must be finite")
            apart[one, other] = apart[other, one] = distances[one, other]
    return apart


@njit(nogil=True, cache=True)
def _nodes(pairs: Joins) -> Joins:
    """The nodes that hold each of a pair of examples when their clusters are joined, the lower first."""
    count = len(pairs) + 1
    above, joins = np.arange(2 * count - 1), np.empty((count - 1, 2), np.int64)
    for step in range(count - 1):
        for side in range(2):
            node = pairs[step, side]
            while above[node] != node:
                above[node] = above[above[node]]
                node = above[node]
            joins[step, side] = node
            above[node] = count + step
        if joins[step, 0] > joins[step, 1]:
            joins[step, 0], joins[step, 1] = joins[step, 1], joins[step, 0]
    return joins


@njit(nogil=True, cache=True)
def groups_below(divided: NDArray[np.bool_], joins: Joins) -> NDArray[np.int64]:
    """The number of the largest undivided node above each example: (examples,).

    `divided` is of each join, (examples − 1,), `joins` as `average_tree` gives them.
    """
    count = len(divided) + 1
    group, found = np.full(2 * count - 1, -1), 0
    for node in range(2 * count - 2, -1, -1):
        if group[node] < 0:
            if node >= count and divided[node - count]:
                continue
            group[node] = found
            found += 1
        if node >= count:
            group[joins[node - count, 0]] = group[joins[node - count, 1]] = group[node]
    return group[:count]

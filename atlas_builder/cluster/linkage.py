"""Noise-free linkage: average linkage whose branches are compared by their means, the noise taken out.

The paper cuts the tree of average linkage at one distance (Foote 2024), which divides behaviours whose
own spread passes it. Here two groups of examples are one behaviour where the cosine of their *means*,
corrected for the spread around them, is high: ρ = b / √(w w'), b the mean cosine across, w and w' the
mean cosines within (Spearman 1904, correction for attenuation). Groups that chance makes are dropped.
The method is this project's own.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from atlas_builder.cluster.tree import Heights, Joins, average_tree, groups_below

_ONE = 0.55
"""The ρ from which two groups are one behaviour."""
_CHANCE = 0.05
"""The probability that unrelated examples have a group as large and as similar."""
_LOOSEST = 0.2
"""Least mean cosine within a group: looser ones gather what belongs nowhere, and dissolve in other text."""
_BELONGS = 0.75
"""Share of the mean cosine within a group that an example's own mean cosine must reach to join it."""
_ROUNDS = 3
_LEAST = 1e-6
"""Mean cosines within a group are positive, so that their root exists."""

Cosines = NDArray[np.float64]
Groups = NDArray[np.int64]


def noise_free_linkage(distances: NDArray[np.float32], dimensions: float, min_size: int) -> Groups:
    """Groups of examples, numbered by descending size, −1 for none: (examples,).

    `distances` is (examples, examples), 1 less the cosine that examples have beyond unrelated ones;
    `dimensions` are the effective dimensions of unrelated examples (`background.Similarities`).
    """
    joins, heights = average_tree(distances)
    labels = groups_below(_divided(joins, heights, _ONE), joins)
    return tidied(distances, dimensions, labels, min_size)


def tidied(
    distances: NDArray[np.float32], dimensions: float, groups: Groups, min_size: int, rounds: int = _ROUNDS
) -> Groups:
    """Groups without those of chance, the alike joined, and each example in the group that it belongs to: (examples,).

    In each of some rounds: groups of fewer than `min_size` are dropped, and those of m examples whose
    mean cosine is below 0.2 or √(1 − exp(−(4 / m) ln(C(n, 2) / 0.05) / (d − 1))), n the examples in no
    larger group and d the effective dimensions; the two most similar groups are joined where their ρ is
    at least 0.55, which begins a new round; and each example goes to the group of the largest
    (mean cosine to its members) / √w, if that mean is at least three quarters of w.
    """
    tidy: Groups = _tidied(distances, dimensions, groups.astype(np.int64), min_size, rounds)
    return tidy


@njit(nogil=True, cache=True)
def _divided(joins: Joins, heights: Heights, one: float) -> NDArray[np.bool_]:
    """Where a tree's best partition parts it, from its leaves up: (joins,).

    A node is whole where its parts are one behaviour. At each join the groups of both branches are compared, all
    pairs at once: ρ = Σ (sum of cosines across) / Σ n n' √(w w'). Single examples take the pooled w of the groups.
    """
    count = len(joins) + 1
    nodes = 2 * count - 1
    size, within, inside, pairs = np.ones(nodes), np.zeros(nodes), np.zeros(nodes), np.zeros(nodes)
    lengths, squares, singles = np.zeros(nodes), np.zeros(nodes), np.zeros(nodes)  # of n √w
    singles[:count] = 1
    divided = np.zeros(count - 1, np.bool_)
    for step in range(count - 1):
        node, a, b = count + step, joins[step, 0], joins[step, 1]
        across = size[a] * size[b] * (1 - heights[step])
        size[node], within[node] = size[a] + size[b], within[a] + within[b] + across
        inside[node], pairs[node] = inside[a] + inside[b], pairs[a] + pairs[b]
        if pairs[node] > 0:
            root = np.sqrt(max(inside[node] / pairs[node], _LEAST))
            single = singles[a] + singles[b]
            total = lengths[a] + lengths[b] + single * root
            square = squares[a] + squares[b] + single * root**2
            if within[node] - inside[node] < one * (total**2 - square) / 2:
                divided[step] = True
                singles[node], lengths[node], squares[node] = single, lengths[a] + lengths[b], squares[a] + squares[b]
                continue
        inside[node], pairs[node] = within[node], size[node] * (size[node] - 1) / 2
        lengths[node] = size[node] * np.sqrt(max(within[node] / pairs[node], _LEAST))
        squares[node] = lengths[node] ** 2
    return divided


@njit(nogil=True, cache=True)
def _tidied(distances: NDArray[np.float32], dimensions: float, groups: Groups, min_size: int, rounds: int) -> Groups:
    cosines = 1 - distances.astype(np.float64)
    np.fill_diagonal(cosines, 0)  # so that sums leave out an example's cosine to itself
    groups = _numbered(groups, min_size)
    for turn in range(rounds + 1):
        groups = _numbered(_without_chance(cosines, dimensions, groups), min_size)
        if groups.max() < 0:
            break
        if _join_most_similar(cosines, groups):
            groups = _numbered(groups, min_size)
        elif turn < rounds:
            if not _reassign(cosines, groups):
                break
            groups = _numbered(groups, min_size)
    return groups


@njit(nogil=True, cache=True)
def _numbered(groups: Groups, min_size: int) -> Groups:
    """By descending size, then by their first member; groups that are too small are dropped."""
    found = groups.max() + 1
    size, first = np.zeros(found, np.int64), np.full(found, len(groups))
    for example in range(len(groups) - 1, -1, -1):
        if groups[example] >= 0:
            size[groups[example]] += 1
            first[groups[example]] = example
    number, count = np.full(found, -1), 0
    for group in np.argsort(first - size * (len(groups) + 1)):
        if size[group] >= min_size:
            number[group] = count
            count += 1
    numbered = np.full(len(groups), -1)
    for example in range(len(groups)):
        if groups[example] >= 0:
            numbered[example] = number[groups[example]]
    return numbered


@njit(nogil=True, cache=True)
def _sums(cosines: Cosines, groups: Groups) -> tuple[Cosines, Cosines, Cosines, Cosines]:
    """Of each group: its size, sums of cosines to each example, (groups, examples), to each group, and w."""
    count, found = len(groups), groups.max() + 1
    size, to_example, to_group = np.zeros(found), np.zeros((found, count)), np.zeros((found, found))
    for example in range(count):
        group = groups[example]
        if group >= 0:
            size[group] += 1
            for other in range(count):
                to_example[group, other] += cosines[example, other]
    for example in range(count):
        if groups[example] >= 0:
            for group in range(found):
                to_group[groups[example], group] += to_example[group, example]
    within = np.zeros(found)
    for group in range(found):
        within[group] = max(to_group[group, group] / max(size[group] * (size[group] - 1), 1.0), _LEAST)
    return size, to_example, to_group, within


@njit(nogil=True, cache=True)
def _without_chance(cosines: Cosines, dimensions: float, groups: Groups) -> Groups:
    size, _, _, within = _sums(cosines, groups)
    kept, left = groups.copy(), float(len(groups))
    for group in range(len(size)):
        bound = np.log(max(left * (left - 1) / 2, 1.0) / _CHANCE) / (dimensions - 1)
        if within[group] < max(_LOOSEST, np.sqrt(1 - np.exp(-4 / size[group] * bound))):
            kept[groups == group] = -1
        left -= size[group]
    return kept


@njit(nogil=True, cache=True)
def _join_most_similar(cosines: Cosines, groups: Groups) -> bool:
    """Join the two groups of the largest ρ, in place, where they are one behaviour."""
    size, _, to_group, within = _sums(cosines, groups)
    best, one, two = _ONE, -1, -1
    for a in range(len(size)):
        for b in range(a + 1, len(size)):
            similarity = to_group[a, b] / (size[a] * size[b]) / np.sqrt(within[a] * within[b])
            if similarity > best or (similarity == best and one < 0):
                best, one, two = similarity, a, b
    if one >= 0:
        groups[groups == two] = one
    return one >= 0


@njit(nogil=True, cache=True)
def _reassign(cosines: Cosines, groups: Groups) -> bool:
    """Give each example to the group that it is most similar to, in place; false if none moves."""
    size, to_example, _, within = _sums(cosines, groups)
    before, moved = groups.copy(), False
    for example in range(len(groups)):
        best, nearest, mean = -np.inf, -1, 0.0
        for group in range(len(size)):
            others = max(size[group] - (before[example] == group), 1.0)
            similarity = to_example[group, example] / others
            if similarity / np.sqrt(within[group]) > best:
                best, nearest, mean = similarity / np.sqrt(within[group]), group, similarity
        if mean >= _BELONGS * within[nearest] and before[example] != nearest:
            groups[example] = nearest
            moved = True
    return moved

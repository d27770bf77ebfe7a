"""Noise-free linkage written out again, with lists of members instead of running totals.

A cluster is the list of its examples, ascending; clusters are listed by descending size, and of one
size by their first example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_ONE = 0.55  # the ρ from which two groups are one behaviour
_CHANCE = 0.05  # the probability of a group as large and alike among unrelated examples
_LOOSEST = 0.2  # clusters of a smaller mean cosine are dropped
_BELONGS = 0.75  # the share of a cluster's own mean cosine that an example must reach to belong to it
_ROUNDS = 3
_LEAST = 1e-6  # mean cosines within a cluster are at least this

Matrix = NDArray[np.float64]
Cluster = list[int]


def in_order(clusters: Sequence[Sequence[int]], min_size: int) -> list[Cluster]:
    """Clusters of at least `min_size` examples, the largest first, of one size that of the first example."""
    listed = [sorted(cluster) for cluster in clusters if len(cluster) >= max(min_size, 1)]
    return sorted(listed, key=lambda cluster: (-len(cluster), cluster[0]))


def average_joins(distances: Matrix) -> Iterator[tuple[Cluster, Cluster, float]]:
    """The pairs of groups that average linkage joins, from single examples on, and their mean distance."""
    groups = [[example] for example in range(len(distances))]
    sums = distances.copy()  # of the distances between two groups
    sizes = np.ones(len(groups))
    alive = np.ones(len(groups), bool)
    for _ in range(len(groups) - 1):
        means = np.where(
            alive[:, None] & alive & ~np.eye(len(groups), dtype=bool), sums / np.outer(sizes, sizes), np.inf
        )
        one, two = sorted(divmod(int(means.argmin()), len(groups)))
        yield groups[one], groups[two], float(means[one, two])
        groups[one] = groups[one] + groups[two]
        sums[one] += sums[two]
        sums[:, one] += sums[:, two]
        sizes[one] += sizes[two]
        alive[two] = False


def linked(distances: Matrix, dimensions: float, min_size: int) -> list[Cluster]:
    """The clusters of noise-free linkage.

    `distances` is (examples, examples), 1 less the cosines beyond unrelated inputs; `dimensions` those of
    unrelated inputs. Each group of the tree of average linkage has its best clusters: those of the two that it
    joins, or itself if these are one behaviour.
    """
    cosines = 1 - distances
    best: dict[tuple[int, ...], list[Cluster]] = {(example,): [[example]] for example in range(len(distances))}
    group: tuple[int, ...] = (0,)
    for one, two, _ in average_joins(np.maximum(distances, 0)):
        parts = best.pop(tuple(one)) + best.pop(tuple(two))
        group = (*one, *two)
        best[group] = parts if likeness(cosines, parts) < _ONE else [list(group)]
    return tidy(cosines, dimensions, best[group], min_size, _ROUNDS)


def likeness(cosines: Matrix, parts: Sequence[Cluster]) -> float:
    """ρ of clusters, all pairs of two at once: Σ (cosines across) / Σ √(w w') over pairs of examples.

    w is the mean cosine within the cluster of an example, or within all where it is alone; infinite where all are.
    """
    pairs = [len(part) * (len(part) - 1) for part in parts]
    if not sum(pairs):
        return np.inf
    pooled = sum(within(cosines, part) * count for part, count in zip(parts, pairs, strict=True)) / sum(pairs)
    own = [within(cosines, part) if count else pooled for part, count in zip(parts, pairs, strict=True)]
    examples = [example for part in parts for example in part]
    number = np.array([place for place, part in enumerate(parts) for _ in part])
    root = np.sqrt(np.maximum([own[place] for place in number], _LEAST))
    apart = number[:, None] != number
    return float(cosines[np.ix_(examples, examples)][apart].sum() / np.outer(root, root)[apart].sum())


def within(cosines: Matrix, cluster: Cluster) -> float:
    """Mean cosine over pairs of one cluster; 0 without a pair."""
    block = cosines[np.ix_(cluster, cluster)]
    return float((block.sum() - np.trace(block)) / max(len(cluster) * (len(cluster) - 1), 1))


def tidy(cosines: Matrix, dimensions: float, clusters: list[Cluster], min_size: int, rounds: int) -> list[Cluster]:
    """Clusters without those of chance, the alike joined, each example where it belongs, in some rounds."""
    clusters = in_order(clusters, min_size)
    for turn in range(rounds + 1):
        clusters = _beyond_chance(clusters, cosines, dimensions)
        pairs = [(a, b) for a in range(len(clusters)) for b in range(a + 1, len(clusters))]
        alike = [likeness(cosines, [clusters[a], clusters[b]]) for a, b in pairs]
        if pairs and max(alike) >= _ONE:
            a, b = pairs[int(np.argmax(alike))]
            others = [cluster for number, cluster in enumerate(clusters) if number not in (a, b)]
            clusters = in_order([*others, clusters[a] + clusters[b]], min_size)
        elif clusters and turn < rounds:
            moved = _where_they_belong(clusters, cosines)
            if moved == clusters:
                break
            clusters = in_order(moved, min_size)
    return clusters


def _beyond_chance(clusters: list[Cluster], cosines: Matrix, dimensions: float) -> list[Cluster]:
    """Clusters that unrelated examples would hardly make, and that are not too loose.

    In d dimensions, m of n unrelated examples have a mean cosine of at least c with a probability of at most
    C(n, 2) (1 − c²) ^ (m (d − 1) / 4); n are the examples in no larger cluster.
    """
    kept, left = [], len(cosines)
    for cluster in clusters:
        pairs = max(left * (left - 1) / 2, 1.0)
        remains = (_CHANCE / pairs) ** (4 / (len(cluster) * (dimensions - 1)))
        if max(within(cosines, cluster), _LEAST) >= max(_LOOSEST, np.sqrt(1 - remains)):
            kept.append(cluster)
        left -= len(cluster)
    return kept


def _where_they_belong(clusters: list[Cluster], cosines: Matrix) -> list[Cluster]:
    """The same clusters after each example went to the one that it is most like, if it belongs there at all."""
    own = [max(within(cosines, cluster), _LEAST) for cluster in clusters]
    moved: list[Cluster] = [[] for _ in clusters]
    for example in range(len(cosines)):
        means = []
        for cluster in clusters:
            others = [member for member in cluster if member != example]
            means.append(float(cosines[example, others].sum()) / max(len(others), 1))
        nearest = int(np.argmax([mean / np.sqrt(w) for mean, w in zip(means, own, strict=True)]))
        now = next((number for number, cluster in enumerate(clusters) if example in cluster), None)
        if means[nearest] >= _BELONGS * own[nearest]:
            moved[nearest].append(example)
        elif now is not None:
            moved[now].append(example)
    return moved

"""A unit's examples clustered again, by each of the four methods, and random halves of them."""

from __future__ import annotations

import warnings

import numpy as np

from atlas_builder.config import ClusterSettings
from atlas_builder.verify.linkage import Cluster, Matrix, average_joins, in_order, linked, tidy

_ROUNDS_OF_HDBSCAN = 20
_FEWEST_WITH_A_DENSITY = 4
_FAR = 2.0  # the distance of examples that cannot be near


def clusters_of(distances: Matrix, dimensions: float, settings: ClusterSettings) -> list[Cluster]:
    """The clusters of examples, of `min_size` at least, the largest first.

    `distances` is (examples, examples); `dimensions` are those of unrelated inputs, infinite where the method
    does without.
    """
    count = len(distances)
    if count < 2:
        return [[example] for example in range(count)]
    if settings.method == "linkage":
        return linked(distances, dimensions, settings.min_size)
    if settings.method == "components":
        return in_order(_connected(distances <= 1 - settings.similarity), settings.min_size)
    if settings.method == "agglomerative" or count < _FEWEST_WITH_A_DENSITY:
        return in_order(_cut(distances, settings.cut), settings.min_size)
    clusters = _dense(distances, settings)
    if np.isfinite(dimensions):
        clusters = tidy(1 - distances, dimensions, clusters, settings.min_size, _ROUNDS_OF_HDBSCAN)
    return in_order(clusters, settings.min_size)


def _cut(distances: Matrix, cut: float) -> list[Cluster]:
    """The groups of average linkage at a mean distance: joins come in the order of rising distance."""
    groups = [[example] for example in range(len(distances))]
    for one, two, distance in average_joins(distances):
        if distance > cut:
            break
        groups = [group for group in groups if group not in (one, two)] + [one + two]
    return groups


def _connected(near: np.ndarray) -> list[Cluster]:
    """Examples with a path of near ones between them; `near` is (examples, examples)."""
    found: list[Cluster] = []
    unvisited = set(range(len(near)))
    while unvisited:
        component = [min(unvisited)]
        unvisited.remove(component[0])
        for example in component:  # it grows meanwhile
            reached = sorted(other for other in unvisited if near[example, other])
            component += reached
            unvisited.difference_update(reached)
        found.append(component)
    return found


def _dense(distances: Matrix, settings: ClusterSettings) -> list[Cluster]:
    """HDBSCAN of distances up to `cut`, and what it leaves out with the nearest cluster, if that is within `cut`.

    The algorithm itself is that of the package hdbscan, as in the cluster stage: the one in scikit-learn
    fails with an `epsilon`.
    """
    from hdbscan import HDBSCAN  # a second, with scikit-learn and pandas, for one method of four

    severed = distances.copy()
    severed[distances > settings.cut] = _FAR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its use of older scikit-learn names
        labels = HDBSCAN(
            metric="precomputed",
            min_cluster_size=settings.min_size,
            min_samples=settings.min_samples,
            cluster_selection_epsilon=settings.epsilon,
            allow_single_cluster=True,
        ).fit_predict(severed)
    clusters = [np.flatnonzero(labels == number).tolist() for number in range(int(labels.max()) + 1)]
    grown = [list(cluster) for cluster in clusters]
    for example in np.flatnonzero(labels < 0).tolist() if clusters else ():
        means = [float(distances[example, cluster].mean()) for cluster in clusters]
        if min(means) <= settings.cut:
            grown[int(np.argmin(means))].append(example)
    return grown


def drawn_halves(examples: int, samples: int, seed: int = 0) -> list[list[int]]:
    """Half of the examples, drawn without replacement, `samples` times: ascending.

    The first half of each permutation by NumPy's generator seeded with `seed` and the number of examples.
    """
    chance = np.random.default_rng([seed, examples])
    return [sorted(chance.permutation(examples)[: round(examples / 2)].tolist()) for _ in range(samples)]

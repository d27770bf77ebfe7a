"""A unit's behaviours: clusters of its examples, and measures of its polysemanticity.

Everything is computed from a matrix of distances and a vector of labels. A label is
the number of a cluster, from 0; −1 is unclustered.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from atlas_builder.cluster.background import LayerBackground, Similarities, UnitBackground
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.linkage import noise_free_linkage, tidied
from atlas_builder.cluster.tree import average_tree, groups_below
from atlas_builder.config import ClusterSettings

_PAPER_CUT = 0.5
_ROUNDS_OF_HDBSCAN = 20
MAIN_SHARE = 0.05
"""Share of a unit's examples that a main behaviour holds."""

Distances = NDArray[np.float32]
Labels = NDArray[np.int32]


def cluster_examples(
    inputs: NDArray[np.float32],
    read_weights: NDArray[np.float32],
    *,
    background: NDArray[np.float32] | None = None,
    background_tokens: NDArray[np.integer] | None = None,
    settings: ClusterSettings | None = None,
) -> Labels:
    """Cluster a unit's examples into behaviours: numbers by descending size, −1 for unclustered, (examples,).

    Plain arrays: `inputs` (examples, width) at the examples' key tokens, `read_weights` (parts, width),
    one part for a plain unit and two for a gated one; `background` (tokens, width), inputs of the same
    layer at random tokens, and `background_tokens`, their ids, (tokens,), so that pairs of one token
    are not taken for unrelated; without them, all pairs are. Without a background, similarities are
    cosines of neuron embeddings as they are: the layer's mean stays in, no floor is taken off, and
    unrelated inputs are taken to have independent coordinates of equal spread. An input that is not
    finite is similar to no other. Raises `ValueError` where shapes do not fit.
    """
    settings = settings or ClusterSettings()
    inputs, read_weights = np.asarray(inputs, np.float32), np.asarray(read_weights, np.float32)
    rows = np.asarray(np.zeros((0, inputs.shape[-1])) if background is None else background, np.float32)
    tokens = np.arange(len(rows)) if background_tokens is None else np.asarray(background_tokens)
    if not inputs.ndim == read_weights.ndim == rows.ndim == 2:
        raise ValueError("inputs, read_weights and background must have two dimensions: rows and the model's width.")
    if not inputs.shape[1] == read_weights.shape[1] == rows.shape[1]:
        raise ValueError(
            f"inputs are {inputs.shape[1]} wide, read_weights {read_weights.shape[1]} and background {rows.shape[1]}."
        )
    if tokens.shape != rows.shape[:1]:
        raise ValueError(f"background has {len(rows)} rows, but background_tokens {tokens.size} ids.")
    similarities = similarities_of(inputs, LayerBackground(rows, tokens).of_unit(read_weights), settings)
    return cluster(similarities.distances, settings, similarities.dimensions)


def similarities_of(inputs: NDArray[np.float32], background: UnitBackground, settings: ClusterSettings) -> Similarities:
    """How alike the examples of a unit are, as the method of clustering wants it.

    `inputs` is (examples, width). `linkage` and `hdbscan` take similarities beyond those of unrelated
    inputs, where a background is known; the others, as in the paper and the viewer of its author,
    those of neuron embeddings as they are.
    """
    if settings.method in ("linkage", "hdbscan"):
        return background.similarities(inputs)
    return Similarities(cosine_distances(neuron_embeddings(inputs, background.read_weights)), np.inf)


def cluster(distances: Distances, settings: ClusterSettings, dimensions: float = np.inf) -> Labels:
    """Cluster examples into behaviours, numbered by descending size: (examples,).

    `distances` is (examples, examples), `dimensions` the effective dimensions of unrelated examples
    (see `Similarities`), from which `linkage` and `hdbscan` know what groups chance makes. Among
    clusters of one size, the one whose first member comes first has the lower number. Clusters of
    fewer than `min_size` examples are unclustered; a single example is a behaviour. Three examples
    or fewer have no density to estimate: `hdbscan` then does the same as `agglomerative`.
    """
    examples = len(distances)
    if examples < 2:
        return np.zeros(examples, dtype=np.int32)
    if settings.method == "linkage":
        return noise_free_linkage(distances, dimensions, settings.min_size).astype(np.int32)  # numbered by size
    if settings.method == "components":
        _, labels = connected_components(distances <= 1 - settings.similarity, directed=False)
    elif settings.method == "agglomerative" or examples <= 3:
        labels = average_linkage(distances, settings.cut)
    else:
        labels = _hdbscan(distances, settings)
        if np.isfinite(dimensions):
            labels = tidied(distances, dimensions, labels, settings.min_size, _ROUNDS_OF_HDBSCAN)
    sizes = np.bincount(labels + 1)[labels + 1]  # of the cluster of each example
    return _by_size(np.where(sizes >= settings.min_size, labels, -1))


def average_linkage(distances: Distances, cut: float) -> NDArray[np.int64]:
    """Clusters joined while their mean distance is at most `cut`, as in the paper: (examples,)."""
    joins, heights = average_tree(distances)
    labels: NDArray[np.int64] = groups_below(heights > cut, joins)
    return labels


def _hdbscan(distances: Distances, settings: ClusterSettings) -> NDArray[np.int64]:
    """HDBSCAN (Campello et al. 2013) by excess of mass, a single cluster allowed, with three corrections.

    Clusters that separate below the distance `epsilon` are one: otherwise a unit with a
    single behaviour is divided into its densest spots. Examples farther apart than `cut`
    are at the maximum distance: otherwise a few that are unlike everything, each other
    included, form a cluster, since nothing is near them. And an example that HDBSCAN leaves
    out joins the cluster of the smallest mean distance, if at most `cut`: of a single
    cluster, the package takes only those whose nearest is nearer than `epsilon`.
    """
    from hdbscan import HDBSCAN  # a second, with scikit-learn and pandas, for one method of four

    severed = np.where(distances > settings.cut, 2.0, distances.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its use of older scikit-learn names
        clusterer = HDBSCAN(
            metric="precomputed",
            min_cluster_size=settings.min_size,
            min_samples=settings.min_samples,
            cluster_selection_epsilon=settings.epsilon,
            allow_single_cluster=True,
        ).fit(severed)
    labels: NDArray[np.int64] = clusterer.labels_.astype(np.int64)
    member = membership(labels)
    if member.shape[1]:
        mean = distances @ member / member.sum(axis=0)  # (examples, clusters)
        labels = np.where((labels < 0) & (mean.min(axis=1) <= settings.cut), mean.argmin(axis=1), labels)
    return labels


def _by_size(labels: NDArray[np.int64]) -> Labels:
    values, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    clusters = values >= 0
    order = np.lexsort([first[clusters], -sizes[clusters]])
    number = np.full(int(values.max()) + 2, -1, dtype=np.int32)
    number[values[clusters][order]] = np.arange(len(order))
    return number[labels]  # −1 reads the last entry, which is −1


class Measures(NamedTuple):
    """Measures of a unit's polysemanticity; NaN where a mean is over no pair.

    With s_c the sizes of the clusters, n the number of examples and d the distances:
    """

    behaviours: int
    """Number of clusters."""
    main_behaviours: int
    """`main_behaviours`: the number of clusters with s_c ≥ n / 20."""
    effective_behaviours: float
    """exp(−Σ p_c ln p_c), p_c = s_c / Σ s: the number of equal clusters of the same diversity (Hill 1973, order 1)."""
    noise_fraction: float
    """1 − Σ s_c / n."""
    mean_distance: float
    """Mean of d over all pairs of different examples."""
    max_distance: float
    """Largest d."""
    intra_distance: float
    """Mean of d over pairs within one cluster, pooled over clusters."""
    inter_distance: float
    """Mean of d over pairs in two different clusters, pooled; unclustered examples are left out."""
    examples: int
    """n."""


def measure(distances: Distances, labels: Labels) -> Measures:
    """The measures of one unit, from (examples, examples) distances and (examples,) labels."""
    examples = len(labels)
    sizes = np.bincount(labels + 1, minlength=1)[1:]
    clustered = int(sizes.sum())
    shares = sizes / max(clustered, 1)
    total, within, between, largest = _sums_over_pairs(distances, labels)
    pairs_within = int((sizes * (sizes - 1)).sum()) / 2
    return Measures(
        behaviours=len(sizes),
        main_behaviours=main_behaviours(labels),
        effective_behaviours=float(np.exp(-np.sum(shares * np.log(shares)))) if len(sizes) else 0.0,
        noise_fraction=float(1 - clustered / examples) if examples else 0.0,
        mean_distance=_ratio(total, examples * (examples - 1) / 2),
        max_distance=largest if examples > 1 else np.nan,
        intra_distance=_ratio(within, pairs_within),
        inter_distance=_ratio(between, clustered * (clustered - 1) / 2 - pairs_within),
        examples=examples,
    )


@njit(nogil=True, cache=True)
def _sums_over_pairs(distances: Distances, labels: NDArray[np.integer]) -> tuple[float, float, float, float]:
    """Summed distances of all pairs, of those within one cluster, and of those in two; and the largest distance."""
    total = within = between = largest = 0.0
    for one in range(len(labels)):
        for other in range(one):
            distance = np.float64(distances[one, other])
            total += distance
            largest = max(largest, distance)
            if labels[one] >= 0 and labels[other] >= 0:
                if labels[one] == labels[other]:
                    within += distance
                else:
                    between += distance
    return total, within, between, largest


def main_behaviours(labels: Labels) -> int:
    """The number of clusters that hold at least a twentieth of the examples, unclustered ones included.

    Smaller ones are seen or missed by chance, and the more examples are read, the more of them there are.
    """
    return int(np.count_nonzero(is_main(np.bincount(labels + 1)[1:], len(labels))))


def is_main(sizes: NDArray[np.int64], examples: int | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which behaviours are main ones, by their sizes, out of all `examples` of their side: (behaviours,)."""
    return sizes >= MAIN_SHARE * examples


def paper_distances(distances: Distances) -> tuple[float, float]:
    """Mean distance within and between the clusters of the paper, average linkage cut at 0.5.

    For comparing representations of the same examples as Foote (2024) does; a single
    example is a cluster of one. NaN where a mean is over no pair.
    """
    labels = average_linkage(distances, _PAPER_CUT) if len(distances) > 1 else np.zeros(len(distances), np.int64)
    measures = measure(distances, labels.astype(np.int32))
    return measures.intra_distance, measures.inter_distance


def central_examples(distances: Distances, labels: Labels) -> NDArray[np.int64]:
    """The medoid of each cluster, the member of the smallest mean distance to the others: (clusters,).

    The first of equals; the only member of a cluster of one.
    """
    member = membership(labels)
    to_cluster = np.where(member > 0, distances.astype(np.float64) @ member, np.inf)  # (examples, clusters)
    return np.argmin(to_cluster, axis=0) if len(labels) else np.zeros(0, dtype=np.int64)


def coverage(values: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
    """The share of each cluster in the summed activation of all examples: (clusters,)."""
    total = values.sum(dtype=np.float64)
    mass: NDArray[np.float64] = values.astype(np.float64) @ membership(labels)
    return np.divide(mass, total or 1)


def membership(labels: NDArray[np.integer], clusters: int | None = None) -> NDArray[np.float64]:
    """1 where an example is in a cluster, else 0: (examples, clusters), by default up to the highest label."""
    numbers = np.arange(int(labels.max(initial=-1)) + 1 if clusters is None else clusters)
    return np.asarray(labels[:, None] == numbers, dtype=np.float64)


def _ratio(total: float, count: float) -> float:
    return float(total / count) if count else float("nan")

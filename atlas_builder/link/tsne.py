"""The map: a place in the plane for every behaviour, so that those alike are near each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from atlas_builder.link.exact_knn import Doubles, Floats, Neighbours, directions

NEIGHBOURS = 15
"""The nearest behaviours that pull at each."""
_FEWEST = 4 * NEIGHBOURS  # below that, a behaviour's neighbours are half of all
_AXES = 128
_ROWS_AT_ONCE = 4096
_ROUNDS = ((250, 12.0, 0.5), (500, 1.0, 0.8))  # steps, exaggeration of the pull, momentum
_SEED = 0


def narrowed(vectors: Floats) -> Floats:
    """Directions of (n, width) with at most 128 coordinates: those along which they are longest.

    Finding neighbours costs as much as vectors are wide, and the other coordinates of a
    model's activations say little of who is near.
    """
    if vectors.shape[1] <= _AXES:
        return directions(vectors)
    with threadpool_limits(limits=1):
        axes = _main_axes(vectors, np.zeros(vectors.shape[1]), _AXES)
        found = np.empty((len(vectors), _AXES), dtype=np.float32)
        for rows in _in_parts(len(vectors)):
            found[rows] = vectors[rows] @ axes
    return directions(found)


def places(vectors: Floats, neighbours: Neighbours) -> Floats:
    """Places of (n, width) directions in the unit square: (n, 2).

    t-SNE (van der Maaten and Hinton 2008; openTSNE's, with interpolation: Linderman 2019)
    of the graph of `neighbours`, (n, 15): two that are neighbours, one way or both, pull
    at each other, all push each other apart. It starts from the two main axes, with a
    fixed seed and one thread, so a machine says the same twice. Fewer than 60 stay on
    their two main axes; where all are equal, they are in the middle.
    """
    with threadpool_limits(limits=1):
        found = _main_plane(vectors)
        if len(vectors) >= _FEWEST and found.any():
            found = _arranged(found, neighbours)
    return _framed(found)


def _main_plane(vectors: Floats) -> Doubles:
    """The two coordinates along which vectors differ most: (n, 2), about zero."""
    found = np.zeros((len(vectors), 2))
    if len(vectors):
        mean = vectors.mean(axis=0, dtype=np.float64)
        axes = _main_axes(vectors, mean, 2)
        for rows in _in_parts(len(vectors)):
            found[rows, : axes.shape[1]] = (vectors[rows] - mean) @ axes
    # Equal vectors differ by rounding alone.
    found[np.abs(found) < 1e-6] = 0
    return found


def _main_axes(vectors: Floats, mean: Doubles, count: int) -> Doubles:
    """Eigenvectors of the second moments about `mean`, those of the largest values first: (width, count) at most."""
    moments = np.zeros((vectors.shape[1], vectors.shape[1]))
    for rows in _in_parts(len(vectors)):
        part = vectors[rows] - mean
        moments += part.T @ part
    axes: Doubles = np.linalg.eigh(moments)[1][:, ::-1][:, :count]
    return axes


def _in_parts(total: int) -> list[slice]:
    return [slice(first, first + _ROWS_AT_ONCE) for first in range(0, total, _ROWS_AT_ONCE)]


def _arranged(start: Doubles, neighbours: Neighbours) -> Doubles:
    """t-SNE of a graph of neighbours from a first arrangement, (n, 2)."""
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PrecomputedAffinities

    # Those that start on one spot would be pushed nowhere.
    chance = np.random.default_rng(_SEED).normal(size=start.shape)
    start = 1e-4 * (start / start.std(axis=0).max() + 0.01 * chance)
    found = TSNEEmbedding(
        start,
        PrecomputedAffinities(_graph(neighbours)),
        negative_gradient_method="fft",
        # A grid of half the usual fineness: a third of the time, for one neighbour in a hundred.
        ints_in_interval=2,
        min_num_intervals=25,
        n_jobs=1,  # sums of several threads differ by their order
        random_state=_SEED,
    )
    for steps, exaggeration, momentum in _ROUNDS:
        found.optimize(steps, exaggeration=exaggeration, momentum=momentum, inplace=True)
    return np.asarray(found, dtype=np.float64)


def _graph(neighbours: Neighbours) -> csr_matrix:
    """One where either is a neighbour of the other: (n, n)."""
    row, rank = np.nonzero(neighbours >= 0)
    size = (len(neighbours), len(neighbours))
    graph = csr_array((np.ones(len(row)), (row, neighbours[row, rank])), shape=size)
    graph = graph.maximum(graph.T)
    graph.sort_indices()
    return csr_matrix(graph)


def _framed(found: Doubles) -> Floats:
    """Places moved and scaled, both ways alike, to fill the width of the unit square about its middle: (n, 2)."""
    if not len(found):
        return found.astype(np.float32)
    low, high = found.min(axis=0), found.max(axis=0)
    if (high - low)[1] > (high - low)[0]:  # screens are wider than high
        found, low, high = found[:, ::-1], low[::-1], high[::-1]
    scale = (high - low).max() or 1.0
    framed: NDArray[np.float64] = 0.5 + (found - (low + high) / 2) / scale
    return np.clip(framed, 0, 1).astype(np.float32)

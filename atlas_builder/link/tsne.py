"""The map: a position in the plane for every behaviour, with similar behaviours near each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from atlas_builder.link.exact_knn import Doubles, Floats, Neighbours, directions
from atlas_builder.link.forces import Repulsion, attraction, move

NEIGHBOURS = 15
"""Nearest behaviours that attract each behaviour."""
_FEWEST = 4 * NEIGHBOURS  # with fewer, a large part of all behaviours would be neighbours
_AXES = 128
_ROWS_AT_ONCE = 4096
_ROUNDS = ((100, 12.0, 0.8), (400, 1.0, 0.8))  # steps, exaggeration, momentum
_SEED = 0


def narrowed(vectors: Floats) -> Floats:
    """Directions of (n, width) projected to at most 128 principal axes, those of the largest second moments.

    Finding neighbours costs time in proportion to the width, and the other axes of a model's
    activations contribute little to similarity.
    """
    if vectors.shape[1] <= _AXES:
        return directions(vectors)
    with threadpool_limits(limits=1):
        axes = _main_axes(vectors, np.zeros(vectors.shape[1]), _AXES)
        projected = np.empty((len(vectors), _AXES), dtype=np.float32)
        for rows in _in_parts(len(vectors)):
            projected[rows] = vectors[rows] @ axes
    return directions(projected)


def places(vectors: Floats, neighbours: Neighbours) -> Floats:
    """Positions of (n, width) directions in the unit square: (n, 2).

    t-SNE (van der Maaten and Hinton 2008) of the graph of `neighbours`, (n, 15): two attract
    each other if either is a neighbour of the other, and all repel each other (`forces`). It
    starts from the first two principal axes, with a fixed seed, and takes 100 steps with
    attraction twelve times as strong, then 400: every sum has one order, so a machine repeats its
    result with any number of threads. Fewer than 60 stay on the first two principal axes; equal ones
    are in the middle.
    """
    with threadpool_limits(limits=1):
        positions = _main_plane(vectors)
        if len(vectors) >= _FEWEST and positions.any():
            positions = _arranged(positions, neighbours)
    return _framed(positions)


def _main_plane(vectors: Floats) -> Doubles:
    """The first two principal components of the vectors: (n, 2), about zero."""
    components = np.zeros((len(vectors), 2))
    if len(vectors):
        mean = vectors.mean(axis=0, dtype=np.float64)
        axes = _main_axes(vectors, mean, 2)
        for rows in _in_parts(len(vectors)):
            components[rows, : axes.shape[1]] = (vectors[rows] - mean) @ axes
    # Equal vectors differ by rounding alone.
    components[np.abs(components) < 1e-6] = 0
    return components


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
    """t-SNE of a graph of neighbours from initial positions, (n, 2)."""
    # Points that start in one place would not be separated.
    chance = np.random.default_rng(_SEED).normal(size=start.shape)
    positions: Doubles = 1e-4 * (start / start.std(axis=0).max() + 0.01 * chance)
    graph = _graph(neighbours)
    starts, others = graph.indptr.astype(np.int64), graph.indices.astype(np.int64)
    repulsion = Repulsion()
    steps, gains = np.zeros_like(positions), np.ones_like(positions)
    for count, exaggeration, momentum in _ROUNDS:
        for _ in range(count):
            pull = attraction(positions, starts, others) * (exaggeration / len(others))
            # The rate of Belkina et al. 2019.
            move(positions, pull + repulsion.of(positions), steps, gains, len(positions) / exaggeration, momentum)
    return positions


def _graph(neighbours: Neighbours) -> csr_array:
    """1 where either is a neighbour of the other: (n, n)."""
    row, rank = np.nonzero(neighbours >= 0)
    size = (len(neighbours), len(neighbours))
    graph = csr_array((np.ones(len(row)), (row, neighbours[row, rank])), shape=size)
    graph = graph.maximum(graph.T)
    graph.sort_indices()
    return graph


def _framed(positions: Doubles) -> Floats:
    """Positions moved and scaled, equally on both axes, to fill the width of the unit square: (n, 2)."""
    if not len(positions):
        return positions.astype(np.float32)
    low, high = positions.min(axis=0), positions.max(axis=0)
    if (high - low)[1] > (high - low)[0]:  # screens are wider than high
        positions, low, high = positions[:, ::-1], low[::-1], high[::-1]
    scale = (high - low).max() or 1.0
    framed: NDArray[np.float64] = 0.5 + (positions - (low + high) / 2) / scale
    return np.clip(framed, 0, 1).astype(np.float32)

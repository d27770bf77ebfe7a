"""Neuron embeddings and their distances (Foote 2024, arXiv 2411.08166).

Plain arrays in, plain arrays out: nothing here needs a language model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import lapack

Floats = NDArray[np.float32]

_USUAL = 20
"""Powers of two up to which weights are taken as they are."""


def neuron_embeddings(inputs: Floats, read_weights: Floats) -> Floats:
    """What a unit responds to in each input: input ⊙ input weights.

    `inputs` is (examples, width), `read_weights` (parts, width): one part for a plain
    unit, whose embedding sums to its pre-activation less the bias; two for a gated one,
    whose embedding concatenates `input ⊙ w_gate` and `input ⊙ w_in` (this project's
    extension of the paper). Returns (examples, parts · width).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = inputs[:, None, :] * read_weights[None]  # (examples, parts, width)
    return product.reshape(len(inputs), product.shape[1] * product.shape[2])


def scaled_weights(read_weights: Floats) -> Floats:
    """Read weights that are neither so large nor so small that squares leave float32: (parts, units, width).

    Those of a unit are multiplied by one power of two, which changes no cosine and rounds nothing; of units of a
    usual size none is.
    """
    largest = np.abs(read_weights).max(axis=(0, 2), initial=0)  # (units,)
    exponent = np.frexp(largest)[1]
    is_usual = ~np.isfinite(largest) | (np.abs(exponent) <= _USUAL)
    scaled: Floats = np.ldexp(read_weights, np.where(is_usual, 0, -exponent)[:, None])
    return scaled


def inner_products(embeddings: Floats) -> Floats:
    """Of all pairs, without a warning where one overflows: (examples, examples)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return embeddings @ embeddings.T


def has_direction(inner: Floats) -> NDArray[np.bool_]:
    """Whether each embedding has a direction, from the `inner_products`: one that is zero or not finite has none."""
    squares = inner.diagonal()
    return (squares > 0) & (squares < np.inf)


def cosine_distances(embeddings: Floats) -> Floats:
    """1 − cos between all pairs, in [0, 2], zero on the diagonal: (examples, examples).

    An embedding that is zero or not finite has no direction: it is at distance 1 from
    all others.
    """
    return distances_of(inner_products(embeddings))


def distances_of(inner: Floats) -> Floats:
    """The `cosine_distances` of embeddings with these `inner_products`."""
    distances: Floats = _distances(inner, has_direction(inner))
    return distances


@njit(nogil=True, cache=True)
def _distances(inner: Floats, directed: NDArray[np.bool_]) -> Floats:
    count = len(inner)
    distances, norms = np.ones((count, count), np.float32), np.zeros(count)
    for one in range(count):
        distances[one, one], norms[one] = 0, np.sqrt(inner[one, one])
        for other in range(one):
            if directed[one] and directed[other]:
                cosine = inner[one, other] / (norms[one] * norms[other])
                distances[one, other] = distances[other, one] = min(max(1 - cosine, 0.0), 2.0)
    return distances


class Plane(NamedTuple):
    """Examples in the plane of their first two principal coordinates."""

    points: Floats  # (examples, 2)
    share: float
    """Share of the examples' variance on the two axes, in [0, 1]; NaN where there is none."""


def principal_coordinates(distances: Floats) -> Plane:
    """The first two principal coordinates of examples at these cosine distances.

    Principal coordinates (Torgerson 1952; Gower 1966): as 1 − distance is the inner
    product of two directions, the eigenvectors of the two largest eigenvalues of the
    centred matrix, scaled by the roots of these, equal a principal component analysis of
    the directions. On each axis the point farthest from zero is positive, so a figure does
    not depend on the sign that a library happens to choose.
    """
    count = len(distances)
    empty = Plane(np.zeros((count, 2), dtype=np.float32), float("nan"))
    if count < 2:
        return empty
    inner = 1 - distances.astype(np.float64)
    means = inner.mean(axis=0)
    inner -= means + means[:, None] - means.mean()
    variance = float(np.trace(inner))
    if variance < 1e-6 * count:  # rounding errors of equal examples
        return empty
    # As `scipy.linalg.eigh` does, without its checks.
    values, vectors, _, _, failed = lapack.dsyevr(inner, range="I", il=count - 1, iu=count)
    if failed:
        raise np.linalg.LinAlgError("the eigenvectors of the examples' inner products do not converge")
    values, vectors = values[:2], vectors[:, :2]
    axes = vectors[:, ::-1] * np.sqrt(np.clip(values[::-1], 0, None))  # (examples, 2), the largest first
    farthest = axes[np.abs(axes).argmax(axis=0), [0, 1]]
    points = (axes * np.where(farthest < 0, -1, 1)).astype(np.float32)
    return Plane(points, min(1.0, float(np.clip(values, 0, None).sum()) / variance))

"""Neuron embeddings and their distances (Foote 2024, arXiv 2411.08166).

Plain arrays in, plain arrays out: no language model in sight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def neuron_embeddings(inputs: Floats, read_weights: Floats) -> Floats:
    """What in each input a unit answers to: input ⊙ read weights.

    `inputs` is (examples, width), `read_weights` (parts, width): one part for a plain
    unit, whose embedding sums to its pre-activation less the bias; two for a gated
    one, whose embedding joins `input ⊙ w_gate` and `input ⊙ w_in` (this project's
    extension of the paper). Returns (examples, parts · width).
    """
    product = inputs[:, None, :] * read_weights[None]  # (examples, parts, width)
    return product.reshape(len(inputs), product.shape[1] * product.shape[2])


def cosine_distances(embeddings: Floats) -> Floats:
    """1 − cos between all pairs, in [0, 2], zero on the diagonal: (examples, examples).

    An embedding that is zero or not finite has no direction: it is at distance 1 from
    all others.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        directed = (norms > 0) & np.isfinite(norms)
        unit = np.where(directed, embeddings / np.where(directed, norms, 1), np.float32(0))
    distances: Floats = np.clip(1 - unit @ unit.T, 0, 2).astype(np.float32, copy=False)
    distances = (distances + distances.T) / np.float32(2)  # rounding is not symmetric
    np.fill_diagonal(distances, 0)
    return distances

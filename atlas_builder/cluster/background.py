"""What unrelated inputs of a layer look like, from a sample of them, and similarities measured from there.

Two inputs that have nothing in common still have a cosine: every input of a layer shares the layer's
mean, two inputs that drive a unit share what drives it, and in few dimensions any two are somewhat
alike. This module takes out the first two and measures the third. The method is this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from atlas_builder.cluster.embeddings import (
    cosine_distances,
    distances_of,
    has_direction,
    inner_products,
    neuron_embeddings,
    scaled_weights,
)

_PAIRED = 128
"""Inputs whose pairs measure the effective dimensions."""
_QUANTILES = {0.99: 2.3263479, 0.999: 3.0902323}
"""Quantiles of the normal distribution."""
_FLOOR_QUANTILE = 0.2
_LARGEST_FLOOR = 0.4


class Similarities(NamedTuple):
    """How alike a unit's examples are, beyond what unrelated examples are."""

    distances: NDArray[np.float32]
    """1 − cosine, the cosine being 1 on the diagonal and about 0 for unrelated pairs: (examples, examples)."""
    dimensions: float
    """Effective dimensions of unrelated inputs as the unit reads them; infinite where nothing is known of them."""

    def part(self, examples: NDArray[np.integer]) -> Similarities:
        """The same of some of the examples."""
        return Similarities(self.distances.take(examples, 0).take(examples, 1), self.dimensions)


class LayerBackground:
    """Inputs of a layer at random tokens.

    `inputs` is (tokens, width), `tokens` the ids of the tokens, (tokens,); rows that are not finite
    are left out. With fewer than two rows, or none at all, nothing is known of the layer: inputs are
    then taken to be centred at zero, with independent coordinates of equal spread, and no floor is
    taken off.
    """

    def __init__(self, inputs: NDArray[np.float32], tokens: NDArray[np.integer]) -> None:
        finite = np.isfinite(inputs).all(axis=1)
        inputs, self._tokens = inputs[finite].astype(np.float32, copy=False), tokens[finite]
        self.known = len(inputs) > 1
        self.mean: NDArray[np.float32] = (
            inputs.mean(axis=0, dtype=np.float64).astype(np.float32) if self.known else np.zeros(1, np.float32)
        )
        self.centred = inputs - self.mean

    def of_unit(self, read_weights: NDArray[np.float32]) -> UnitBackground:
        """The background as a unit reads it; `read_weights` is (parts, width)."""
        return self.of_units(read_weights[:, None])[0]

    def of_units(self, read_weights: NDArray[np.float32]) -> list[UnitBackground]:
        """The same for some units at once, which costs less; `read_weights` is (parts, units, width), of any scale."""
        read_weights = scaled_weights(read_weights).swapaxes(0, 1)
        drives = self._given_drives(read_weights) if self.known else [None] * len(read_weights)
        return [UnitBackground(self, *unit) for unit in zip(read_weights, drives, strict=True)]

    def _given_drives(self, read_weights: NDArray[np.float32]) -> list[GivenDrive]:
        """What inputs' drives say of their embeddings, for units of `read_weights` (units, parts, width)."""
        units, parts, width = read_weights.shape
        # A matrix that is not finite has no inverse, and would end the others' too.
        read_weights = np.where(np.isfinite(read_weights).all(axis=(1, 2), keepdims=True), read_weights, np.float32(0))
        count = len(self.centred)
        drive = read_weights.reshape(-1, width) @ self.centred.T  # (units · parts, tokens)
        common = (drive @ self.centred).reshape(units, parts, width).astype(np.float64) / count
        drive = drive.reshape(units, parts, count)
        spread = (drive @ drive.swapaxes(1, 2)).astype(np.float64) / count  # (units, parts, parts)
        squares = np.square(read_weights, dtype=np.float64).sum(axis=1)  # (units, width)
        total = (squares @ self.variance)[:, None, None]
        square = (common * squares[:, None]) @ common.swapaxes(1, 2)
        square -= (spread * total + square) / count  # less what sampling adds
        inverse = np.linalg.pinv(spread)
        explained = inverse @ square
        rest = total[:, 0, 0] - np.trace(explained, axis1=1, axis2=2)
        return [GivenDrive(*unit) for unit in zip(explained @ inverse, np.maximum(rest, 0).tolist(), strict=True)]

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """Variance of each coordinate: (width,)."""
        squares: NDArray[np.float64] = np.einsum("td,td->d", self.centred, self.centred, dtype=np.float64)
        return squares / len(self.centred)

    @cached_property
    def unrelated(self) -> NDArray[np.int64]:
        """Where pairs of the first inputs are of different tokens, in their flat matrix; all if every token is one."""
        count = min(len(self.centred), _PAIRED)
        first, second = np.triu_indices(count, 1)
        different = self._tokens[first] != self._tokens[second]
        pairs = first * count + second
        return pairs[different] if different.any() else pairs


class GivenDrive(NamedTuple):
    """What an input's drive r·x says of its embedding."""

    shared: NDArray[np.float64]
    """(parts, parts)."""
    rest: float
    """The variance that is left."""


class UnitBackground:
    """The background of a layer as one unit reads it."""

    def __init__(
        self, background: LayerBackground, read_weights: NDArray[np.float32], given_drive: GivenDrive | None
    ) -> None:
        self._layer, self.read_weights, self._given_drive = background, read_weights, given_drive

    def similarities(self, inputs: NDArray[np.float32]) -> Similarities:
        """How alike a unit's inputs are, (examples, width), beyond what unrelated ones are.

        The cosine of two examples is (cos(e_i, e_j) − f) / (1 − f), with e the embeddings of the inputs less the
        layer's mean and f the `floor`. An embedding that is zero or not finite has the cosine 0 with all others.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            embeddings = neuron_embeddings(inputs - self._layer.mean, self.read_weights)
        inner = inner_products(embeddings)
        distances, directed = distances_of(inner), has_direction(inner)
        if directed.all():
            distances /= np.float32(1 - self.floor(embeddings, distances))
        else:
            distances /= np.float32(1 - self.floor(embeddings[directed], distances))
            distances[~directed, :] = 1
            distances[:, ~directed] = 1
            np.fill_diagonal(distances, 0)
        return Similarities(distances, self.dimensions)

    @cached_property
    def dimensions(self) -> float:
        """Effective dimensions of unrelated inputs: what independent coordinates of this number would give.

        Cosines of random directions in d dimensions are nearly normal with variance 1 / d. d is read from
        the 99 % and the 99.9 % quantile of cosines between background inputs of different tokens, the
        smaller of the two, and is at least 2. Where no background is known, from the read weights r
        alone: (Σ r²)² / Σ r⁴.
        """
        if not self._layer.known:
            squares = self.read_weights.astype(np.float64) ** 2
            total, fourth = float(squares.sum()), float((squares**2).sum())
            return max(2.0, total**2 / fourth) if fourth > 0 else 2.0
        paired = cosine_distances(neuron_embeddings(self._layer.centred[:_PAIRED], self.read_weights))
        reached = 1 - _low_quantiles(paired.take(self._layer.unrelated), [1 - share for share in _QUANTILES])
        apart = (np.array(list(_QUANTILES.values())) / np.maximum(reached, 1e-3)) ** 2
        return max(2.0, float(apart.min()))

    def floor(self, embeddings: NDArray[np.float32], distances: NDArray[np.float32]) -> float:
        """The cosine that unrelated inputs have because both drive the unit as strongly as the examples do.

        For inputs that are jointly normal with the background's covariance, given that their drives are
        those of two examples: a K a' / (a K a + rest), a the drives by part, the sums of centred
        embeddings; numerator and denominator are means over the examples. At most the 20 % quantile of the
        examples' cosines, and at most 0.4.
        """
        if self._given_drive is None or len(embeddings) < 2:
            return 0.0
        parts = embeddings.reshape(len(embeddings), len(self.read_weights), -1)
        drives = parts.sum(axis=2, dtype=np.float64)  # (examples, parts)
        given, rest = self._given_drive
        mean = drives.mean(axis=0)
        shared, own = float(mean @ given @ mean), float(np.vdot(drives @ given, drives)) / len(drives)
        if not (shared > 0 and own > 0):
            return 0.0
        lowest = float(_low_quantiles(1 - squareform(distances, checks=False), [_FLOOR_QUANTILE])[0])
        return max(0.0, min(shared / (own + rest), lowest, _LARGEST_FLOOR))


def _low_quantiles(values: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.float64]:
    """As `np.quantile`, of small shares only: what is above them is not put in order: (shares,)."""
    at = np.multiply(shares, len(values) - 1)
    last = min(int(at.max()) + 1, len(values) - 1)
    lowest = np.sort(np.partition(values, last)[: last + 1]).astype(np.float64)
    return np.interp(at, np.arange(last + 1), lowest)

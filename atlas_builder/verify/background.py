"""What unrelated inputs look like to a unit, computed again from its definition.

Nothing is shared with the cluster stage: the tokens of the background are chosen again, embeddings
are written out, and everything is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.chances import chances_in_background

_TOKENS = 1024  # in the background of a layer
_PAIRED = 128  # of them, the first, whose pairs show how many dimensions inputs have
_TAILS = (0.99, 0.999)  # the quantiles of their cosines that are read
_SMALLEST_TAIL = 1e-3  # a cosine; smaller ones count as this one
_FEWEST_DIMENSIONS = 2.0
_FLOOR_QUANTILE, _LARGEST_FLOOR = 0.2, 0.4

Matrix = NDArray[np.float64]


def background_places(
    lengths: Sequence[int], seed: int, layer: int, counted: NDArray[np.bool_] | None = None
) -> list[tuple[int, int]]:
    """Context and position of the tokens of a layer's background, in contexts of these lengths.

    Of all tokens, or of those that are `counted`, (tokens,), those of smallest chance, the smallest first.
    """
    context = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths] or [context])
    if counted is not None:
        context, position = context[counted], position[counted]
    first = np.argsort(chances_in_background(seed, layer, context, position))[:_TOKENS]
    return list(zip(context[first].tolist(), position[first].tolist(), strict=True))


def embedded(inputs: NDArray[np.floating], read: NDArray[np.floating]) -> Matrix:
    """Neuron embeddings, part after part: (examples, parts · width).

    `inputs` is (examples, width), `read` the input weights, (parts, width).
    """
    return np.concatenate([inputs.astype(np.float64) * part.astype(np.float64) for part in read], axis=1)


def has_direction(embedding: Matrix) -> bool:
    """Whether an embedding, (parts · width,), is neither zero nor too large for float32."""
    length = float(np.sqrt(embedding @ embedding))
    return 0 < length <= float(np.finfo(np.float32).max)


def pairwise_cosines(embeddings: Matrix) -> Matrix:
    """Cosines between embeddings, of all pairs: (examples, examples).

    One without a direction has the cosine 0 with all others.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        directions = [embedding / np.sqrt(embedding @ embedding) * has_direction(embedding) for embedding in embeddings]
        rows = np.array(directions).reshape(embeddings.shape)
        cosines: Matrix = rows @ rows.T
    cosines[~np.isfinite(cosines)] = 0.0
    np.fill_diagonal(cosines, 1.0)
    return cosines


class Unrelated:
    """A layer's inputs at random tokens, (tokens, width), as one unit reads them, and the ids of these tokens.

    Inputs that are not finite are left out; of fewer than two, nothing is known.
    """

    def __init__(self, inputs: NDArray[np.floating], tokens: NDArray[np.integer], read: NDArray[np.floating]) -> None:
        finite = np.isfinite(inputs).all(axis=1)
        self._tokens = tokens[finite].tolist()
        self._read = read.astype(np.float64)
        self.known = int(finite.sum()) > 1
        exact = inputs[finite].astype(np.float64)
        self.mean = exact.mean(axis=0) if self.known else np.zeros(read.shape[1])
        self._embeddings = embedded(exact - self.mean, read)  # (tokens, parts · width)

    def cosines(self, inputs: NDArray[np.floating]) -> Matrix:
        """Cosines of a unit's examples beyond those of unrelated inputs: (examples, examples).

        The layer's mean is taken off the inputs, (examples, width), and the floor f off the cosines, which
        then are (cos − f) / (1 − f).
        """
        with np.errstate(over="ignore", invalid="ignore"):
            embeddings = embedded(inputs.astype(np.float64) - self.mean, self._read)
            directed = [example for example, row in enumerate(embeddings) if has_direction(row)]
        cosines = pairwise_cosines(embeddings)
        floor = self.floor(embeddings[directed], cosines)
        beyond = np.eye(len(inputs))
        for i in directed:
            for j in directed:
                if i != j:
                    beyond[i, j] = (cosines[i, j] - floor) / (1 - floor)
        return beyond

    @cached_property
    def dimensions(self) -> float:
        """The number of independent coordinates whose cosines spread as those of unrelated inputs do."""
        if not self.known:
            squares = self._read**2
            return max(_FEWEST_DIMENSIONS, squares.sum() ** 2 / (squares**2).sum()) if squares.any() else 2.0
        first = pairwise_cosines(self._embeddings[:_PAIRED])
        pairs = [(i, j) for j in range(len(first)) for i in range(j)]
        different = [pair for pair in pairs if self._tokens[pair[0]] != self._tokens[pair[1]]]
        found = [first[pair] for pair in different or pairs]
        dimensions = []
        for share in _TAILS:
            reached = max(float(np.quantile(found, share)), _SMALLEST_TAIL)
            dimensions.append((NormalDist().inv_cdf(share) / reached) ** 2)
        return max(_FEWEST_DIMENSIONS, min(dimensions))

    def floor(self, embeddings: Matrix, cosines: Matrix) -> float:
        """The cosine of two unrelated inputs that drive the unit as strongly as the examples do.

        An embedding is predicted from its drive, the sum of its coordinates by part, by least squares on the
        background; what the predictions of two examples have in common is divided by the squared length of an
        embedding of that drive, predicted and left over. `embeddings` are those of the examples that have a
        direction, `cosines` are of all examples.
        """
        if not self.known or len(embeddings) < 2:
            return 0.0
        parts, count = len(self._read), len(self._embeddings)
        drive = _drives(self._embeddings, parts)  # (tokens, parts)
        spread = drive.T @ drive / count  # (parts, parts)
        with_drive = self._embeddings.T @ drive / count  # (parts · width, parts)
        total = float(np.mean([row @ row for row in self._embeddings]))
        raw = with_drive.T @ with_drive
        product = raw - (spread * total + raw) / count  # less what sampling adds
        inverse = np.linalg.pinv(spread)
        given = inverse @ product @ inverse
        rest = max(0.0, total - float(np.trace(inverse @ product)))
        drives = _drives(embeddings, parts)
        mean = drives.mean(axis=0)
        shared = float(mean @ given @ mean)
        own = float(np.mean([one @ given @ one for one in drives]))
        if shared <= 0 or own <= 0:
            return 0.0
        low = np.quantile([cosines[i, j] for j in range(len(cosines)) for i in range(j)], _FLOOR_QUANTILE)
        return float(min(max(min(shared / (own + rest), low), 0.0), _LARGEST_FLOOR))


def _drives(embeddings: Matrix, parts: int) -> Matrix:
    """The sums of embeddings by part: (examples, parts)."""
    return np.stack([part.sum(axis=1) for part in np.split(embeddings, parts, axis=1)], axis=1)

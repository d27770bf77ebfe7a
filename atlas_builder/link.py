"""The link stage: behaviours of other units that look alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.config import Link
from atlas_builder.progress import Progress

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Links:
    """The folder of the link stage. Behaviours are numbered through all layers, in order."""

    folder: Path

    @cached_property
    def neighbours(self) -> NDArray[np.int32]:
        """The most similar behaviours of each behaviour, best first, −1 for none: (behaviours, neighbours)."""
        return np.load(self.folder / "neighbours.npy")

    @cached_property
    def similarities(self) -> NDArray[np.float32]:
        """Their cosines: (behaviours, neighbours)."""
        return np.load(self.folder / "similarities.npy")

    @cached_property
    def address(self) -> NDArray[np.int32]:
        """Layer, unit and number of each behaviour: (behaviours, 3)."""
        return np.load(self.folder / "address.npy")

    def first_of(self, layer: int) -> int:
        """The number of a layer's first behaviour."""
        return int(np.searchsorted(self.address[:, 0], layer))


def link(collected: Collected, clustered: Path, settings: Link, folder: Path, progress: Progress) -> None:
    """Find each behaviour's neighbours and write them.

    As in the paper, two behaviours are compared by the cosine of what enters the MLP at
    their central examples, not by their embeddings, so that it can be asked of any two
    units; a unit's own behaviours are no neighbours of each other.
    """
    layers = collected.layers
    found = [Clustered(layer.layer, clustered).behaviours for layer in layers]
    address = np.concatenate(
        [
            np.stack([np.full(len(part), layer.layer), part["unit"], part["id"]], axis=1)
            for layer, part in zip(layers, found, strict=True)
        ]
    ).astype(np.int32)
    inputs = np.concatenate([layer.inputs[part["row"]] for layer, part in zip(layers, found, strict=True)])
    _, unit = np.unique(address[:, :2], axis=0, return_inverse=True)
    with progress.task("link", total=len(address), unit="behaviours") as advance, threadpool_limits(limits=1):
        neighbours, similarities = nearest(inputs, unit.reshape(-1), settings.neighbours, settings.threshold, advance)
    np.save(folder / "address.npy", address)
    np.save(folder / "neighbours.npy", neighbours)
    np.save(folder / "similarities.npy", similarities)


def nearest(
    vectors: NDArray[np.float32],
    group: NDArray[np.int64],
    count: int,
    threshold: float,
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `count` vectors of the highest cosine to each, of other groups and from `threshold` on.

    Exact, in blocks; ties go to the lower number. `vectors` is (n, width), `group` (n,);
    returns numbers and cosines, (n, count), −1 and NaN where there are fewer.
    """
    total = len(vectors)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    neighbours = np.full((total, count), -1, dtype=np.int32)
    similarities = np.full((total, count), np.nan, dtype=np.float32)
    width = min(count, total)
    for first in range(0, total if width else 0, _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, total))
        cosine = unit[rows] @ unit.T  # (rows, n)
        cosine[group[rows, None] == group[None]] = -np.inf
        cosine[cosine < threshold] = -np.inf
        bound = np.partition(cosine, total - width, axis=1)[:, total - width]
        bound = np.maximum(bound, np.finfo(np.float32).min)
        row, place = np.nonzero(cosine >= bound[:, None])
        value = cosine[row, place]
        order = np.lexsort([place, -value, row])
        row, place, value = row[order], place[order], value[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        best = rank < width
        neighbours[first + row[best], rank[best]] = place[best]
        similarities[first + row[best], rank[best]] = value[best]
        advance(rows.stop - rows.start)
    return neighbours, similarities

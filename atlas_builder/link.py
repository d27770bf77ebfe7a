"""The link stage: behaviours of other units that look alike."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor
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
from atlas_builder.store import read_array

_ROWS_AT_ONCE = 512

Floats = NDArray[np.float32]
Groups = NDArray[np.int64]
Neighbours = NDArray[np.int32]


@dataclass(frozen=True)
class Links:
    """The folder of the link stage. Behaviours are numbered through all layers, in order."""

    folder: Path

    @cached_property
    def neighbours(self) -> Neighbours:
        """The most similar behaviours of each behaviour, best first, −1 for none: (behaviours, neighbours)."""
        return read_array(self.folder / "neighbours.npy")

    @cached_property
    def similarities(self) -> Floats:
        """Their cosines: (behaviours, neighbours)."""
        return read_array(self.folder / "similarities.npy")

    @cached_property
    def address(self) -> NDArray[np.int32]:
        """Layer, unit and number of each behaviour: (behaviours, 3)."""
        return read_array(self.folder / "address.npy")

    def first_of(self, layer: int) -> int:
        """The number of a layer's first behaviour."""
        return int(np.searchsorted(self.address[:, 0], layer))


def link(
    collected: Collected, clustered: Path, settings: Link, folder: Path, executor: Executor, progress: Progress
) -> None:
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
    _, group = np.unique(address[:, :2], axis=0, return_inverse=True)
    np.save(folder / "address.npy", address)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        vectors = Path(scratch) / "directions.npy"
        np.save(vectors, directions(inputs))
        firsts = range(0, len(address), _ROWS_AT_ONCE)
        tasks = [executor.submit(_nearest_rows, vectors, group.reshape(-1), first, settings) for first in firsts]
        parts: list[tuple[Neighbours, Floats]] = []
        with progress.task("link", total=len(address), unit="behaviours") as advance:
            for task in tasks:
                parts.append(task.result())
                advance(len(parts[-1][0]))
    empty = (np.zeros((0, settings.neighbours), np.int32), np.zeros((0, settings.neighbours), np.float32))
    neighbours, similarities = zip(*(parts or [empty]), strict=True)
    np.save(folder / "neighbours.npy", np.concatenate(neighbours))
    np.save(folder / "similarities.npy", np.concatenate(similarities))


def _nearest_rows(vectors: Path, group: Groups, first: int, settings: Link) -> tuple[Neighbours, Floats]:
    with threadpool_limits(limits=1):
        rows = slice(first, first + _ROWS_AT_ONCE)
        return nearest(read_array(vectors, on_disk=True), group, rows, settings.neighbours, settings.threshold)


def directions(vectors: Floats) -> Floats:
    """Vectors at length one; a zero vector stays zero and is like nothing."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


def nearest(vectors: Floats, group: Groups, rows: slice, count: int, threshold: float) -> tuple[Neighbours, Floats]:
    """For some rows the `count` vectors of the highest cosine, of other groups and from `threshold` on.

    Exact; ties go to the lower number. `vectors` is (n, width), of length one, `group`
    (n,). Returns numbers and cosines, (rows, count), −1 and NaN where there are fewer.
    """
    cosine = vectors[rows] @ vectors.T  # (rows, n)
    row, place = np.nonzero(cosine >= threshold)
    other = group[rows][row] != group[place]
    row, place = row[other], place[other]
    value = cosine[row, place]
    order = np.lexsort([place, -value, row])
    row, place, value = row[order], place[order], value[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    best = rank < count
    neighbours = np.full((len(cosine), count), -1, dtype=np.int32)
    similarities = np.full((len(cosine), count), np.nan, dtype=np.float32)
    neighbours[row[best], rank[best]] = place[best]
    similarities[row[best], rank[best]] = value[best]
    return neighbours, similarities

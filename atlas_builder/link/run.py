"""The link stage: similar behaviours of other units, and the cosines between the weights of two such units."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import LinkSettings
from atlas_builder.files import read_array
from atlas_builder.link.approximate_knn import nearest_by_index, write_inverted_files
from atlas_builder.link.exact_knn import (
    ROWS_AT_ONCE,
    Doubles,
    Floats,
    Nearest,
    Neighbours,
    Numbers,
    Points,
    cosines_of,
    directions,
    dots,
    lengths,
    merge_nearest,
    nearest,
    none_yet,
)
from atlas_builder.link.tsne import NEIGHBOURS, narrowed, places
from atlas_builder.progress import Progress

_RANGES, _LARGEST_RANGE = 16, 8192
"""Ranges of behaviours that are compared, about so many or of so many each."""
_PAIRS_DRAWN = 2**20
_ONE_IN = 1000
_SEED = 0


@dataclass(frozen=True)
class Links:
    """The results of the link stage. Behaviours are numbered across all layers, in order."""

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
    def weight_cosine(self) -> Floats:
        """Weight cosine of the two units: (behaviours, neighbours).

        The cosine between the output weights of the earlier layer's unit and the input
        weights of the later layer's, without the gains of norms between them. A gated unit
        has two input vectors; the one of the larger absolute cosine counts. NaN between
        units of one layer, where units do not read the residual stream, where weights are zero,
        and where there is no neighbour.
        """
        return read_array(self.folder / "wiring.npy")

    @cached_property
    def thresholds(self) -> Doubles:
        """The smallest cosine of neighbours for each pair of layers, in ascending order: (layers, layers).

        Either the configured value, the same for all, or the cosine that one in a thousand
        pairs of behaviours reaches, one of each layer and of different units: the lowest of
        the cosines at or above the quantile 0.999, over all such pairs where there are at
        most 2^20, else over 2^20 drawn with a fixed seed. Infinite where there is no pair.
        """
        return read_array(self.folder / "thresholds.npy")

    @cached_property
    def map(self) -> Floats:
        """The position of each behaviour on the map, from `tsne.places`: (behaviours, 2).

        NaN where a behaviour's vector is zero, or `link.map` is off.
        """
        return read_array(self.folder / "map.npy")

    @cached_property
    def address(self) -> NDArray[np.int32]:
        """Layer, unit and number of each behaviour: (behaviours, 3)."""
        return read_array(self.folder / "address.npy")

    def first_of(self, layer: int) -> int:
        """The number of a layer's first behaviour."""
        return int(np.searchsorted(self.address[:, 0], layer))


def link(
    collected: Collected, clustered: Path, settings: LinkSettings, folder: Path, executor: Executor, progress: Progress
) -> None:
    """Find each behaviour's neighbours and write them.

    As in the paper, two behaviours are compared by the cosine of the MLP inputs of their
    central examples, not of their embeddings, so that any two units are comparable;
    behaviours of one unit are not neighbours of each other.
    """
    layers = collected.layers
    behaviours = [Clustered(layer.layer, clustered).behaviours for layer in layers]
    address = _address(layers, behaviours)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        _write_points(layers, behaviours, address, scratch)
        thresholds = _thresholds([layer.layer for layer in layers], settings, scratch, executor, progress)
        # Places are found step by step on one core: the others search meanwhile.
        placed = _place(scratch, settings, executor, progress)
        neighbours, similarities = _neighbours(scratch, settings, settings.neighbours, thresholds, executor, progress)
        with progress.task("map", total=1, unit="map") as advance:
            np.save(folder / "map.npy", read_array(placed.result()))
            advance(1)
    np.save(folder / "address.npy", address)
    np.save(folder / "thresholds.npy", thresholds)
    np.save(folder / "neighbours.npy", neighbours)
    np.save(folder / "similarities.npy", similarities)
    np.save(folder / "wiring.npy", weight_cosine(layers, address, neighbours))


def _address(layers: Sequence[CollectedLayer], behaviours: Sequence[np.ndarray]) -> NDArray[np.int32]:
    """Layer, unit and number of each behaviour: (behaviours, 3)."""
    parts = [
        np.stack([np.full(len(part), layer.layer), part["unit"], part["id"]], axis=1)
        for layer, part in zip(layers, behaviours, strict=True)
    ]
    return np.concatenate(parts).astype(np.int32)


def _write_points(
    layers: Sequence[CollectedLayer], behaviours: Sequence[np.ndarray], address: NDArray[np.int32], folder: Path
) -> None:
    """Write `Points` to a folder, layer by layer, so that all inputs are never in memory at once."""
    width = layers[0].inputs.shape[1]
    starts = np.cumsum([0, *map(len, behaviours)])
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.dtype("<f4"), (len(address), width))
    zero = np.zeros(len(address), dtype=np.bool_)
    for layer, part, (first, end) in zip(layers, behaviours, pairwise(starts), strict=True):
        vectors[first:end] = directions(layer.reopened().inputs[part["row"]])
        zero[first:end] = ~vectors[first:end].any(axis=1)
    vectors.flush()
    _, unit = np.unique(address[:, :2], axis=0, return_inverse=True)
    for name, array in (("unit", unit.reshape(-1)), ("zero", zero), ("starts", starts)):
        np.save(folder / f"{name}.npy", array)


def _save_points(points: Points, folder: Path) -> None:
    for name, array in points._asdict().items():
        np.save(folder / f"{name}.npy", array)


def _read_points(folder: Path) -> Points:
    """What `_write_points` wrote, with the vectors memory-mapped."""
    unit, zero, starts = (read_array(folder / f"{name}.npy") for name in ("unit", "zero", "starts"))
    # A plain array of the mapped memory: numba need not compile for another type.
    return Points(np.asarray(read_array(folder / "vectors.npy", on_disk=True)), unit, zero, starts)


def _thresholds(
    layers: Sequence[int], settings: LinkSettings, folder: Path, executor: Executor, progress: Progress
) -> Doubles:
    """`Links.thresholds`, for points on disk: (layers, layers)."""
    if settings.threshold != "auto":
        return np.full((len(layers), len(layers)), settings.threshold, dtype=np.float64)
    thresholds = np.full((len(layers), len(layers)), np.inf)
    pairs = list(combinations_with_replacement(range(len(layers)), 2))
    tasks = [executor.submit(_threshold_on_disk, folder, a, b, [_SEED, layers[a], layers[b]]) for a, b in pairs]
    with progress.task("threshold", total=len(pairs), unit="pairs of layers") as advance:
        for (a, b), task in zip(pairs, tasks, strict=True):
            thresholds[a, b] = thresholds[b, a] = task.result()
            advance(1)
    return thresholds


def _threshold_on_disk(folder: Path, a: int, b: int, seed: Sequence[int]) -> float:
    return threshold(_read_points(folder), a, b, seed)


def threshold(points: Points, a: int, b: int, seed: Sequence[int]) -> float:
    """The cosine that one in a thousand pairs of behaviours reaches, defined at `Links.thresholds`.

    `a` and `b` are indices of layers, a ≤ b.
    """
    this, that = _pairs(points, a, b, seed)
    if not len(this):
        return float("inf")
    # An actual cosine, so that comparisons do not depend on how a mean of two is rounded.
    return float(np.quantile(cosines_of(points.vectors, this, that), 1 - 1 / _ONE_IN, method="higher"))


def _pairs(points: Points, a: int, b: int, seed: Sequence[int]) -> tuple[Numbers, Numbers]:
    """Behaviours of two layers, of different units, each pair once or drawn with replacement: (pairs,) twice."""
    first = np.arange(points.starts[a], points.starts[a + 1])
    last = points.starts[b + 1]
    # Behaviours are in the order of their units: partners begin after those of the same unit, or with the other layer.
    end_of_unit = np.searchsorted(points.unit, points.unit[first], side="right")
    partner = np.maximum(end_of_unit, points.starts[b])
    before = np.concatenate([[0], np.cumsum(last - partner)])  # pairs of all earlier behaviours
    total = int(before[-1])
    if total <= _PAIRS_DRAWN:
        pair = np.arange(total)
    else:  # in order, so that vectors are still in the cache
        pair = np.sort(np.random.default_rng(seed).integers(total, size=_PAIRS_DRAWN))
    place = np.searchsorted(before, pair, side="right") - 1
    return first[place], partner[place] + pair - before[place]


def is_approximate(behaviours: int, settings: LinkSettings) -> bool:
    """Whether the neighbours of so many behaviours are looked for among candidates alone."""
    return settings.approximate_above is not None and behaviours > settings.approximate_above


def _neighbours(
    folder: Path,
    settings: LinkSettings,
    count: int,
    thresholds: Doubles,
    executor: Executor,
    progress: Progress,
    name: str = "link",
) -> tuple[Neighbours, Floats]:
    """The nearest behaviours of all points on disk: (behaviours, neighbours) twice, −1 and NaN where there are fewer.

    Ranges of behaviours are compared in pairs, since a product serves both, or looked for one by one where the
    search is approximate; results are on disk, for workers on other machines.
    """
    total = len(read_array(folder / "unit.npy", on_disk=True))
    index = folder / "index" if is_approximate(total, settings) else None
    if index is not None:
        write_inverted_files(_read_points(folder), index)
    size = min(_LARGEST_RANGE, max(ROWS_AT_ONCE, -(-total // _RANGES)))
    ranges = [slice(first, min(first + size, total)) for first in range(0, total, size)]
    pairs = list(combinations_with_replacement(ranges, 2)) if index is None else [(part, part) for part in ranges]
    best = none_yet(total, count)
    tasks = [executor.submit(_nearest_on_disk, folder, *pair, count, thresholds, index) for pair in pairs]
    with progress.task(name, total=len(pairs), unit="blocks of behaviours") as advance:
        for (rows, columns), task in zip(pairs, tasks, strict=True):
            path = task.result()
            _take_in(best, path, rows, columns)
            path.unlink()
            advance(1)
    best.cosines[best.numbers < 0] = np.nan
    return best.numbers, best.cosines


def _nearest_on_disk(
    folder: Path, rows: slice, columns: slice, count: int, thresholds: Doubles, index: Path | None
) -> Path:
    """The file of the neighbours of two ranges of behaviours; of one range where there is an `index`."""
    # Results must not depend on the number of threads, and workers must not compete for cores.
    with threadpool_limits(limits=1):
        points = _read_points(folder)
        if index is None:
            of_rows, of_columns = nearest(points, rows, columns, count, thresholds)
        else:
            of_rows = of_columns = nearest_by_index(points, index, rows, count, thresholds)
    path = folder / f"nearest-{rows.start}-{columns.start}.npz"
    np.savez(
        path,
        rows_numbers=of_rows.numbers,
        rows_cosines=of_rows.cosines,
        columns_numbers=of_columns.numbers,
        columns_cosines=of_columns.cosines,
    )
    return path


def _take_in(best: Nearest, path: Path, rows: slice, columns: slice) -> None:
    """Merge the neighbours of two ranges of behaviours, which `_nearest_on_disk` wrote, into those of all."""
    with np.load(path, allow_pickle=False) as saved:
        for side, part in {"rows": rows, "columns": columns}.items():
            if side == "rows" or rows != columns:
                here = Nearest(best.numbers[part], best.cosines[part])
                merge_nearest(here, Nearest(saved[f"{side}_numbers"], saved[f"{side}_cosines"]))


def _place(folder: Path, settings: LinkSettings, executor: Executor, progress: Progress) -> Future[Path]:
    """The file of `Links.map`, (behaviours, 2), for points on disk, once a worker has written it."""
    points = _read_points(folder)
    placed = np.flatnonzero(~points.zero)
    narrow = folder / "narrow"
    narrow.mkdir()
    if settings.map:
        vectors = narrowed(points.vectors)[placed]
        # Each behaviour as a unit of its own, in one layer: here behaviours of one unit may be neighbours.
        separate = Points(vectors, np.arange(len(placed)), np.zeros(len(placed), np.bool_), np.array([0, len(placed)]))
        _save_points(separate, narrow)
        everything = np.full((1, 1), -1.0)
        neighbours, _ = _neighbours(narrow, settings, NEIGHBOURS, everything, executor, progress, "map")
        np.save(narrow / "neighbours.npy", neighbours)
    return executor.submit(_place_on_disk, folder, settings.map)


def _place_on_disk(folder: Path, wanted: bool) -> Path:
    """Write `Links.map` for points and their neighbours on disk."""
    zero = read_array(folder / "zero.npy")
    positions = np.full((len(zero), 2), np.nan, dtype=np.float32)
    if wanted:
        narrow = folder / "narrow"
        neighbours = read_array(narrow / "neighbours.npy")
        positions[~zero] = places(np.asarray(read_array(narrow / "vectors.npy", on_disk=True)), neighbours)
    np.save(folder / "map.npy", positions)
    return folder / "map.npy"


def weight_cosine(layers: Sequence[CollectedLayer], address: NDArray[np.int32], neighbours: Neighbours) -> Floats:
    """`Links.weight_cosine`, for `neighbours` (behaviours, neighbours) of `address` (behaviours, 3): their shape."""
    cosines = np.full(neighbours.shape, np.nan, dtype=np.float32)
    row, rank = np.nonzero(neighbours >= 0)  # (links,) each
    other = neighbours[row, rank]
    earlier, later = np.minimum(row, other), np.maximum(row, other)  # behaviours are numbered by layer
    place = np.searchsorted([layer.layer for layer in layers], address[:, 0])
    pair = place[later] * len(layers) + place[earlier]
    order = np.argsort(pair, kind="stable")
    ends = np.searchsorted(pair[order], np.arange(len(layers) ** 2 + 1))
    writes = [None if (weights := layer.write_weights) is None else _weights(weights) for layer in layers]
    for b, layer in enumerate(layers):
        reads = _weights(layer.read_weights)
        for a in range(b):
            links = order[ends[b * len(layers) + a] : ends[b * len(layers) + a + 1]]
            units = address[earlier[links], 1], address[later[links], 1]
            if (write := writes[a]) is not None:
                cosines[row[links], rank[links]] = _weight_cosines(write, reads, *units)
    return cosines


class _Weights(NamedTuple):
    vectors: Floats  # (…, units, width)
    lengths: Doubles  # (…, units)


def _weights(vectors: Floats) -> _Weights:
    return _Weights(np.asarray(vectors), lengths(vectors))


def _weight_cosines(writes: _Weights, reads: _Weights, earlier: Neighbours, later: Neighbours) -> Floats:
    """The largest cosine of (units, d_model) output weights with (parts, units, width) input weights: (links,).

    By absolute value, with its sign, the first part where they are equal. (links,) units each;
    NaN where the two widths differ, and where either's weights are zero.
    """
    if writes.vectors.shape[1] != reads.vectors.shape[2]:
        return np.full(len(earlier), np.nan, dtype=np.float32)
    length = writes.lengths[earlier] * reads.lengths[:, later]  # (parts, links)
    products = np.stack([dots(writes.vectors, part, earlier, later) for part in reads.vectors])
    cosines = np.divide(products, length, out=np.zeros_like(products), where=length > 0)
    cosines[:, ~(length > 0).any(axis=0)] = np.nan
    largest = np.abs(cosines).argmax(axis=0)
    strongest = np.take_along_axis(cosines, largest[None], axis=0)[0]
    clipped: Floats = np.clip(strongest, -1, 1).astype(np.float32)
    return clipped

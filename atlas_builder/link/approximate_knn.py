"""Candidates for neighbours where there are too many behaviours to compare all: an inverted file (Jégou et al. 2011).

faiss (Johnson et al. 2019) divides the vectors into lists around centres, and looks through the lists nearest to
each. What it returns is then compared exactly, so cosines and order are true; a neighbour in a list that was
not looked through is missed: one in 150 in a sample of the demo's, on 256,000 tokens.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.link.exact_knn import Doubles, Floats, Nearest, Points, nearest_among, none_yet

_LISTS_OF_ROOT = 4  # lists for each square root of the number of vectors
_TRAINED_ON = 64  # vectors for each list
_LOOKED_THROUGH = 8  # one list in so many
_CANDIDATES = 2  # for each neighbour, and `_OF_ONE_UNIT` more, which do not count
_OF_ONE_UNIT = 32
_ADDED_AT_ONCE = 65_536
_SEED = 1


def write_inverted_files(points: Points, folder: Path) -> None:
    """Write an inverted file of each layer's directions, in inner product, to a folder that is not there yet."""
    folder.mkdir()
    for layer, (first, end) in enumerate(pairwise(points.starts.tolist())):
        if end > first:
            _write_inverted_file(points.vectors[first:end], folder / f"{layer}.faiss")


def _write_inverted_file(vectors: Floats, path: Path) -> None:
    """Write an inverted file of (n, width) directions."""
    import faiss

    total, width = vectors.shape
    lists = max(1, min(total, round(_LISTS_OF_ROOT * total**0.5)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.min_points_per_centroid = 1
    chosen = np.unique(np.linspace(0, total - 1, min(total, _TRAINED_ON * lists)).astype(np.int64))
    index.train(np.ascontiguousarray(vectors[chosen]))
    for first in range(0, total, _ADDED_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[first : first + _ADDED_AT_ONCE]))
    index.nprobe = -(-lists // _LOOKED_THROUGH)
    faiss.write_index(index, str(path))


def nearest_by_index(points: Points, folder: Path, rows: slice, count: int, thresholds: Doubles) -> Nearest:
    """The neighbours of a range of behaviours among the candidates of indexes, as `exact_knn.nearest` compares them.

    Layers are searched one by one: with a threshold for each two layers, neighbours in another layer may be less
    similar than hundreds in the same one that are none. `thresholds` are the smallest cosines of neighbours in each
    two layers, (layers, layers).
    """
    import faiss

    faiss.omp_set_num_threads(1)
    asked = np.ascontiguousarray(points.vectors[rows])
    found: list[NDArray[np.int64]] = []
    for layer, (first, end) in enumerate(pairwise(points.starts.tolist())):
        if end > first:
            index = faiss.read_index(str(folder / f"{layer}.faiss"), faiss.IO_FLAG_MMAP)
            numbers = index.search(asked, min(end - first, _CANDIDATES * count + _OF_ONE_UNIT))[1]  # −1 for none
            found.append(np.where(numbers < 0, -1, numbers + first))
    best = none_yet(rows.stop - rows.start, count)
    if count and found:
        candidates = np.sort(np.concatenate(found, axis=1), axis=1)  # (rows, candidates)
        nearest_among(points, rows.start, candidates, thresholds, best.numbers, best.cosines)
    return best

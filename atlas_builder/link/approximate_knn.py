"""Candidates for neighbours where there are too many behaviours to compare all: an inverted file (Jégou et al. 2011).

faiss (Johnson et al. 2019) divides the vectors into lists around centres, and looks through the lists nearest to
each. What it returns is then compared exactly, so cosines and order are true; a neighbour in a list that was
not looked through is missed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.link.exact_knn import Doubles, Nearest, Points, nearest_among, none_yet

_LISTS_OF_ROOT = 4  # lists for each square root of the number of vectors
_TRAINED_ON = 64  # vectors for each list
_LOOKED_THROUGH = 8  # one list in so many
_CANDIDATES = 4  # for each neighbour, and `_OF_ONE_UNIT` more, which do not count
_OF_ONE_UNIT = 32
_ADDED_AT_ONCE = 65_536
_SEED = 1


def write_inverted_file(points: Points, path: Path) -> None:
    """Write an inverted file of (n, width) directions, in inner product."""
    import faiss

    total, width = points.vectors.shape
    lists = max(1, min(total, round(_LISTS_OF_ROOT * total**0.5)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    index.cp.min_points_per_centroid = 1
    chosen = np.unique(np.linspace(0, total - 1, min(total, _TRAINED_ON * lists)).astype(np.int64))
    index.train(np.ascontiguousarray(points.vectors[chosen]))
    for first in range(0, total, _ADDED_AT_ONCE):
        index.add(np.ascontiguousarray(points.vectors[first : first + _ADDED_AT_ONCE]))
    index.nprobe = -(-lists // _LOOKED_THROUGH)
    faiss.write_index(index, str(path))


def nearest_by_index(points: Points, path: Path, rows: slice, count: int, thresholds: Doubles) -> Nearest:
    """The neighbours of a range of behaviours among the candidates of an index, as `exact_knn.nearest` compares them.

    `thresholds` are the smallest cosines of neighbours in each two layers, (layers, layers).
    """
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    wanted = min(len(points.unit), _CANDIDATES * count + _OF_ONE_UNIT)
    found: NDArray[np.int64] = index.search(np.ascontiguousarray(points.vectors[rows]), wanted)[1]  # −1 for none
    best = none_yet(rows.stop - rows.start, count)
    if count:
        nearest_among(points, rows.start, np.sort(found, axis=1), thresholds, best.numbers, best.cosines)
    return best

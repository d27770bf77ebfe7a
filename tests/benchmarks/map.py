"""How long the map of a large atlas takes, and how much memory.

Run as a script: `python -m tests.benchmarks.map`. 110,000 directions of width 768
about 2,000 centres: their axes, their neighbours in two processes, their places in one.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from atlas_builder.config import LinkSettings
from atlas_builder.link import run
from atlas_builder.link.exact_knn import Floats, Points, cosines_of, directions
from atlas_builder.progress import Progress

CLUSTERS, CORES, SHOWN = 2000, 2, 10


def main(behaviours: int = 110_000, width: int = 768) -> None:
    """Print seconds, memory, and the share of the ten nearest that are among the ten nearest on the map."""
    with (
        TemporaryDirectory() as name,
        ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool,
    ):
        folder = Path(name)
        vectors = _vectors(behaviours, width)
        run._save_points(
            Points(vectors, np.arange(behaviours), np.zeros(behaviours, np.bool_), np.array([0, behaviours])), folder
        )
        started, used = time.perf_counter(), time.process_time()
        found = np.load(run._place(folder, LinkSettings(), pool, Progress()).result())
        print(f"{behaviours:,} behaviours of width {width}, {CORES} processes")
        print(
            f"the map {time.perf_counter() - started:.1f} s, {time.process_time() - used:.1f} s of them in one process"
        )
    print(f"{_kept(vectors, found):.2f} of the {SHOWN} nearest are among the {SHOWN} nearest on the map")
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"the workers' processors were busy for {workers.ru_utime:.1f} s, their start included")
    parent, child = (found.ru_maxrss / 2**20 for found in (own, workers))
    print(f"peak memory {parent:.2f} GiB in the parent, {child:.2f} GiB in the largest worker, mapped files included")


def _vectors(behaviours: int, width: int) -> Floats:
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(CLUSTERS, width)).astype(np.float32)
    found = centres[chance.integers(CLUSTERS, size=behaviours)]
    return directions(found + chance.standard_normal(found.shape, dtype=np.float32))


def _kept(vectors: Floats, places: Floats, sample: int = 500) -> float:
    """For some behaviours, the share of their nearest that stay nearest."""
    kept = []
    for row in np.random.default_rng(1).choice(len(vectors), sample, replace=False):
        near = cosines_of(vectors, np.full(len(vectors), row), np.arange(len(vectors)))
        apart = ((places - places[row]) ** 2).sum(axis=1)
        near[row], apart[row] = -np.inf, np.inf
        kept.append(len(set(np.argsort(-near)[:SHOWN]) & set(np.argsort(apart)[:SHOWN])) / SHOWN)
    return float(np.mean(kept))


if __name__ == "__main__":
    main(*(int(count) for count in sys.argv[1:3]))

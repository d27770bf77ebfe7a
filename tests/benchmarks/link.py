"""The link stage beside its bare matrix product: `python -m tests.benchmarks.link [BEHAVIOURS] [WIDTH]`.

Random vectors in clusters, over 12 layers of 3,072 units. The product is of all behaviours with
all, in the same processes; the stage takes half of it, since a product serves both of two
behaviours, and does all the rest but the map.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.run import BEHAVIOUR
from atlas_builder.collect.results import Collected, example_type
from atlas_builder.config import LinkSettings
from atlas_builder.files import read_array, write_json
from atlas_builder.link import exact_knn, run
from atlas_builder.progress import Progress

LAYERS, UNITS, CLUSTERS, CORES = 12, 3072, 2000, 2


def main(behaviours: int = 110_000, width: int = 768) -> None:
    """Print seconds of both, their ratio, and the most memory of any process."""
    with (
        TemporaryDirectory() as name,
        ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool,
    ):
        folder = Path(name)
        for part in ("warm", "collect", "link"):
            (folder / part).mkdir()
        _write(folder / "warm", 24, width)
        _link(folder / "warm", folder / "link", pool)  # the workers start, kernels compile
        _write(folder / "collect", behaviours, width)
        started = time.perf_counter()
        _link(folder / "collect", folder / "link", pool)
        stage = time.perf_counter() - started
        found = run.Links(folder / "link").neighbours >= 0
        product = _product(folder / "collect", folder, pool)
        exact = run.Links(folder / "link").neighbours.copy()
        started = time.perf_counter()
        _link(folder / "collect", folder / "link", pool, approximate_above=1)
        search = time.perf_counter() - started
        recall = _recall(run.Links(folder / "link").neighbours, exact)
    print(f"{behaviours:,} behaviours of width {width}, {LAYERS} layers, {CORES} processes")
    print(f"the bare matrix product {product:8.1f} s")
    print(f"the link stage          {stage:8.1f} s {stage / product:6.2f} ×")
    print(f"approximate search      {search:8.1f} s {search / product:6.2f} ×, finds {recall:.1%} of them")
    print(f"{found.sum(axis=1).mean():.1f} neighbours a behaviour")
    parent, child = (
        resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"peak memory {parent:.2f} GiB in the parent, {child:.2f} GiB in the largest worker, mapped files included")


def _link(collected: Path, folder: Path, pool: Executor, approximate_above: int | None = None) -> None:
    settings = LinkSettings(map=False, approximate_above=approximate_above)
    run.link(Collected(collected), collected, settings, folder, pool, Progress(quiet=True))


def _recall(found: exact_knn.Neighbours, exact: exact_knn.Neighbours) -> float:
    """The share of the neighbours of all behaviours that an approximate search finds."""
    hits = [np.isin(one[one >= 0], other).sum() for one, other in zip(exact, found, strict=True)]
    return float(sum(hits) / (exact >= 0).sum())


def _write(folder: Path, behaviours: int, width: int) -> None:
    """Write what the link stage reads of earlier stages, behaviours spread over units by chance."""
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(CLUSTERS, width)).astype(np.float32)
    write_json(folder / "facts.json", {"layers_read": list(range(LAYERS))})
    for layer, count in enumerate(len(part) for part in np.array_split(np.arange(behaviours), LAYERS)):
        place = folder / f"L{layer}"
        place.mkdir()
        inputs = centres[chance.integers(CLUSTERS, size=count)]
        inputs = inputs + chance.normal(size=inputs.shape).astype(np.float32)
        inputs.tofile(place / "inputs.f32")
        write_json(place / "layer.json", {"width": width})
        np.save(place / "examples.npy", np.zeros(0, example_type(1)))
        np.save(place / "read.npy", chance.normal(size=(1, UNITS, width)).astype(np.float32))
        np.save(place / "write.npy", chance.normal(size=(UNITS, width)).astype(np.float32))
        found = np.zeros(count, dtype=BEHAVIOUR)
        found["unit"] = np.sort(chance.integers(UNITS, size=count))
        found["id"] = np.arange(count) - np.searchsorted(found["unit"], found["unit"])
        found["row"] = np.arange(count)
        np.save(folder / f"L{layer}.behaviours.npy", found)


def _product(collected: Path, folder: Path, pool: Executor) -> float:
    """Seconds for every block of the matrix product and nothing else."""
    inputs = np.concatenate([layer.inputs for layer in Collected(collected).layers])
    np.save(folder / "vectors.npy", inputs)
    starts = np.cumsum([0, *(len(layer.inputs) for layer in Collected(collected).layers)])
    started = time.perf_counter()
    tasks = [
        pool.submit(_multiply, folder / "vectors.npy", starts, rows, exact_knn.COLUMNS_AT_ONCE)
        for _, rows in exact_knn.blocks_between(starts, slice(0, starts[-1]), exact_knn.ROWS_AT_ONCE)
    ]
    for task in tasks:
        task.result()
    return time.perf_counter() - started


def _multiply(path: Path, starts: exact_knn.Numbers, rows: slice, columns: int) -> None:
    with threadpool_limits(limits=1):
        vectors = read_array(path, on_disk=True)
        total = rows.stop - rows.start
        room = np.empty(total * columns, dtype=np.float32)
        for _, part in exact_knn.blocks_between(starts, slice(0, starts[-1]), columns):
            product = room[: total * (part.stop - part.start)].reshape(total, -1)
            np.matmul(vectors[rows], vectors[part].T, out=product)


if __name__ == "__main__":
    main(*(int(count) for count in sys.argv[1:3]))

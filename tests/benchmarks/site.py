"""The publish stage on a generated atlas: `python -m tests.benchmarks.site [LAYERS UNITS] [--keep DIR] [--work DIR]`.

By default 12 layers of 3,072 units with about three behaviours each, for GitHub Pages,
over two processes. `--keep` leaves the site there; `--work` keeps the generated stages,
which take longer than the site, for another run.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import re
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from types import FrameType

import psutil

from atlas_builder.config import Configuration
from atlas_builder.files import Store
from atlas_builder.pipeline import build
from atlas_builder.progress import Progress
from atlas_builder.records.record import LayerRecords
from atlas_builder.records.schema import content_hash
from atlas_builder.records.stages import Stages
from atlas_builder.workspace import work_folder
from tests.benchmarks.generated import Shape, configuration, generate, restamp

CORES = 2
_UNITS = 256  # rendered in this process, for the parts of a unit
_FILES_AT_ONCE = 256


@dataclass
class Watch:
    """What a block of code spends: seconds, by the functions it calls, and memory."""

    steps: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of each function that the publish stage calls, or the build around it."""
    seconds: float = 0.0
    work: float = 0.0
    """Seconds of processor time, workers included."""
    parent: int = 0
    worker: int = 0
    """Most bytes of memory of this process and of any worker, mapped files included."""
    together: int = 0
    """Most bytes of all processes, what they share counted once."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the block, by looking at this thread a hundred times a second."""
        over, main = threading.Event(), threading.get_ident()
        watcher = threading.Thread(target=self._watch, args=(over, main), daemon=True)
        before, started = _processor_time(), time.perf_counter()
        watcher.start()
        try:
            yield
        finally:
            self.seconds = time.perf_counter() - started
            self.work = _processor_time() - before
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event, main: int) -> None:
        last, looked = time.perf_counter(), 0.0
        while not over.wait(0.01):
            now = time.perf_counter()
            self.steps[_step(sys._current_frames().get(main))] += now - last
            last = now
            if now - looked > 1:
                looked = now
                self._weigh()

    def _weigh(self) -> None:
        this = psutil.Process()
        self.parent = max(self.parent, this.memory_info().rss)
        together = this.memory_full_info().pss
        for child in this.children(recursive=True):
            try:
                self.worker = max(self.worker, child.memory_info().rss)
                together += child.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        self.together = max(self.together, together)


def _processor_time() -> float:
    """Seconds that this process and its workers have used so far."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (this, *this.children(recursive=True)))


def _step(frame: FrameType | None) -> str:
    """The function that `publish` calls in a stack, or, outside it, the build."""
    inner = ""
    while frame is not None:
        name = f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_name}".removeprefix("atlas_builder.")
        if name == "site.publish._write_units":
            return "units"
        if name == "site.publish.publish":
            return inner or name
        if name == "pipeline.build":
            return inner or name
        inner = name
        frame = frame.f_back
    return "elsewhere"


def main(arguments: list[str] | None = None) -> None:
    """Generate, publish and measure."""
    parser = argparse.ArgumentParser(description="The publish stage on a generated atlas.")
    parser.add_argument("shape", nargs="*", type=int, metavar="LAYERS UNITS")
    parser.add_argument("--keep", type=Path, help="where the site is left")
    parser.add_argument("--work", type=Path, help="where the generated stages are left, and taken from")
    options = parser.parse_args(arguments)
    layers, units = options.shape or (Shape.layers, Shape.units)
    shape = Shape(layers=layers, units=units)
    settings = configuration(shape)
    with TemporaryDirectory() as scratch, pool() as workers:
        site = (options.keep or Path(scratch) / "site").resolve()
        work = (options.work or Path(scratch) / "work").resolve()
        _stages(shape, settings, work, workers)
        link = work_folder(site)
        if link != work:
            link.unlink(missing_ok=True)
            link.symlink_to(work, target_is_directory=True)
        shutil.rmtree(work / "publish", ignore_errors=True)
        list(workers.map(abs, range(CORES)))
        watch = Watch()
        with watch.watching():
            build.build(settings, site, executor=workers, progress=Progress())
        _print_speed(watch, layers * units)
        _print_parts(settings, work, site, watch, layers * units, workers)
        _print_sizes(site)
        if link != work:
            link.unlink()


@contextmanager
def pool() -> Iterator[Executor]:
    """Two worker processes, as a build has on two cores."""
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as workers:
        yield workers


def _stages(shape: Shape, settings: Configuration, work: Path, workers: Executor) -> None:
    """Generate the stages before publish, unless they are there."""
    if Store(work).folder("link").exists():
        restamp(settings, work)
        return
    started = time.perf_counter()
    generate(shape, settings, work, workers, Progress())
    print(f"generated in {time.perf_counter() - started:.0f} s, {_bytes(work) / 1e9:.2f} GB of stages")


def _print_speed(watch: Watch, units: int) -> None:
    rendered = watch.steps["units"]
    print(f"{units:,} units over {CORES} processes")
    print(f"the publish stage    {watch.seconds:8.1f} s {units / watch.seconds:8,.0f} units/s")
    print(f"  of which units     {rendered:8.1f} s {units / rendered:8,.0f} units/s")
    for name, seconds in sorted(watch.steps.items(), key=lambda entry: -entry[1]):
        if name != "units" and seconds >= 0.1:
            print(f"  {name:32} {seconds:.1f} s")
    print(f"processor time       {watch.work:8.1f} s {CORES * units / watch.work:8,.0f} units/s on {CORES} idle cores")
    print(
        f"peak memory {watch.parent / 2**30:.2f} GiB in the parent, {watch.worker / 2**30:.2f} in a worker, "
        f"{watch.together / 2**30:.2f} together with what they share counted once"
    )


def _print_parts(settings: Configuration, work: Path, site: Path, watch: Watch, units: int, workers: Executor) -> None:
    """What a unit's parts cost on their own, in this process, and the same bytes written by the workers."""
    each = 1000 * CORES * watch.steps["units"] / units
    stages = Stages(*(work / stage for stage in ("collect", "cluster", "describe", "link")))
    layer = stages.collected.layers[0]
    made = LayerRecords(stages, layer, settings)
    made.record(0)
    started = time.perf_counter()
    found = [made.record(unit) for unit in range(min(_UNITS, layer.units))]
    record = time.perf_counter() - started
    started = time.perf_counter()
    for entry in found:
        content_hash(entry)
    hashed = time.perf_counter() - started
    written = _same_bytes(site, workers)
    times = watch.steps["units"] / written
    print(f"a unit, one process  {each:8.2f} ms")
    print(
        f"  its record         {1000 * record / len(found):8.2f} ms, of which its hash {1000 * hashed / len(found):.2f}"
    )
    print(f"  its bytes written  {1000 * CORES * written / units:8.2f} ms: units take {times:.1f} ×")


def _same_bytes(site: Path, workers: Executor) -> float:
    """Seconds of both workers to write the site's unit pages and records anew, and nothing else."""
    files = sorted(site.glob("L*/N*"))
    parts = [files[first : first + _FILES_AT_ONCE] for first in range(0, len(files), _FILES_AT_ONCE)]
    with TemporaryDirectory(dir=site.parent) as scratch:
        for layer in {file.parent.name for file in files}:
            (Path(scratch) / layer).mkdir()
        return sum(workers.map(_copy, parts, [Path(scratch)] * len(parts))) / CORES


def _copy(files: list[Path], folder: Path) -> float:
    contents = [(folder / file.parent.name / file.name, file.read_bytes()) for file in files]
    started = time.perf_counter()
    for path, content in contents:
        path.write_bytes(content)
    return time.perf_counter() - started


def _print_sizes(site: Path) -> None:
    parts: dict[str, list[int]] = defaultdict(list)
    for path in site.rglob("*"):
        if path.is_file():
            parts[_part(path.relative_to(site))].append(path.stat().st_size)
    whole = sum(map(sum, parts.values()))
    files = sum(map(len, parts.values()))
    print(f"the site {whole / 1e6:,.1f} MB in {files:,} files (limit 900 MB)")
    for name, sizes in sorted(parts.items(), key=lambda entry: -sum(entry[1])):
        print(
            f"  {name:16} {sum(sizes) / 1e6:8.2f} MB {len(sizes):7,} files, "
            f"mean {mean(sizes) / 1000:8.2f} kB, median {median(sizes) / 1000:8.2f}, largest {max(sizes) / 1000:.1f}"
        )
    for name, limit in (("unit pages", 12), ("records", 10)):
        print(f"mean of {name} {mean(parts[name]) / 1000:.2f} kB (limit {limit})")
    page = next(site.glob("L*/N*.html"))
    shared = shared_files(page)
    sizes = [len(gzip.compress(path.read_bytes(), mtime=0)) for path in shared]
    print(f"a unit page's style and scripts {sum(sizes) / 1000:.1f} kB gzipped (limit 60):")
    print("  " + ", ".join(f"{path.name} {size / 1000:.1f}" for path, size in zip(shared, sizes, strict=True)))


def shared_files(page: Path) -> list[Path]:
    """The style sheets and scripts that a page names."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"<link rel=\"?stylesheet\"? href=\"?([^\" >]+)|<script[^>]* src=\"?([^\" >]+)", text)
    return [(page.parent / (style or script)).resolve() for style, script in named]


def _part(path: Path) -> str:
    if re.fullmatch(r"L\d+", path.parts[0]):
        own = re.fullmatch(r"N\d+", path.stem) is not None
        return {".html": "unit pages" if own else "layer pages", ".json": "records"}.get(path.suffix, "layer tables")
    return path.parts[0] if len(path.parts) > 1 else "other pages" if path.suffix == ".html" else path.name


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()

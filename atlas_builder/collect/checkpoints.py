"""Shards of the pass: their batches, and checkpoints from which an interrupted pass continues."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.layer import LayerCollector, LayerShape
from atlas_builder.config import ExampleSettings
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.files import digests, read_json, write_json
from atlas_builder.models.memory import batch_tokens

_MARK = "pass.json"


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `of`, counted from 1."""

    number: int = 1
    of: int = 1

    def batches(self, contexts: Contexts, shapes: Sequence[LayerShape]) -> list[NDArray[np.int64]]:
        """The batches of this shard: every n-th, so that all shards take about equally long."""
        tokens = batch_tokens(max(shape.units for shape in shapes))
        return list(contexts.batches(tokens))[self.number - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE = Shard()


class Collectors:
    """The collectors of all layers, with checkpoints in a folder.

    The mark in the folder names the valid checkpoint. It changes atomically, so a process
    that ends at any moment leaves the last checkpoint intact.
    """

    def __init__(
        self, shapes: list[LayerShape], examples: ExampleSettings, folder: Path, executor: Executor, threads: int
    ) -> None:
        self.folder = folder
        mark = read_json(folder / _MARK) if (folder / _MARK).exists() else None
        kept = None if mark is None else int(mark["batches"])
        self._kept = kept
        self.done = kept or 0
        """Batches collected, and those of a second run."""
        self.reads_again: bool | None = None if mark is None else bool(mark.get("reads_again"))
        """Whether a second run reads windows and inputs; None where that is still to be decided."""
        self.at_once: list[list[int]] = [] if mark is None else list(mark.get("at_once", ()))
        """[batch, tokens]: from which batch on how many tokens were run at once at most."""
        self.layers = {
            shape.layer: LayerCollector(
                shape,
                examples,
                folder / f"L{shape.layer}",
                executor,
                threads,
                None if kept is None else self._saved / f"L{shape.layer}.npz",
            )
            for shape in shapes
        }

    @property
    def _saved(self) -> Path:
        return self.folder / f"after-{self.done}"

    def checkpoint(self) -> None:
        """Write a checkpoint, and remove the earlier ones."""
        if self._kept == self.done:
            return
        shutil.rmtree(self._saved, ignore_errors=True)
        self._saved.mkdir()
        for layer, collector in self.layers.items():
            collector.save(self._saved / f"L{layer}.npz")
        saved = [path.relative_to(self.folder).as_posix() for path in self._saved.iterdir()]
        logs = [log for collector in self.layers.values() for log in collector.logs]
        mark = {
            "batches": self.done,
            "reads_again": bool(self.reads_again),
            "at_once": self.at_once,
            "files": digests(self.folder, sorted(saved)),
            "logs": {log.path.relative_to(self.folder).as_posix(): log.bytes for log in logs},
        }
        write_json(self.folder / _MARK, mark)
        self._kept = self.done
        for other in self.folder.glob("after-*"):
            if other != self._saved:
                shutil.rmtree(other)
        for collector in self.layers.values():
            collector.clean()


def checkpoint_damage(folder: Path, *, on_device: bool = False) -> str | None:
    """What is wrong with the checkpoint in a folder; None where there is none, or it can be gone on from.

    Logs are long: of them only the length is known. Without the engine `on_device`, a pass whose second
    run is to read inputs cannot be gone on with.
    """
    if not (folder / _MARK).exists():
        return None
    try:
        mark = read_json(folder / _MARK)
        batches, files, logs = int(mark["batches"]), dict(mark["files"]), dict(mark["logs"])
        if mark.get("reads_again") and not on_device:
            return "it was begun by model.engine device, which logs no inputs"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{_MARK} is not what was written"
    now = digests(folder, list(files))
    if altered := [name for name, digest in files.items() if now[name] != digest]:
        return f"{altered[0]} is not what was written after {batches} batches"
    short = [name for name, size in logs.items() if not _has_bytes(folder / name, size)]
    return f"{short[0]} is missing or has lost its end" if short else None


def _has_bytes(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size >= size


@contextmanager
def collectors(shapes: list[LayerShape], examples: ExampleSettings, folder: Path, threads: int) -> Iterator[Collectors]:
    """The collectors of a folder, new ones where it is empty, with a pool of threads."""
    with ThreadPoolExecutor(threads) as pool:
        opened = Collectors(shapes, examples, folder, pool, threads)
        try:
            yield opened
        finally:
            for collector in opened.layers.values():
                collector.close()

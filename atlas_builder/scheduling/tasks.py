"""A task on a worker: one at a time in a process, on its device, with its share of the cores."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from atlas_builder.errors import AtlasError
from atlas_builder.progress import Advance, Progress
from atlas_builder.scheduling.agreement import HEAD, WorkerTerms, check_worker, device_on_worker, worker_facts
from atlas_builder.scheduling.arrays import StoredResult, store_arrays
from atlas_builder.workspace import cores

_ONE_AT_A_TIME = threading.Lock()
"""Hooks of a model and limits of threads are those of the process, so that a worker of many threads runs one task."""
_SECONDS_BETWEEN_LOOKS = 5.0
_AGREED: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Task:
    """A function that is run on a worker; one that runs the model is given a `TaskContext` first."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    runs_model: bool


@dataclass(frozen=True)
class Reply:
    """What a task gave: its result, with arrays in a file, what it said, and where it ran."""

    result: StoredResult
    lines: tuple[str, ...]
    worker: str


class BuildEndedError(AtlasError):
    """The build that submitted a task has ended, so that the task ends too."""


class RemoteProgress(Progress):
    """Keeps what a task says for the build, and ends the task when the build has ended."""

    def __init__(self, terms: WorkerTerms) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []
        self._head, self._last = terms.folder / HEAD, time.monotonic()

    def say(self, text: str) -> None:
        """Keep a line; the build prints it when the task is done."""
        self.lines.append(text)

    def check(self) -> None:
        """Raise `BuildEndedError` where the build that submitted the task has ended."""
        if not self._head.exists():
            raise BuildEndedError("the build that wanted this has ended.")

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
        """Follow work, for nobody to see."""

        def advance(count: int, note: str = "") -> None:
            if time.monotonic() - self._last > _SECONDS_BETWEEN_LOOKS:
                self._last = time.monotonic()
                self.check()

        yield advance


@dataclass(frozen=True)
class TaskContext:
    """Where a task runs that runs the model: its build, the device of its worker, and the one to report to."""

    build: str
    worker: str
    device: str
    progress: RemoteProgress


def run_task(task: Task, terms: WorkerTerms) -> Reply:
    """Run a task on the worker that this process is.

    Raises `ConfigurationError` where the worker is not as those that the build began with, and what the
    function raises.
    """
    from distributed import get_worker

    worker = get_worker()
    name, progress = str(worker.name), RemoteProgress(terms)
    with _ONE_AT_A_TIME:
        progress.check()
        _check_once(terms if task.runs_model else terms.without_device(), name)
        if task.runs_model:
            _take_share_of_cores(int(worker.state.nthreads), terms)
            context = TaskContext(terms.token, name, device_on_worker(terms.device, name), progress)
            result = task.function(context, *task.arguments)
        else:
            result = task.function(*task.arguments)
        return Reply(store_arrays(result, terms.folder), tuple(progress.lines), name)


def _check_once(terms: WorkerTerms, name: str) -> None:
    """Check this worker, once a build: it may have come after those that the build began with."""
    if (terms.token, terms.device) not in _AGREED:
        check_worker(name, worker_facts(terms, name), terms)
        _AGREED.add((terms.token, terms.device))


def _take_share_of_cores(threads: int, terms: WorkerTerms) -> None:
    """Give torch the worker's threads or, where that is more, its share of the machine's cores.

    A nanny starts its worker with OMP_NUM_THREADS=1, and workers have one thread as often as not, since a
    worker runs one task at a time.
    """
    import torch

    beside = (terms.sharing or {}).get(platform.node(), cores())  # one that came later takes no more than it was given
    torch.set_num_threads(max(1, threads, cores() // max(1, beside)))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # what loads only now

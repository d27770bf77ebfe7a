"""An executor whose tasks run on the workers of a Dask scheduler."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas_builder.errors import AtlasError
from atlas_builder.progress import Progress
from atlas_builder.scheduling.agreement import WorkerTerms
from atlas_builder.scheduling.arrays import load_arrays
from atlas_builder.scheduling.tasks import Reply, Task, run_task

if TYPE_CHECKING:
    from distributed import Client

SHARDS_A_WORKER = 4
"""Shards of a pass for each worker: a lost one costs little, and fast workers take more of them."""


class WorkerError(AtlasError):
    """Workers, or the scheduler, were lost."""


@dataclass(frozen=True)
class FinishedTask:
    """A task that was done, and the name of the worker that did it."""

    task: str
    worker: str


class TaskFuture(Future[Any]):
    """The result of a task; its arrays are read from their file when it is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self._reading, self._read = name, threading.Lock(), False
        self._whole: Any = None

    def result(self, timeout: float | None = None) -> Any:
        """The result; raises `WorkerError` where the scheduler was lost."""
        try:
            stored = super().result(timeout)
        except CancelledError:
            raise WorkerError(
                f"{self._name}: the scheduler was lost or has dropped it: see its log, then run the command again; "
                "what is finished is kept."
            ) from None
        with self._reading:
            if not self._read:
                self._whole, self._read = load_arrays(stored), True
            return self._whole


class ClusterExecutor(Executor):
    """Submits tasks to the workers of a client's scheduler; those that run the model go to `resources`.

    Functions and arguments are sent, so both are small: paths, not arrays. Results are what the function
    returned, its arrays by way of a file in the folder of `terms`.
    """

    def __init__(
        self, client: Client, terms: WorkerTerms, resources: dict[str, float], workers: int, progress: Progress
    ) -> None:
        self._client, self._terms, self._progress = client, terms, progress
        # Equal arguments are to run as often as they are submitted.
        self._plain: Any = client.get_executor(pure=False)
        self._with_device: Any = client.get_executor(pure=False, resources=resources) if resources else self._plain
        self._open: set[Future[Reply]] = set()
        self._lock = threading.Lock()
        self.shards = SHARDS_A_WORKER * workers
        """In how many shards to divide a pass; results do not depend on it."""
        self.finished: list[FinishedTask] = []
        """The tasks that were done, in order."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on any worker."""
        if kwargs:
            raise TypeError("tasks take arguments by position")
        return self._submit(Task(function.__name__.strip("_").replace("_", " "), function, args, False))

    def submit_to_model(self, name: str, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function that takes a `TaskContext` first on a worker that has the device of the model."""
        return self._submit(Task(name, function, args, True))

    def end(self) -> None:
        """Cancel all tasks; those that run the model end within seconds, when the folder of the build is gone."""
        with self._lock:
            waiting = list(self._open)
        for future in waiting:
            future.cancel()

    def run_on_workers(self, function: Callable[[], None]) -> None:
        """Run a function once on every worker that can be reached."""
        with suppress(Exception):  # it frees memory of theirs: what is gone needs it no more
            self._client.run(function, on_error="ignore")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for all tasks, or cancel them."""
        if cancel_futures:
            self.end()
        self._plain.shutdown(wait=wait)
        self._with_device.shutdown(wait=wait)

    def _submit(self, task: Task) -> Future[Any]:
        executor = self._with_device if task.runs_model else self._plain
        outer = TaskFuture(task.name)
        # The name is what Dask's dashboard and its messages show.
        key = f"{task.name}-{secrets.token_hex(6)}"
        inner: Future[Reply] = executor.submit(run_task, task, self._terms, key=key)
        with self._lock:
            self._open.add(inner)
        inner.add_done_callback(lambda done: self._conclude(task, done, outer))
        return outer

    def _conclude(self, task: Task, inner: Future[Reply], outer: TaskFuture) -> None:
        """Hand on how a task ended; called by the thread of the client, so that nothing is read here."""
        with self._lock:
            self._open.discard(inner)
        if inner.cancelled():
            outer.cancel()
            outer.set_running_or_notify_cancel()
        elif (error := inner.exception()) is not None:
            outer.set_exception(_explained(task.name, error))
        else:
            reply = inner.result()
            self.finished.append(FinishedTask(task.name, reply.worker))
            for line in reply.lines:
                self._progress.say(line)
            outer.set_result(reply.result)


def _explained(name: str, error: BaseException) -> BaseException:
    """An error of a task; that its workers ended is one sentence which names it."""
    from distributed.scheduler import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    times = error.allowed_failures + 1
    return WorkerError(
        f"{name}: the worker that ran it was lost {times} times, the last was {error.last_worker.address}: see its log "
        "for why it ended (most often memory), then run the command again; what is finished is kept."
    )

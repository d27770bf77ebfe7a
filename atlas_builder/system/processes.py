"""Worker processes, none of which outlives its parent, however that ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol, runtime_checkable

from atlas_builder.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1


@runtime_checkable
class CanEnd(Protocol):
    """An executor whose tasks can be ended."""

    def end(self) -> None:
        """End all tasks, whatever they are at."""


class Workers(ProcessPoolExecutor):
    """Processes for the pieces of a stage; they end with their parent, and at once on `end`."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        asked: Any = (_StartedByMainThread(),)  # a bool by the time that the worker is given it
        super().__init__(count, context, _follow_parent, asked)

    def end(self) -> None:
        """Kill all workers, whatever they are at."""
        for process in list((self._processes or {}).values()):
            process.kill()


def check_not_imported_again() -> None:
    """Raise `ConfigurationError` in a worker that imports the script that called it, and would call it again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(
            "a script that builds is imported by its worker processes: put the call below if __name__ == '__main__':, "
            "so that they do not build too."
        )


@contextmanager
def ended_on_failure(executor: Executor) -> Iterator[None]:
    """End the workers when the block fails, so that none of them still writes what is no longer wanted."""
    try:
        yield
    except BaseException:
        if isinstance(executor, CanEnd):
            executor.end()
        raise


class _StartedByMainThread:
    """Whether a worker was started by its parent's main thread: a bool once it arrives there."""

    def __reduce__(self) -> tuple[Callable[..., bool], tuple[Any, ...]]:
        return bool, (threading.current_thread() is threading.main_thread(),)


def _follow_parent(started_by_main_thread: Any) -> None:
    """Make this process end when its parent does, and leave Ctrl-C and hang-ups to the parent."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # The thread needs Python's lock, which a library may hold for long: Linux can do without. It
    # tells of the end of the thread that started the process, so it is asked for the main one only.
    if sys.platform == "linux" and started_by_main_thread:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent.pid:  # it ended before it could be followed
            os._exit(1)

"""Compiled loops on disk: whether a process would load them, or compile them first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any


def is_compiled(loop: Any) -> bool:
    """Whether numba's cache holds a function that it compiles, newer than its source."""
    source = Path(loop.py_func.__code__.co_filename)
    folder = Path(loop.stats.cache_path)
    try:
        written = source.stat().st_mtime
        # Numba's index of a function is named after its module, its name and its first line.
        name = f"{source.stem}.{loop.py_func.__name__}-{loop.py_func.__code__.co_firstlineno}.*.nbi"
        return any(index.stat().st_mtime >= written for index in folder.glob(name))
    except OSError:
        return False


def submit_all(
    executor: Executor, task: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], loop: Any
) -> list[Future[Any]]:
    """Submit a task for each of the arguments; where its loops are not compiled yet, the first one goes alone.

    All workers would compile the same loops at once, where the others can load what the first one has
    written. `loop` is the function that the task compiles last.
    """
    first_alone = not is_compiled(loop)
    tasks: list[Future[Any]] = []
    for each in arguments:
        tasks.append(executor.submit(task, *each))
        if first_alone and len(tasks) == 1:
            tasks[0].exception()  # its result is asked for later, and says what failed
    return tasks

"""Arrays of a task's result go through a file on shared storage; the scheduler carries its path."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SECONDS_UNTIL_SEEN = 60.0
"""How long a file of another machine may take until this one sees it: network storage remembers what was not there."""


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array of a result is: its number in the file of the result."""

    number: int


@dataclass(frozen=True)
class StoredResult:
    """A result whose arrays are in a file: `outline` has an `ArrayPlace` for each."""

    outline: Any
    file: Path | None


def store_arrays(result: Any, folder: Path) -> StoredResult:
    """Write the arrays of a result, tuples, lists and dictionaries of any depth, to a file of their own in `folder`."""
    arrays: dict[str, Any] = {}

    def place(array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:  # objects would be pickled
            return array
        arrays[str(len(arrays))] = array
        return ArrayPlace(len(arrays) - 1)

    outline = _mapped(result, place)
    if not arrays:
        return StoredResult(outline, None)
    file = folder / f"{secrets.token_hex(8)}.npz"
    draft = file.with_suffix(".part")
    with draft.open("wb") as opened:
        np.savez(opened, **arrays)
    draft.replace(file)
    return StoredResult(outline, file)


def load_arrays(stored: StoredResult) -> Any:
    """What `store_arrays` was given; its file is removed. Raises `FileNotFoundError` where it stays unseen."""
    if stored.file is None:
        return stored.outline
    last = time.monotonic() + SECONDS_UNTIL_SEEN
    while not stored.file.exists() and time.monotonic() < last:
        time.sleep(0.2)
    with np.load(stored.file, allow_pickle=False) as arrays:
        result = _mapped(stored.outline, lambda one: arrays[str(one.number)] if isinstance(one, ArrayPlace) else one)
    stored.file.unlink(missing_ok=True)
    return result


def _mapped(data: Any, function: Callable[[Any], Any]) -> Any:
    """Data with `function` applied to all that is no tuple, list or dictionary."""
    if isinstance(data, dict):
        return {name: _mapped(value, function) for name, value in data.items()}
    if isinstance(data, list):
        return [_mapped(value, function) for value in data]
    if isinstance(data, tuple):
        parts = [_mapped(value, function) for value in data]
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    return function(data)

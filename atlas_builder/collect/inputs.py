"""Unit inputs on disk: vectors logged while contexts stream by, most of them for a while only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 4096


class InputLog:
    """An append-only file of float32 rows, rewritten when most of it is no longer wanted."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width, self.rows = path, width, 0
        self._file = path.open("wb")

    def append(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Write rows (n, width) and return their numbers."""
        self._file.write(np.ascontiguousarray(inputs, dtype="<f4").tobytes())
        numbers = np.arange(self.rows, self.rows + len(inputs))
        self.rows += len(inputs)
        return numbers

    def is_mostly_waste(self, wanted: int) -> bool:
        """Whether so few rows are wanted that the file is worth rewriting."""
        return self.rows > 3 * wanted + _ROWS_AT_ONCE

    def retain(self, numbers: NDArray[np.int64]) -> None:
        """Keep the rows of these numbers only, which are then numbered from 0 in this order."""
        smaller = self.path.with_suffix(".next")
        self.write_rows(numbers, smaller)
        self._file.close()
        smaller.replace(self.path)
        self._file = self.path.open("ab")
        self.rows = len(numbers)

    def write_rows(self, numbers: NDArray[np.int64], path: Path) -> None:
        """Copy rows to another raw file."""
        self._file.flush()
        if not len(numbers):
            path.write_bytes(b"")
            return
        source = np.memmap(self.path, dtype="<f4", mode="r").reshape(-1, self.width)
        with path.open("wb") as out:
            for start in range(0, len(numbers), _ROWS_AT_ONCE):
                out.write(source[numbers[start : start + _ROWS_AT_ONCE]].tobytes())

    def close(self) -> None:
        """Close and remove the log."""
        self._file.close()
        self.path.unlink(missing_ok=True)

"""Vectors on disk: logged while contexts stream by, most of them needed for a while only.

A log is raw little-endian float32, row after row, in a file named by how often it was
rewritten: `inputs.3.f32`. What a checkpoint refers to is never overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 4096


class RowLog:
    """An append-only file of float32 rows, rewritten under another name when most of it is waste."""

    def __init__(self, folder: Path, name: str, width: int, generation: int = 0, rows: int = 0) -> None:
        self.folder, self.name, self.width = folder, name, width
        self.generation, self.rows = generation, rows
        # Rows written after the checkpoint are discarded: they will be collected again.
        self._file = self.path.open("r+b" if self.path.exists() else "w+b")
        self._file.truncate(self.bytes)
        self._file.seek(0, os.SEEK_END)

    @property
    def path(self) -> Path:
        """The current file."""
        return self.folder / f"{self.name}.{self.generation}.f32"

    @property
    def bytes(self) -> int:
        """How long the file is, once all rows are flushed to it."""
        return self.rows * self.width * 4

    def append(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Write rows (n, width) and return their numbers."""
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").data)
        numbers = np.arange(self.rows, self.rows + len(rows))
        self.rows += len(rows)
        return numbers

    def is_mostly_waste(self, needed: int) -> bool:
        """Whether so few rows are needed that the file is worth rewriting."""
        return self.rows > 2 * needed + _ROWS_AT_ONCE

    def retain(self, numbers: NDArray[np.int64]) -> None:
        """Continue in another file with the rows of these numbers, renumbered from 0 in this order."""
        after = RowLog(self.folder, self.name, self.width, self.generation + 1)
        for part in self.parts(numbers):
            after.append(part)
        self._file.close()
        self.generation, self.rows, self._file = after.generation, after.rows, after._file

    def parts(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Rows by number, a few thousand at a time."""
        self._file.flush()
        if not len(numbers):
            return
        source = np.memmap(self.path, dtype="<f4", mode="r").reshape(-1, self.width)
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            yield source[numbers[start : start + _ROWS_AT_ONCE]]

    def settle(self) -> None:
        """Flush all written rows to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def clean(self) -> None:
        """Remove the files of earlier generations."""
        for file in self.folder.glob(f"{self.name}.*.f32"):
            if file != self.path:
                file.unlink()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

"""Texts in the column of a Parquet table, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atlas_builder.corpus.text_files import BrokenFileError, check_link
from atlas_builder.errors import brief

_ROWS_AT_ONCE = 256


class NoSuchColumnError(BrokenFileError):
    """A table without the column; `rows` are so many rows without a text."""

    def __init__(self, problem: str, rows: int) -> None:
        super().__init__(problem)
        self.rows = rows


def column_values(file: Path, column: str) -> Iterator[Any]:
    """What is in a column of a table, row by row; text that is not UTF-8 is bytes.

    Raises `BrokenFileError` where the file is no Parquet table, or a broken one, and `NoSuchColumnError`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_link(file)
    try:
        # What is read ahead would be a whole row group of every column.
        with pq.ParquetFile(file, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if column not in names:
                known = brief(", ".join(names), 80)
                raise NoSuchColumnError(
                    f"has no column {brief(column, 40)!r}: set corpus.field to one of {known}", table.metadata.num_rows
                )
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
                yield from _plain(batch.column(batch.schema.names.index(column)))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BrokenFileError(f"is not a sound Parquet table ({brief(_first_line(error), 60)})") from None


def _plain(values: Any) -> Iterator[Any]:
    """Arrow's values as Python's."""
    for value in values:
        try:
            yield value.as_py()
        except UnicodeDecodeError:
            yield b""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]

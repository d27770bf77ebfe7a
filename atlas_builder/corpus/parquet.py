"""Texts and other columns of a Parquet table, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


def table_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What is in some columns of a table, row by row; text that is not UTF-8 is bytes.

    The first column must be there; others may not. Raises `BrokenFileError` where the file is no Parquet table, or a
    broken one, and `NoSuchColumnError`.
    """
    with _opened(file) as table:
        names = table.schema_arrow.names
        if columns[0] not in names:
            known = brief(", ".join(names), 80)
            raise NoSuchColumnError(
                f"has no column {brief(columns[0], 40)!r}: set corpus.field to one of {known}", table.metadata.num_rows
            )
        at_hand = [column for column in columns if column in names]
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=at_hand):
            values = (_plain(batch.column(batch.schema.names.index(column))) for column in at_hand)
            for row in zip(*values, strict=True):
                yield dict(zip(at_hand, row, strict=True))


def column_names(file: Path) -> list[str]:
    """The columns of a table. Raises `BrokenFileError`."""
    with _opened(file) as table:
        return list(table.schema_arrow.names)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_link(file)
    try:
        # What is read ahead would be a whole row group of every column.
        with pq.ParquetFile(file, pre_buffer=False) as table:
            yield table
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

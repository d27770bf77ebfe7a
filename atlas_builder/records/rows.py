"""Rows of the published tables, read without pandas, which takes a second to load.

pyarrow loads it for nothing, where it is installed: in `read_table`, `to_numpy`, and when it computes with numbers
of Python's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


def read_rows(file: Path, columns: Sequence[str] | None = None, *, layer: int | None = None) -> pa.Table:
    """The rows of a table in their order, of all columns or of some, of all layers or of one.

    Raises `OSError` or `pa.ArrowException` for a file that cannot be read, `ValueError` for columns that it lacks.
    """
    with pq.ParquetFile(file) as table:
        if missing := {*(columns or ()), *(["layer"] if layer is not None else [])} - set(table.schema_arrow.names):
            raise ValueError(f"the column {min(missing)} is missing")
        if layer is None:
            return table.read(columns)
        place = next(leaf for leaf in range(len(table.schema)) if table.schema.column(leaf).path == "layer")
        bounds = [table.metadata.row_group(group).column(place).statistics for group in range(table.num_row_groups)]
        groups = [
            group
            for group, known in enumerate(bounds)
            if known is None or not known.has_min_max or known.min <= layer <= known.max
        ]
        rows = table.read_row_groups(groups, columns)
    is_own = np.concatenate([[False], numbers(rows["layer"]) == layer, [False]])
    ends = np.flatnonzero(is_own[1:] != is_own[:-1]).reshape(-1, 2).tolist()
    # One run, in any table of the builder.
    runs = [rows.slice(first, last - first) for first, last in ends]
    return pa.concat_tables(runs) if runs else rows.slice(0, 0)


def numbers(column: pa.ChunkedArray, null: float = math.nan) -> NDArray[Any]:
    """A column of numbers, (rows,), with `null` for those that are not there; `ValueError`, `TypeError` for others."""
    if column.null_count:
        return np.array([null if value is None else value for value in column.to_pylist()])
    chunks = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int64)

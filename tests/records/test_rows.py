"""Rows of a published table, by layer, as pyarrow's own reader filters them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.records.rows import numbers, read_rows


@settings(deadline=None)
@given(layers=st.lists(st.integers(0, 3), max_size=30), group=st.integers(1, 10), statistics=st.booleans())
def test_the_rows_of_a_layer_are_those_that_a_filter_gives(
    tmp_path_factory: pytest.TempPathFactory, layers: list[int], group: int, statistics: bool
) -> None:
    file = tmp_path_factory.mktemp("rows") / "units.parquet"
    nested = pa.array([[{"layer": 9, "of": number}] for number in range(len(layers))], NEIGHBOURS)
    table = pa.table({"near": nested, "layer": pa.array(layers, pa.int32()), "unit": np.arange(len(layers))})
    pq.write_table(table, file, row_group_size=group, write_statistics=statistics)
    assert read_rows(file).equals(table)
    for layer in range(5):
        expected = pq.read_table(file, filters=[("layer", "=", layer)])
        assert read_rows(file, layer=layer).to_pylist() == expected.to_pylist()


NEIGHBOURS = pa.list_(pa.struct([("layer", pa.int32()), ("of", pa.int32())]))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"unit": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="the column layer is missing"):
        read_rows(tmp_path / "a.parquet", layer=0)
    with pytest.raises(ValueError, match="the column label is missing"):
        read_rows(tmp_path / "a.parquet", ["unit", "label"])


@settings(deadline=None)
@given(
    values=st.lists(st.integers(-5, 5) | st.none(), max_size=20), chunk=st.integers(1, 5), kind=st.sampled_from("if")
)
def test_numbers_of_a_column_are_its_values(values: list[int | None], chunk: int, kind: str) -> None:
    parts = [values[first : first + chunk] for first in range(0, len(values), chunk)]
    column = pa.chunked_array(parts, pa.int32() if kind == "i" else pa.float32())
    assert numbers(column, null=7).tolist() == [7 if value is None else value for value in values]
    assert [None if np.isnan(value) else value for value in numbers(column).tolist()] == values

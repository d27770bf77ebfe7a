"""A record's bytes with its hash between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.records.schema import content_hash, sealed, serialise

plain = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner, max_size=3)
)
names = st.sampled_from(["a", "has", "hash", "hashes", "has\x7f", "i", "z", "é"]) | st.text(max_size=4)


@given(st.dictionaries(names, plain, max_size=6))
def test_a_sealed_record_is_written_as_any_other(record: dict[str, Any]) -> None:
    content = sealed(record)
    assert content == serialise(record)
    assert record["hash"] == content_hash(record)

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.rerun.passes import Text
from atlas_builder.verify.shown import Key, KeyFinder


@given(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_token_is_found_by_its_place_in_a_document_of_contexts_of_unequal_length(lengths: list[list[int]]) -> None:
    contexts: list[tuple[int, int, list[int]]] = []
    keys: dict[tuple[int, int], Key] = {}
    ends, token = [], 0
    for document, of_contexts in enumerate(lengths):
        position = 0
        for length in of_contexts:
            keys |= {(document, position + place): Key(len(contexts), place) for place in range(length)}
            contexts.append((document, position, list(range(token, token + length))))
            position, token = position + length, token + length
        ends.append((document, position))
    finder = KeyFinder(Text(contexts))
    assert {place: finder.find(*place) for place in keys} == keys
    assert [finder.find(*place) for place in [*ends, (len(lengths), 0)]] == [None] * (len(ends) + 1)

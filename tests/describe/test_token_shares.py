"""Shares of tokens, and what comes next, against counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.describe.token_shares import next_shares, next_tokens, numbered_pairs, token_shares, window_tokens


def test_token_shares_are_of_the_positive_activation_and_noise_counts_for_nothing() -> None:
    tokens = np.array([[5, 6, -1], [5, 7, 7], [9, 9, 9]])
    values = np.array([[1, 2, np.nan], [3, -5, 2], [9, 9, 9]], dtype=np.float32)
    found = token_shares(tokens, values, np.array([1, 1, -1]), 2, 2)
    assert [[token for token, _ in shares] for shares in found] == [[], [5, 6]]
    assert [share for _, share in found[1]] == pytest.approx([0.5, 0.25])


def test_a_window_ends_where_its_context_does() -> None:
    tokens, starts = np.arange(10, dtype=np.int32), np.array([0, 4, 10])
    found = window_tokens(tokens, starts, np.array([0, 1]), np.array([1, 5]), 2, 3)
    assert found.tolist() == [[-1, 0, 1, 2, 3, -1], [7, 8, 9, -1, -1, -1]]


def test_the_next_token_may_be_in_the_next_context_of_the_document_but_not_in_another() -> None:
    tokens, starts = np.arange(10, 18, dtype=np.int32), np.array([0, 3, 5, 8])  # 10 11 12 | 13 14 || 15 16 17
    document = np.array([0, 0, 1], dtype=np.int32)
    context, position = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32), np.array([0, 2, 0, 1, 1, 2], dtype=np.int32)
    assert next_tokens(tokens, starts, document, context, position).tolist() == [11, 13, 14, -1, 17, -1]


def test_what_follows_a_part_of_a_character_is_the_next_character() -> None:
    tokens, starts = np.arange(10, 16, dtype=np.int32), np.array([0, 6])
    begins = np.array([1, 0, 0, 1, 0, 0], dtype=np.bool_)
    context, position = np.zeros(6, dtype=np.int32), np.arange(6, dtype=np.int32)
    found = next_tokens(tokens, starts, np.zeros(1, np.int32), context, position, begins)
    assert found.tolist() == [13, 13, 13, -1, -1, -1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_every_token_but_a_document_s_last_has_the_one_behind_it(lengths: list[int], room: int) -> None:
    starts, places, expected = [0], [], []
    document: list[int] = []
    for number, length in enumerate(lengths):
        base = starts[-1]
        for offset in range(0, length, room):
            places += [(len(document), inner) for inner in range(min(room, length - offset))]
            document.append(number)
            starts.append(base + min(offset + room, length))
        expected += [*range(base + 1, base + length), -1]
    context, position = np.array(places, dtype=np.int32).T
    tokens = np.arange(sum(lengths), dtype=np.int32)
    found = next_tokens(tokens, np.array(starts), np.array(document, dtype=np.int32), context, position)
    assert found.tolist() == expected


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 3)), max_size=40), st.integers(1, 5))
def test_shares_of_next_tokens_are_those_of_counting(pairs: list[tuple[int, int]], most: int) -> None:
    following = np.array([token for token, _ in pairs], dtype=np.int32)
    behaviour = np.array([owner for _, owner in pairs], dtype=np.int64)
    found = next_shares(following, behaviour, 5, most)
    for owner in range(5):
        counted = Counter(token for token, whose in pairs if whose == owner and token >= 0)
        ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]
        assert found[owner] == [(token, count / counted.total()) for token, count in ranked]


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 4), st.integers(1, 1 << 20)), max_size=40), st.integers(1, 5)
)
def test_shares_of_tokens_are_those_of_adding_in_order(rows: list[tuple[int, int, int]], most: int) -> None:
    tokens = np.array([[token] for _, token, _ in rows], np.int32).reshape(-1, 1)
    values = np.array([[value / 3] for _, _, value in rows], np.float32).reshape(-1, 1)
    found = token_shares(tokens, values, np.array([owner for owner, _, _ in rows], np.int64), 4, most)
    for owner in range(4):
        sums: dict[int, float] = {}
        for (whose, token, _), value in zip(rows, values[:, 0].tolist(), strict=True):
            if whose == owner:
                sums[token] = sums.get(token, 0.0) + value
        total = sum(sums[token] for token in sorted(sums))
        ranked = sorted(((token, share / total) for token, share in sums.items()), key=lambda one: (-one[1], one[0]))
        assert found[owner] == ranked[:most]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20), st.sampled_from([1, 1 << 28]))
def test_pairs_are_numbered_in_their_order_however_large_their_numbers_are(
    rows: list[tuple[int, int]], factor: int
) -> None:
    owner = np.array([one * factor for one, _ in rows], np.int64)
    token = np.array([min(other * factor, 2**31 - 1) for _, other in rows], np.int32)
    pairs, (place, number) = numbered_pairs(owner, token)
    codes = list(zip(owner.tolist(), token.tolist(), strict=True))
    assert [(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()] == sorted(set(codes))
    assert [codes[one] for one in place.tolist()] == [sorted(set(codes))[one] for one in number.tolist()]
    for pair in range(len(pairs)):
        assert sorted(place[number == pair].tolist()) == place[number == pair].tolist()

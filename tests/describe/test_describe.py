from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.describe.labels import describe_words, scene
from atlas_builder.describe.logits import logit_effects, strongest
from atlas_builder.describe.token_shares import next_shares, next_tokens, token_shares, window_tokens


def test_a_key_word_is_the_whole_word_of_the_key_token() -> None:
    found = scene(["The", " ki", "nd", " cat", " sat"], 2)
    assert (found.key, found.piece, found.before) == ("kind", ("nd", True, False), "The")
    assert {"cat", "sat"} <= found.around
    assert scene(["The", " ki", "nd"], 1).piece == ("ki", False, True)
    assert scene(["un", "ki", "nd"], 1).piece == ("ki", True, True)
    assert scene(["a", " cat", " sat"], 1).piece == ("cat", False, False)


def test_words_of_every_script_keep_their_marks() -> None:
    assert scene(["a ", "हिन्दी"], 1).key == "हिन्दी"
    assert scene(["e\u0301te\u0301"], 0).key == "e\u0301te\u0301"


def test_space_and_line_ends_have_signs() -> None:
    assert scene(["x", " = ", "  "], 2).key == "␣"
    assert scene(["x", "\n    ", "y"], 1).key == "↵"


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_any_tokens_make_a_scene(tokens: list[str], data: st.DataObject) -> None:
    found = scene(tokens, data.draw(st.integers(0, len(tokens) - 1)))
    assert len(found.key) <= 24


def _label(*windows: tuple[list[str], int]) -> str:
    others = [[scene(["some", " other", " words", " here"], 1)] * 3]
    return describe_words([[scene(*window) for window in windows], *others])[0].label


def test_a_label_is_the_words_it_fires_on() -> None:
    assert _label((["a", " dog", " ran"], 1), (["my", " dog", " sat"], 1), (["no", " Dog", "!"], 1)) == "dog"


def test_a_label_lists_words_as_text() -> None:
    windows = [([f" {word}", " it"], 0) for word in ("for", "and", "for", "and", "for", "and")]
    assert _label(*windows) == "and, for"


@pytest.mark.parametrize(
    ("words", "key", "label"),
    [
        (
            [["want", "ed"], ["start", "ed"], ["look", "ed"], ["jump", "ed"], ["wait", "ed"]],
            1,
            "“ed” in jumped, looked",
        ),
        ([["re", "do"], ["re", "set"], ["re", "run"], ["re", "try"], ["re", "pay"]], 0, "“re” in redo, repay"),
        ([["al", "low", "s"], ["sl", "low", "ly"], ["b", "low", "n"], ["f", "low", "s"]], 1, "“low” in allows, blown"),
        ([["+", "-", "="], ["<", "-", ">"], ["-", "-", "/"], ["=", "-", "]"], [")", "-", ";"]], 1, "“-” in )-;, +-="),
    ],
)
def test_a_label_names_the_part_that_its_words_share(words: list[list[str]], key: int, label: str) -> None:
    assert _label(*[(word, key) for word in words]) == label


def test_a_label_names_the_word_before_where_only_that_is_common() -> None:
    assert (
        _label(*[(["import", f" {word}"], 1) for word in ("os", "re", "json", "math", "ast", "io")]) == "after import"
    )


def test_a_label_names_the_surroundings_where_only_they_are_common() -> None:
    windows = [([f"{a} ", "piano ", f"{b} ", f"{c}"], 2) for a, b, c in ("abc", "def", "ghi", "jkl", "mno", "pqr")]
    assert _label(*windows) in ("after piano", "near piano")


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 12), st.integers(0, 999), st.booleans())
def test_the_strongest_effects_are_those_of_a_full_sort(
    units: int, vocabulary: int, count: int, seed: int, ties: bool
) -> None:
    effects = np.random.default_rng(seed).normal(size=(units, vocabulary)).astype(np.float32)
    effects = np.round(effects) if ties else effects
    found = strongest(effects, count)
    for unit in range(units):
        ranked = sorted(range(vocabulary), key=lambda token: (-effects[unit, token], token))[:count]
        assert found.positive[unit].tolist() == ranked
        ranked = sorted(range(vocabulary), key=lambda token: (effects[unit, token], token))[:count]
        assert found.negative[unit].tolist() == ranked
        assert found.negative_values[unit].tolist() == effects[unit, ranked].tolist()


def test_effects_leave_out_what_no_probability_depends_on() -> None:
    write = np.array([[1.0, 2.0]], dtype=np.float32)
    unembedding = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(logit_effects(write, unembedding), [[-2.0, -1.0, 3.0]])
    np.testing.assert_allclose(logit_effects(write, unembedding + 5), [[-2.0, -1.0, 3.0]])

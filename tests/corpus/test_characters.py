"""Characters and the tokens that are parts of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from atlas_builder.corpus.characters import beginning, begins_character, readings, split_at
from atlas_builder.corpus.token_text import token_texts
from atlas_builder.corpus.windows import Windows
from atlas_builder.describe.scenes import scene
from atlas_builder.rerun import borders
from atlas_builder.shipped import MODEL
from atlas_builder.verify.wording import words_of

DEMO = AutoTokenizer.from_pretrained(MODEL)
DEMO_TEXTS = token_texts(DEMO)

# Letters with marks, joined emoji, flags, syllables, scripts without spaces, what comes before a number, line ends.
SIGNS = "ab _1!\n\r東京コーか、नमस्ते\u0301\u200d\u200c\ufe0f👩💻🇯🇵😂🏽น้ำกاَل\u0600\u3099각가©"
texts = st.text(st.sampled_from(SIGNS), min_size=1, max_size=24)


def _tokens(text: str) -> list[str]:
    return [DEMO_TEXTS[token] for token in DEMO(text, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("東京", ["東", "京"]),
        ("न\u093fम", ["न\u093f", "म"]),
        ("e\u0301a", ["e\u0301", "a"]),
        ("👩\u200d💻😂", ["👩\u200d💻", "😂"]),
        ("🇯🇵🇫🇷", ["🇯🇵", "🇫🇷"]),
        ("น้ำ", ["น้ำ"]),
        ("a\r\nb", ["a", "\r", "\n", "b"]),
    ],
)
def test_every_token_names_the_character_that_it_is_part_of(text: str, characters: list[str]) -> None:
    tokens = _tokens(text)
    assert list(dict.fromkeys(split_at(tokens, key).key for key in range(len(tokens)))) == characters
    assert sum(begins_character(tokens)) == len(characters)


def test_a_token_that_is_bytes_reads_as_its_character_and_others_as_they_are() -> None:
    tokens = _tokens("a 東")
    assert readings(tokens, range(len(tokens))) == ["a", " ", "東", "東", "東"]


@settings(max_examples=150, deadline=None)
@given(texts, st.data())
def test_a_text_cut_at_any_token_is_the_text(text: str, data: st.DataObject) -> None:
    tokens = _tokens(text)
    parts = split_at(tokens, data.draw(st.integers(0, len(tokens) - 1)))
    assert "".join(parts) == text
    assert parts.key


@settings(max_examples=150, deadline=None)
@given(texts, st.data())
def test_verify_s_own_characters_words_and_readings_are_the_same(text: str, data: st.DataObject) -> None:
    tokens = _tokens(text)
    assert begins_character(tokens) == [border == 2 for border in borders.borders(tokens)]
    own = [
        token for token, is_own in zip(readings(tokens, range(len(tokens))), _are_bytes(tokens), strict=True) if is_own
    ]
    read = borders.whole_characters(tokens)
    assert own == [token for token, is_own in zip(read, _are_bytes(tokens), strict=True) if is_own]
    first = data.draw(st.integers(0, len(tokens) - 1))
    window = tokens[first : first + data.draw(st.integers(1, 12))]
    key = data.draw(st.integers(0, len(window) - 1))
    found, again = scene(window, key), words_of(window, key)
    assert (found.key, tuple(found.piece), found.before, found.around) == tuple(again)


def _are_bytes(tokens: Sequence[str]) -> list[bool]:
    return [token.startswith("<0x") or token.endswith(">") for token in tokens]


def test_windows_reach_out_to_where_characters_begin_and_draw_back_where_they_may_not() -> None:
    begins = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 1], dtype=np.bool_)
    ends = (np.array([0]), np.array([10]))
    windows = Windows(np.array([2]), np.array([7]), np.array([4]), *ends)
    whole = windows.whole(begins)
    assert (whole.first.tolist(), whole.last.tolist()) == ([0], [9])
    narrow = windows.whole(begins, (2, 2))
    assert (narrow.first.tolist(), narrow.last.tolist()) == ([3], [6])
    assert windows.whole(None) is windows


def test_what_is_shortened_ends_with_a_whole_character() -> None:
    assert beginning("abcdef", 3) == "abc"
    assert beginning("ab" + "e\u0301" * 3, 3) == "ab"
    assert beginning("👩\u200d💻", 2) == "👩\u200d"  # nothing whole would be left

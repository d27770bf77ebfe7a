"""Labels of behaviours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.describe.labels import describe_words, scene


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

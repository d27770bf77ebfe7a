"""Labels of behaviours."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.corpus.characters import beginning, split_at
from atlas_builder.corpus.windows import Windows
from atlas_builder.describe import scenes
from atlas_builder.describe.labels import Wording, describe_words
from atlas_builder.describe.scenes import Piece, Scene, scene
from atlas_builder.describe.terms import Terms
from atlas_builder.describe.window_words import WindowWords
from tests.support.labels import slow_words


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


def test_bytes_of_a_character_stand_for_the_character_and_its_word() -> None:
    tokyo = ["<0xE6>", "<0x9D>", "<0xB1>", "<0xE4>", "<0xBA>", "<0xAC>"]
    assert [scene(tokyo, key).key for key in range(6)] == ["東"] * 3 + ["京"] * 3
    assert scene(tokyo, 4).before == "東"
    book = ["<0xD9>", "<0x83>", "<0xD8>", "<0xAA>"]
    assert (scene(book, 2).key, scene(book, 2).piece) == ("كت", ("ت", True, False))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("東京のコーヒー", ["東", "京", "の", "コーヒー"]),
        ("น้ำใจ", ["น้ำ", "ใ", "จ"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("😂👩\u200d💻❤\ufe0f!", ["😂", "👩\u200d💻", "❤\ufe0f", "!"]),
        ("GPT東", ["GPT", "東"]),
    ],
)
def test_words_of_scripts_without_spaces_are_characters(text: str, words: list[str]) -> None:
    keys = [scene([text[:place], text[place:]], 1).key for place in range(len(text))]
    assert [word for word in dict.fromkeys(keys) if word != "␣"] == words


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_any_tokens_make_a_scene(tokens: list[str], data: st.DataObject) -> None:
    key = data.draw(st.integers(0, len(tokens) - 1))
    found = scene(tokens, key)
    assert len(found.key) <= 24
    assert found == _slow_scene(tokens, key)


@given(st.lists(st.text("ab_1 \n\t.-()\x1c", max_size=4), min_size=1, max_size=9), st.data())
def test_words_of_ascii_are_those_of_any_text(tokens: list[str], data: st.DataObject) -> None:
    key = data.draw(st.integers(0, len(tokens) - 1))
    assert scene(tokens, key) == _slow_scene(tokens, key)


def _slow_scene(tokens: list[str], key: int) -> Scene:
    """Word by word, by the pattern for text of any script."""
    lead, token, rest = split_at(tokens, key)
    target = len(lead) + (len(token) - len(token.lstrip()) if token.strip() else 0)
    end = len(lead) + len(token.rstrip()) if token.strip() else target + 1
    text = lead + token + rest
    key_word, piece, before = "", Piece(""), ""
    around = set()
    for match in scenes._WORD.finditer(text):
        word = match.group()
        shown = beginning(word, 24) if word.strip() else "↵" if "\n" in word else "␣"
        if match.start() <= target < match.end():
            key_word = shown
            core = beginning(text[target : min(end, match.end())], 24)
            piece = Piece(core, match.start() < target, end < match.end()) if word.strip() else Piece(shown)
        elif not key_word and word.strip():
            before = shown
        if any(character.isalnum() for character in word):
            around.add(shown)
    return Scene(key_word, piece, before, frozenset(around))


def _worded(behaviours: Sequence[Sequence[Scene]], units: Sequence[int]) -> list[Wording]:
    """The words of behaviours, given the examples of each."""
    words = WindowWords.of_scenes([one for examples in behaviours for one in examples])
    behaviour = np.repeat(np.arange(len(behaviours)), [len(examples) for examples in behaviours])
    return describe_words(words, np.arange(len(behaviour)), behaviour, np.array(units, np.int64))


def _label(*windows: tuple[list[str], int]) -> str:
    others = [[scene(["some", " other", " words", " here"], 1)] * 3]
    return _worded([[scene(*window) for window in windows], *others], [0, 1])[0].label


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


def test_a_label_of_no_common_word_is_its_key_words_rather_than_a_word_of_every_text() -> None:
    verbs = ["performed", "made", "done", "sung", "told", "seen"]
    behaviour = [scene([f"{other} ", f"{verb} ", "the "], 1) for other, verb in zip("abcdef", verbs, strict=True)]
    elsewhere = [_scenes(f"{word} [{word}] the #") for word in ("one", "two", "three", "four", "five", "six")]
    label = _worded([behaviour, *elsewhere], range(7))[0].label
    assert set(label.split(", ")) < set(verbs)


def _scenes(text: str, number: int = 6) -> list[Scene]:
    """Examples that read like `text`, whose key token is in brackets; `#` is another word in each."""
    scenes = []
    for example in range(number):
        tokens = [f"{word.replace('#', 'xyz'[example % 3] * (example + 1))} " for word in text.split()]
        key = next(place for place, token in enumerate(tokens) if token.startswith("["))
        scenes.append(scene([token.strip("[] ") + " " for token in tokens], key))
    return scenes


def _labels(behaviours: Sequence[list[Scene]], units: Sequence[int]) -> list[str]:
    return [wording.label for wording in _worded(behaviours, units)]


def _layer_of_others(number: int = 20) -> list[list[Scene]]:
    """Behaviours of other units, so that words of one unit are rare in the layer."""
    return [_scenes(f"w{each} [v{each}] u{each}") for each in range(number)]


def test_a_label_picks_what_differs_where_the_best_word_of_the_layer_is_the_siblings_too() -> None:
    others = _layer_of_others()
    units = range(1, len(others) + 1)
    one = _scenes("# [red] #", 8) + _scenes("# [blue] #", 6)
    sibling = _scenes("# [red] #", 14)
    assert _labels([one, sibling, *others], [-1, -2, *units])[:2] == ["red, blue", "red"]
    assert _labels([one, sibling, *others], [-1, -1, *units])[:2] == ["blue, red", "red"]


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ("# of [the] #", "# in [the] #", ["the (after of)", "the (after in)"]),
        ("of # [the] #", "in # [the] #", ["the (near of)", "the (near in)"]),
        ("of # [the] #", "# # [the] #", ["the (near of)", "the"]),
        ("one of [#] #", "two of [#] #", ["after of (near one)", "after of (near two)"]),
    ],
)
def test_siblings_that_share_a_key_word_are_distinguished_by_the_word_before_or_a_word_around(
    one: str, other: str, labels: list[str]
) -> None:
    others = _layer_of_others()
    assert _labels([_scenes(one), _scenes(other), *others], [0, 0, *range(1, len(others) + 1)])[:2] == labels


def test_siblings_that_share_a_part_of_words_are_distinguished() -> None:
    def verbs(before: str) -> list[Scene]:
        return [scene([before, f" {verb}", "ed"], 2) for verb in ("want", "start", "look", "jump", "wait")]

    found = _labels([verbs("to"), verbs("be"), *_layer_of_others()], [0, 0, *range(1, 21)])
    assert found[:2] == ["“ed” in jumped, looked (after to)", "“ed” in jumped, looked (after be)"]


@pytest.mark.parametrize(
    "siblings",
    [
        (_scenes("of [the] #"), _scenes("of [the] #")),  # nothing differs
        (_scenes("# [the] #"), _scenes("# [the] #", 9)),  # nothing is common
        (_scenes("of # [the] #", 2), _scenes("in # [the] #", 2)),  # two examples with a word around may be chance
        (_scenes("of [the] #", 1), _scenes("in [the] #", 1)),
        (_scenes("of [the] #", 2) + _scenes("# [the] #", 4), _scenes("# [the] #")),  # one in three
    ],
)
def test_a_label_is_not_continued_without_support(siblings: tuple[list[Scene], list[Scene]]) -> None:
    assert _labels([*siblings, *_layer_of_others()], [0, 0, *range(1, 21)])[:2] == ["the", "the"]


def test_a_word_that_much_of_the_layer_has_around_continues_no_label() -> None:
    others = [_scenes(f"and [v{each}]") for each in range(20)]
    found = _labels([_scenes("and # [the]"), _scenes("# # [the]"), *others], [0, 0, *range(1, 21)])
    assert found[:2] == ["the", "the"]


def test_labels_of_different_units_may_be_the_same() -> None:
    behaviours = [_scenes("# of [the] #"), _scenes("# in [the] #"), *_layer_of_others()]
    assert _labels(behaviours, range(22))[:2] == ["the", "the"]


_TEXTS = ("of [the] a", "in [the] b", "of [a] the", "a b [#] c", "of [#] in", "# [the] #", "b [a] of")
_LAYERS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from(_TEXTS), min_size=1, max_size=5)), min_size=1, max_size=9
)


@given(_LAYERS, st.randoms(use_true_random=False))
def test_labels_rest_on_no_order(layer: list[tuple[int, list[str]]], order: random.Random) -> None:
    """Neither of units, nor of behaviours in a unit, nor of examples in a behaviour."""
    behaviours = [[_scenes(text, 1)[0] for text in texts] for _, texts in layer]
    units = [unit for unit, _ in layer]
    places = list(range(len(layer)))
    order.shuffle(places)
    shuffled = [order.sample(behaviours[place], len(behaviours[place])) for place in places]
    labels = _labels(behaviours, units)
    assert _labels(shuffled, [3 - units[place] for place in places]) == [labels[place] for place in places]


@given(_LAYERS)
def test_separation_is_the_chance_that_an_example_with_a_word_is_of_the_behaviour(
    layer: list[tuple[int, list[str]]],
) -> None:
    """Against the docstring's formula, counted example by example."""
    behaviours = [[scene.around for text in texts for scene in _scenes(text, 1)] for _, texts in layer]
    names = sorted(frozenset().union(*(words for examples in behaviours for words in examples)))
    rows = [(one, names.index(word)) for one, examples in enumerate(behaviours) for words in examples for word in words]
    behaviour, term = np.array(rows, np.int64).reshape(-1, 2).T
    terms = Terms(behaviour, term, np.array([len(examples) for examples in behaviours]))
    separation = terms.separation(np.arange(len(terms.term)), np.array([unit for unit, _ in layer]))
    elsewhere = [
        words for other in range(1, len(layer)) if layer[other][0] == layer[0][0] for words in behaviours[other]
    ]
    assert {names[one] for one in terms.term[terms.behaviour == 0]} == frozenset().union(*behaviours[0])
    for place in np.flatnonzero(terms.behaviour == 0).tolist():
        word = names[terms.term[place]]
        here = sum(word in words for words in behaviours[0]) / len(behaviours[0])
        there = sum(word in words for words in elsewhere) / max(1, len(elsewhere))
        assert separation[place] == pytest.approx(here / (here + there))
        having = sum(any(word in words for words in examples) for examples in behaviours)
        assert terms.rarity[terms.term[place]] == pytest.approx(math.log(1 + len(behaviours) / having))


_WORDS = st.sampled_from(["", "of", "Of", "the", "re", "wanted", "␣", "日本", "pianos"])
_SCENES = st.builds(
    Scene,
    key=_WORDS,
    piece=st.builds(Piece, _WORDS, st.booleans(), st.booleans()),
    before=_WORDS,
    around=st.frozensets(_WORDS.filter(bool), max_size=5),
)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(_SCENES, min_size=1, max_size=5)), max_size=9))
def test_labels_are_those_of_counting_example_by_example(layer: list[tuple[int, list[Scene]]]) -> None:
    units, behaviours = [unit for unit, _ in layer], [examples for _, examples in layer]
    assert _worded(behaviours, units) == slow_words(behaviours, units)


_TOKENS = st.one_of(
    st.text("ab_1 \n\t.-()", max_size=4),
    st.sampled_from(["é", "<0xC3>", "<0xA9>", "日", "\x1c", "  ", "", "wordsthat" * 4]),
)


@given(st.lists(_TOKENS, min_size=1, max_size=14), st.data())
def test_words_of_windows_are_those_of_each_window_alone(tokens: list[str], data: st.DataObject) -> None:
    texts = sorted(set(tokens))
    places = st.lists(st.integers(0, len(tokens)), min_size=3, max_size=3).map(sorted)
    rows = data.draw(st.lists(places.filter(lambda row: row[1] < row[2]), max_size=6))
    first, key, last = np.array(rows, np.int64).reshape(-1, 3).T
    windows = Windows(first, last, key, first, last)
    found = WindowWords.of_windows(np.array([texts.index(one) for one in tokens], np.int32), texts, windows)
    alone = WindowWords.of_scenes([scene(tokens[low:high], at - low) for low, at, high in rows])
    assert _named(found) == _named(alone)


def _named(words: WindowWords) -> list[tuple[str, tuple[str, int], str, list[str]]]:
    """The words of each window in letters."""
    texts = [*words.texts, ""]
    return [
        (
            texts[words.key[one]],
            (texts[words.piece[one] // 4], int(words.piece[one]) % 4),
            texts[words.before[one]],
            [texts[word] for word in words.around[words.starts[one] : words.starts[one + 1]]],
        )
        for one in range(len(words.key))
    ]

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.config import Configuration
from atlas_builder.site.search import index, normalise, postings
from atlas_builder.site.search.index import read_index_file
from atlas_builder.site.search.postings import LayerWords, Postings, read_back, written
from atlas_builder.site.search.snippets import MIDDLE, Snippet, snippet
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, stages_of


def test_a_word_is_found_as_typed_by_people() -> None:
    typed = (" Import", "\n  ", "   ", "Ä", "cafe\u0301", "\ufeffbom\x85")
    assert [normalise.search_key(word) for word in typed] == ["import", "↵", "␣", "ä", "café", "bom"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("self.x == 1", ["self", ".", "x", "==", "1"]),
        ("a_b2-=c))", ["a_b2", "-", "=", "c", "))"]),
        ("東京 tower", ["東", "京", "tower"]),
        ("naïve e\u0301t", ["naïve", "e\u0301t"]),
        ("\ufeff\u2028 \x85\x1c", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_of_one_sign(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in normalise.pieces(text)] == found


@given(st.text(st.sampled_from("aZ_9 .=(\n"), max_size=30))
def test_the_fast_way_to_part_ascii_is_the_same(text: str) -> None:
    slow = [match.span() for match in normalise.PIECE.finditer(text)]
    assert normalise.pieces(text) == slow


@given(st.lists(st.integers(0, 2**40)))
def test_numbers_are_read_back_as_written(numbers: list[int]) -> None:
    text, ends = written(np.array(numbers, dtype=np.int64))
    assert read_back(text) == numbers
    assert [read_back(text[start:end]) for start, end in zip([0, *ends], ends, strict=False)] == [[n] for n in numbers]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("and, for", ["and", "for"]),
        ("“low” in allow_none, shallow", ["low", "allow_none", "shallow"]),
        ("“in” in in_place, inner", ["in", "in_place", "inner"]),
        ("after import", ["import"]),
        ("near x, y", ["x", "y"]),
        ("self (after import)", ["self", "import"]),
        ("“low” in allow_none, shallow (near x)", ["low", "allow_none", "shallow", "x"]),
        ("after import (near x)", ["import", "x"]),
        ("( (after ))", []),
        ("after", ["after"]),
        ("in, near", ["in", "near"]),
        ("“, ” in", ["in"]),
        ("↵, (", []),
    ],
)
def test_the_words_of_a_label_are_those_from_the_corpus(label: str, words: list[str]) -> None:
    assert postings._words_of_label(label) == words


def test_an_example_shows_whole_words_around_its_key_token() -> None:
    tokens = ["tion", " of", " the", "  ", "ki", "nd", "ness", ", he", " sa"]
    found = snippet(tokens, 5, from_start=False, to_end=False)
    assert found == Snippet("of the ki", "nd", "ness, he", ["of", "the", "kindness", ",", "he"], MIDDLE - 2)
    assert snippet(tokens, 5)[:3] == ("tion of the ki", "nd", "ness, he sa")


def test_an_example_of_nothing_but_space_and_one_of_a_single_run_have_their_places() -> None:
    assert snippet(["a", "\n  ", "b"], 1) == Snippet("a", "\n  ", "b", ["a", "b"], MIDDLE - 1)
    long = snippet(["x" * 500, "x", "x" * 500], 1)
    assert len(long.before) < 100
    assert len(long.after) < 100
    assert long.words == ["x" * (len(long.before) + 1 + len(long.after))]


def test_an_example_of_a_script_without_spaces_is_cut_between_characters() -> None:
    tokens = ["<0xE6>", "<0x9D>", "<0xB1>", *("猫" * 100), "京"]
    found = snippet(tokens, 1, to_end=False)
    assert (found.before, found.key, found.after) == ("", "東", "猫" * 32)
    assert found.words[:2] == ["東", "猫"]
    assert set(snippet(tokens, 90, from_start=False).words) == {"猫", "京"}


@given(st.lists(st.text(max_size=9), min_size=1, max_size=40), st.data(), st.booleans(), st.booleans())
def test_the_words_of_an_example_are_those_of_its_text(
    tokens: list[str], data: st.DataObject, start: bool, end: bool
) -> None:
    key = data.draw(st.integers(0, len(tokens) - 1))
    found = snippet(tokens, key, from_start=start, to_end=end)
    text = found.before + found.key + found.after
    assert tokens[key] in found.key
    shown = [text[low:high] for low, high in normalise.pieces(text)]
    assert found.words == shown[: len(found.words)]
    assert len(found.words) == len(shown) or found.first + len(found.words) == 64
    assert 0 <= found.first <= MIDDLE


def _part(
    answers: Sequence[tuple[str, int, int]], shown: Sequence[tuple[str, int, int]] = (), count: int = 1
) -> LayerWords:
    names = sorted({word for word, _, _ in (*answers, *shown)})
    rows = [
        np.array([(names.index(word), *rest) for word, *rest in part], dtype=np.int64).reshape(-1, 3)
        for part in (answers, shown)
    ]
    return LayerWords([["label"]] * count, [("label", "", "key", "")] * count, names, *rows)


def _answers(entry: postings.Entry) -> list[tuple[int, int]]:
    return list(zip(np.cumsum(read_back(entry.who)).tolist(), read_back(entry.shares), strict=True))


def test_behaviours_are_numbered_through_layers_and_words_are_in_order() -> None:
    parts = [_part([("b", 0, 300), ("a", 1, 1000)], count=2), _part([("a", 0, 7), ("ä", 0, 0)], [("z", 0, MIDDLE)])]
    found = {entry.word: entry for entry in Postings(parts).entries()}
    assert list(found) == ["a", "b", "z", "ä"]
    assert _answers(found["a"]) == [(1, 1000), (2, 7)]
    assert _answers(found["b"]) == [(0, 300)]
    assert (found["ä"].responding, found["z"].showing, found["a"].strong) == (0, 1, 1)


def test_a_word_of_too_many_behaviours_keeps_the_largest_shares_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postings, "MAX_POSTINGS", 10)
    part = _part(
        [("the", number, number) for number in range(100)],
        [("the", number, number % 64) for number in range(100)],
        count=100,
    )
    (entry,) = Postings([part]).entries()
    assert _answers(entry) == [(number, number) for number in range(90, 100)]
    assert entry.cut
    assert (entry.responding, entry.showing) == (99, 100)
    shown = np.cumsum(read_back(entry.where))
    # Two texts have each offset below 36: the ten nearest to the middle are those of five offsets.
    assert sorted(abs(number % 64 - MIDDLE) for number in shown.tolist()) == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert index._row(entry)[5:] == [99, 100]


class _Index:
    """An index as scripts read it, slowly."""

    def __init__(self, folder: Path) -> None:
        (self.index,) = read_index_file(folder / "index.js")
        self.rows: dict[str, list[Any]] = {}
        for number, first in enumerate(self.index["shards"]):
            place, rows = read_index_file(folder / f"s{number}.js")
            assert (place, rows[0][0]) == (number, first)
            self.rows.update((row[0], row) for row in rows)
        self.texts: list[list[str]] = []
        for number in range(-(-self.index["behaviours"] // self.index["block"])):
            place, texts = read_index_file(folder / f"x{number}.js")
            assert place == number
            self.texts += texts
        self.units = {layer: read_index_file(folder / f"l{layer}.js")[1] for layer, _, _ in self.index["layers"]}

    def answers(self, word: str) -> dict[int, int]:
        row = self.rows[word]
        return dict(zip(np.cumsum(read_back(row[1])).tolist(), read_back(row[2]), strict=True))

    def shown(self, word: str) -> set[int]:
        return set(np.cumsum(read_back(self.rows[word][3])).tolist())


@pytest.fixture(params=["tiny_site", "hostile_site"])
def built(request: pytest.FixtureRequest) -> Path:
    site: Path = request.getfixturevalue(request.param)
    return site


def test_the_index_holds_what_the_stages_found_and_nothing_else(built: Path) -> None:
    index, stages = _Index(built / "search"), stages_of(work_folder(built))
    answers: dict[str, dict[int, int]] = defaultdict(dict)
    shown: dict[str, set[int]] = defaultdict(set)
    labels: dict[int, list[list[str]]] = {}
    number = 0
    for layer in stages.collected.layers:
        labels[layer.layer] = [[] for _ in range(layer.units)]
        for behaviour, found in zip(
            stages.layer(layer.layer).clustered.behaviours,
            stages.layer(layer.layer).described.behaviours,
            strict=True,
        ):
            assert stages.links.address[number].tolist() == [layer.layer, behaviour["unit"], behaviour["id"]]
            labels[layer.layer][behaviour["unit"]].append(found["label"])
            spelt = [(stages.collected.texts_read[token], share) for token, share in found["tokens"]]
            for word, share in (*found["words"], *spelt):
                own = answers[normalise.search_key(word)]
                own[number] = max(own.get(number, 1), round(1000 * share))
            label, before, key, after = index.texts[number]
            assert label == found["label"]
            example = layer.examples[behaviour["central"]]
            text = stages.collected.contexts.text_of(int(example["context"]))
            token = stages.collected.token_texts[text[example["position"]]]
            assert token in key or "<0x" in token
            whole = "".join(stages.collected.token_texts[token] for token in text)
            assert "".join((before + key + after).split()) in "".join(whole.split()) or "<0x" in whole
            for start, end in normalise.pieces(before + key + after):
                shown[normalise.same((before + key + after)[start:end])].add(number)
            number += 1
    assert index.index["behaviours"] == number == len(index.texts)
    assert index.units == labels
    assert list(index.rows) == sorted(index.rows)
    assert {
        word: {n: s for n, s in index.answers(word).items() if s} for word in index.rows if word in answers
    } == answers
    assert {word: index.shown(word) for word in index.rows if index.shown(word)} == shown
    # What is neither is a word of a label.
    for word in set(index.rows) - set(answers) - set(shown):
        for number in index.answers(word):
            assert word in normalise.same(index.texts[number][0])


def test_words_and_units_are_listed_for_patterns_and_filters(built: Path) -> None:
    built_index, stages = _Index(built / "search"), stages_of(work_folder(built))
    listed, counts = index.read_index_file(built / "search" / "words.js")
    assert dict(zip(listed, read_back(counts), strict=True)) == {
        word: count
        for word in built_index.rows
        if (count := sum(share > 0 for share in built_index.answers(word).values()))
    }
    (columns,) = index.read_index_file(built / "search" / "units.js")
    measures = np.concatenate([layer.clustered.measures[:, 0] for layer in stages.layers])
    density = np.concatenate([layer.moments.density for layer in stages.collected.layers])
    for (values, codes), exact, within in (
        (columns["effective"], measures["effective_behaviours"], 0.05),
        (columns["density"], density, 0.06),
    ):
        kept = [values[code] for code in read_back(codes)]
        for value, true in zip(kept, exact.tolist(), strict=True):
            assert (value is None and np.isnan(true)) or value == pytest.approx(true, rel=within)


def test_an_index_names_its_files(built: Path) -> None:
    (found,) = read_index_file(built / "search" / "index.js")
    assert sorted(index.index_files(found)) == sorted(path.name for path in (built / "search").iterdir())


def test_an_index_is_the_same_bytes_whoever_gathers_it(
    tiny_site: Path, pool: Executor, configure: Configure, tmp_path: Path
) -> None:
    settings: Configuration = configure()
    index.write_index(tmp_path / "again", stages_of(work_folder(tiny_site)), settings.examples.window, pool)
    for path in (tiny_site / "search").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_queries_to_try_are_of_the_atlas(demo_site: Path, pool: Executor, tmp_path: Path) -> None:
    queries = index.write_index(tmp_path / "search", stages_of(work_folder(demo_site)), (20, 10), pool)
    made = _Index(tmp_path / "search")
    assert len(queries.words) == 6
    for word in queries.words:
        assert max(made.answers(word).values()) >= 150
    assert queries.phrase
    first, second = queries.phrase.split()
    assert made.shown(first) & made.shown(second)
    page = (demo_site / "search.html").read_text(encoding="utf-8")
    assert f"search.html?q={queries.words[0]}" in page

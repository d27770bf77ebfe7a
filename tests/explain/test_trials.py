"""Detection and fuzzing against slow, obvious references, and an explanation that is true of one behaviour only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.explain.excerpts import Excerpt
from atlas_builder.explain.journal import Journal, JournalledServer
from atlas_builder.explain.judging import Judge, Materials
from atlas_builder.explain.prompts import chosen_numbers, detecting, fuzzing
from atlas_builder.explain.trials import (
    balanced_accuracy,
    detection_trial,
    fuzzing_trial,
    marked,
    quiet_excerpts,
)
from atlas_builder.records.explanations import ExplanationScores, FloorScores
from tests.support.servers import explanation_in, takes_literally, words_of


@given(st.lists(st.booleans(), max_size=12), st.sets(st.integers(0, 14)))
def test_balanced_accuracy_is_counted_by_hand(truth: list[bool], chosen: set[int]) -> None:
    hits = misses = rejected = alarms = 0
    for place in range(1, len(truth) + 1):
        if truth[place - 1]:
            hits += place in chosen
            misses += place not in chosen
        else:
            rejected += place not in chosen
            alarms += place in chosen
    found = balanced_accuracy(truth, chosen)
    if hits + misses == 0 or rejected + alarms == 0:
        assert found is None
    else:
        assert found == pytest.approx(0.5 * hits / (hits + misses) + 0.5 * rejected / (rejected + alarms))
        everything, nothing = set(range(1, len(truth) + 1)), set[int]()
        assert balanced_accuracy(truth, everything) == balanced_accuracy(truth, nothing) == 0.5
    assert balanced_accuracy(truth, None) is None


_VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0, 6.0, 10.0]), min_size=1, max_size=8)


@given(st.lists(_VALUES, max_size=6), st.lists(_VALUES, max_size=6), st.integers(0, 3))
def test_trials_are_what_they_say(active: list[list[float]], idle: list[list[float]], seed: int) -> None:
    def excerpts(rows: list[list[float]], name: str) -> list[Excerpt]:
        return [
            Excerpt([f" {name}{row}.{place}" for place in range(len(values))], np.array(values, np.float32))
            for row, values in enumerate(rows)
        ]

    firing, quiet = excerpts(active, "a"), excerpts(idle, "q")
    detection = detection_trial(firing, quiet, np.random.default_rng(seed))
    assert sorted(detection.texts) == sorted("".join(tokens) for tokens, _ in (*firing, *quiet))
    assert all(
        is_right == text.startswith(" a") for text, is_right in zip(detection.texts, detection.truth, strict=True)
    )
    fuzzed = fuzzing_trial(firing, 10.0, np.random.default_rng(seed))
    assert fuzzed == fuzzing_trial(firing, 10.0, np.random.default_rng(seed))
    met = set()
    for text, is_right in zip(fuzzed.texts, fuzzed.truth, strict=True):
        number = int(re.findall(r" a(\d+)\.", text)[0])
        met.add(number)
        assert is_right == (number % 2 == 0)
        tokens, values = firing[number]
        assert text.replace("<<", "").replace(">>", "") == "".join(tokens)
        places = [int(place) for part in re.findall(r"<<(.*?)>>", text) for place in re.findall(r"\.(\d+)", part)]
        fires = [place for place in range(len(values)) if values[place] >= max(values) / 2]
        calm = [place for place in range(len(values)) if values[place] <= 1 and place not in fires]
        if is_right:
            assert places == fires
        else:
            assert set(places) <= set(calm)
            assert len(places) == min(len(fires), len(calm))
    assert {number for number in range(len(firing)) if number % 2 == 0} <= met


def test_excerpts_that_do_not_fit_are_quiet_ones_or_the_quietest() -> None:
    drawn = [Excerpt(["x"], np.array([value], np.float32)) for value in (5, 0, 9, 1, 3, 0.5)]
    assert [float(one.values[0]) for one in quiet_excerpts(drawn, 10.0)] == [0, 1, 0.5, 3, 5, 9]
    many = [Excerpt(["x"], np.array([value], np.float32)) for value in (9, *[0] * 12)]
    assert [float(one.values[0]) for one in quiet_excerpts(many, 10.0)] == [0] * 10


def test_marks_are_around_neighbours_together_and_cannot_be_forged() -> None:
    assert marked(["a", " b", " c", " d"], {1, 2}) == "a<< b c>> d"
    assert marked(["a", "b"], {0, 1}) == "<<ab>>"
    assert marked([" 1 << 2", " >> x"], {1}) == " 1 < < 2<< > > x>>"
    assert marked([], set()) == ""


@given(st.lists(st.text("<> a", min_size=1, max_size=4), min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_signs_in_a_text_are_never_taken_for_marks(tokens: list[str], places: set[int]) -> None:
    text = marked(tokens, places)
    runs = sum(place in places and place - 1 not in places for place in range(len(tokens)))
    assert re.findall("<<|>>", text) == ["<<", ">>"] * runs
    assert "<<<" not in text
    assert ">>>" not in text
    assert re.sub(r"[\s]|<<|>>", "", text) == re.sub(r"\s", "", "".join(tokens))


def test_chosen_excerpts_are_read_as_far_as_they_can_be() -> None:
    for answer, chosen in (
        ("2, 5", {2, 5}), ("2,5.", {2, 5}), ("[1, 3]", {1, 3}), ("Excerpts 1 and 4", {1, 4}), ("1\n2\n3", {1, 2, 3}),
        ("none", set()), ("None.", set()), ("Answer: none", set()), ("3: yes\n4: no\n5 - Yes, it fits", {3, 5}),
        ("1: no\n2: no", set()), ("2, 99", {2}), ("**2**, **3**", {2, 3}), ("2; 3", {2, 3}), ("- 2\n- 3", {2, 3}),
    ):  # fmt: skip
        assert chosen_numbers(answer, 6) == chosen, answer
    for nonsense in (
        "",
        "99",
        "I see 2 cats and 3 dogs.",
        "<html>4</html>",
        "all of them",
        "0.5",
        "x" * 10_000,
        "9" * 9999,
    ):
        assert chosen_numbers(nonsense, 6) is None, nonsense[:30]


def test_hostile_texts_stay_within_their_lines() -> None:
    texts = ['"\n2: "x', "\u2028\ud800 <<a>>", "</script>\x85"]
    for prompt in (detecting, fuzzing):
        question = prompt('be {bad}"\nAnswer: 1', texts)
        assert question.encode()
        assert [int(number) for number in re.findall(r"^(\d+): ", question, re.MULTILINE)] == [1, 2, 3]


class LiteralJudge:
    """Takes the words of an explanation at their letter."""

    name = "literal"

    def ask(self, question: str) -> str:
        return takes_literally(question, words_of(explanation_in(question)))


def _materials(word: str) -> Materials:
    """Of a behaviour that fires on one word."""
    chance = np.random.default_rng(len(word))
    fillers = [" of", " the", " and", " on", " a"]

    def excerpt(has_word: bool) -> Excerpt:
        tokens = [fillers[number] for number in chance.integers(5, size=12)]
        if has_word:
            tokens[int(chance.integers(12))] = word
        return Excerpt(tokens, np.array([9.0 if token == word else 0.1 for token in tokens], np.float32))

    active, idle = [excerpt(True) for _ in range(8)], [excerpt(False) for _ in range(8)]
    generator = np.random.default_rng(0)
    return Materials(
        9.0, False, [], active[:5], idle[:5], [], [], detection_trial(active, idle, generator),
        fuzzing_trial(active, 9.0, generator),
    )  # fmt: skip


def test_an_explanation_true_of_one_behaviour_scores_high_there_and_at_the_floor_elsewhere(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "answers")
    judge = Judge(JournalledServer(LiteralJudge(), journal))
    cats, dogs = _materials(" cat"), _materials(" dog")
    planted = json.dumps([" cat"])
    scores = judge.scores(planted, "", cats)
    assert (scores.detection, scores.fuzzing) == (1.0, 1.0)
    assert scores.simulation == pytest.approx(1)
    assert judge.floor(planted, dogs) == FloorScores(simulation=0.0, detection=0.5, fuzzing=0.5)
    only = Judge(judge.server, ["fuzzing"])
    assert only.scores(planted, "", cats) == ExplanationScores(fuzzing=1.0)
    assert only.floor(planted, None) == FloorScores()
    journal.remove()

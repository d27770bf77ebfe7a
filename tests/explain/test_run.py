"""Explanations by another model: a server on this machine stands for it, behind the code that users run."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from atlas_builder.cli import main
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.client import NoAnswerError, OpenAIServer, ServerError, after_reasoning
from atlas_builder.explain.excerpts import INTERVALS, LONG, SHORT, TOP, Excerpt, ExcerptPlace, cut, plan
from atlas_builder.explain.prompts import chosen_numbers, explaining, levels, simulated, simulating
from atlas_builder.explain.run import explain
from atlas_builder.explain.scoring import correlation, rank_correlation
from atlas_builder.records.explanations import ExplanationScores
from tests.support.servers import looks_up, serving


def run(site: Path, address: str, output: Path, *more: str) -> Result:
    command = ["explain", str(site), "--server", address, "--model", "stand-in", "--output", str(output), *more]
    return CliRunner().invoke(main, command)


def test_a_model_that_looks_tokens_up_is_scored_as_its_answers_deserve(tiny_site: Path, tmp_path: Path) -> None:
    with serving(looks_up) as address:
        result = run(tiny_site, address, tmp_path / "said.jsonl", "--units", "6")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert len({one["id"] for one in found}) == len(found) >= 4
    for one in found:
        assert json.loads(one["explanation"])
        assert -1 <= one["scores"]["whole_range"] <= 1
        # Tokens tell much of where units of a random model fire.
        assert one["scores"]["simulation"] > 0.3
        assert one["scores"]["simulation"] > one["floor"]["simulation"]
    assert re.search(
        r"layer 0, units, explain: simulation 0\.\d{3} \(\d; floor -?0\.\d{3}\), random_only", result.output
    )


def test_the_score_is_that_of_the_simulated_text(tiny_site: Path, tmp_path: Path) -> None:
    questions: list[str] = []

    def counts(question: str) -> str:
        """Says that every third token has its number's last digit."""
        questions.append(question)
        if "We study" in question:
            return "every third"
        numbers = [int(number) for number in re.findall(r"^(\d+): ", question, re.MULTILINE)]
        return "\n".join(f"{number}: {number % 10}" for number in numbers if number % 3 == 0)

    with serving(counts) as address:
        server = OpenAIServer(address, "m")
        (one,) = explain(tiny_site, server, tmp_path / "said", units=1, seed=3, scores=["simulation"])
    from atlas_builder.rerun.source import open_rerun

    source = open_rerun(tiny_site)
    layer, unit = one.layer, int(one.id.rsplit("N", 1)[1])
    activations = [
        seen[layer][1][row, :, unit].numpy()
        for number in range(len(source.text))
        for _, seen in source.reader.run(source.text, [number], [layer])
        for row in (0,)
    ]
    high = np.array([own.max() for own in activations])
    at = np.array([own.argmax() for own in activations], np.int32)
    lengths = np.array([len(own) for own in activations])
    planned = plan(high, at, lengths, [3, layer, unit])

    def predictions(places: list[tuple[int, int, int]], joined: bool) -> tuple[list[float], list[float]]:
        found: list[float] = []
        truth: list[float] = []
        for context, first, tokens in places:
            own = np.maximum(activations[context][first : first + tokens], 0)
            start = len(found) if joined else 0
            numbers = range(start + 1, start + len(own) + 1)
            found += [float(number % 10) if number % 3 == 0 else 0.0 for number in numbers]
            truth += own.tolist()
        return found, truth

    for score, wanted in (
        (one.scores.simulation, pearsonr(*predictions([*planned.top, *planned.random], False))),
        (one.scores.random_only, pearsonr(*predictions(list(planned.random), False))),
        (one.scores.whole_range, spearmanr(*predictions(list(planned.range_scored), True))),
    ):
        assert score == pytest.approx(wanted.statistic, abs=2e-3)
    of_floor = len(questions) - (2 + len(planned.top) + len(planned.random) + 1)
    assert 0 < of_floor <= 2 * TOP
    assert (one.scores.detection, one.scores.fuzzing) == (None, None)


def test_what_was_stopped_goes_on_and_asks_nothing_twice(tiny_site: Path, tmp_path: Path) -> None:
    output = tmp_path / "said.jsonl"
    asked: list[str] = []

    def listens(question: str) -> str:
        asked.append(question)
        return looks_up(question)

    with serving(listens) as address:
        server = OpenAIServer(address, "m")
        whole = explain(tiny_site, server, output, units=4)
        text = output.read_text()
        lines = text.splitlines(keepends=True)
        output.write_text("".join(lines[:2]) + lines[2][:20])  # stopped amid the third
        asked.clear()
        assert explain(tiny_site, server, output, units=4) == whole
        assert sorted(output.read_text().splitlines()) == sorted(text.splitlines())
        half = len(asked)
        asked.clear()
        assert explain(tiny_site, server, output, units=4) == whole
        assert half > 0
        assert asked == []
        with pytest.raises(ConfigurationError, match="holds explanations by another model or seed"):
            explain(tiny_site, server, output, units=4, seed=1)
    other = tmp_path / "letter.txt"
    other.write_text("Dear all,\n")
    with pytest.raises(ConfigurationError, match="is not a file of explanations: name another file"):
        explain(tiny_site, server, other)
    assert other.read_text() == "Dear all,\n"
    other.write_text('{"my": "precious data"}')
    with pytest.raises(ConfigurationError, match="is not a file of explanations: name another file"):
        explain(tiny_site, server, other)
    assert other.read_text() == '{"my": "precious data"}'
    with FileLock(tmp_path / ".said.jsonl.lock"), pytest.raises(ConfigurationError, match="another run writes to"):
        explain(tiny_site, server, output)


def test_a_server_that_fails_is_one_sentence(tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.01)
    with serving(looks_up, status=404) as address:
        result = run(tiny_site, address, tmp_path / "said", "--units", "1")
        assert result.exit_code == 1
        assert re.search(r"/v1 does not answer \(.*404.*\): check the address, model and key\.", result.output)
    with serving(lambda _: "I would rather not.") as address:
        (one,) = explain(tiny_site, OpenAIServer(address, "m"), tmp_path / "said", units=1)
        assert one.scores == ExplanationScores()
        assert one.explanation == "I would rather not."
        result = run(tiny_site, address, tmp_path / "told", "--units", "1")
        assert re.search(
            r"(\d+) of \1 answers of \S+ as the judge are not in the form that is asked for", result.output
        )
    page = tmp_path / "page"
    with serving(looks_up, body=b"<!doctype html><title>Hello</title>") as address:
        result = run(tiny_site, address, page, "--units", "1")
        assert "does not answer (" in result.output
    result = run(tiny_site, "http://[::1", page, "--units", "1")
    assert "http://[::1 is not a valid address" in result.output
    with serving(lambda _: "") as address, pytest.raises(ServerError, match="returned an empty answer"):
        OpenAIServer(address, "m").ask("?")


def test_answers_end_after_so_many_tokens_under_the_name_that_the_model_takes() -> None:
    seen: list[dict[str, Any]] = []

    def answers(asked: dict[str, Any]) -> tuple[int, str]:
        seen.append(asked)
        if "max_tokens" in asked:
            return 400, '{"error": {"message": "Use \'max_completion_tokens\' instead of \'max_tokens\'."}}'
        return 200, json.dumps({"id": "1", "object": "x", "created": 0, "model": "m", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "length"}]})  # fmt: skip

    with serving(looks_up, whole=answers) as address:
        server = OpenAIServer(address, "m", answer_tokens=64)
        assert [server.ask("How are you?"), server.ask("And now?")] == ["well", "well"]
    assert [(one.get("max_tokens"), one.get("max_completion_tokens")) for one in seen] == [
        (64, None), (None, 64), (None, 64)
    ]  # fmt: skip


def test_a_model_that_takes_no_temperature_is_asked_without() -> None:
    def answers(asked: dict[str, Any]) -> tuple[int, str]:
        if "temperature" in asked:
            return 400, json.dumps({"error": {"message": "Unsupported value: 'temperature'", "type": "bad"}})
        return 200, json.dumps({"id": "1", "object": "x", "created": 0, "model": "m", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}]})  # fmt: skip

    with serving(looks_up, whole=answers) as address:
        assert OpenAIServer(address, "m").ask("How are you?") == "well"
    refused = (400, '{"error": {"message": "no such thing"}}')
    with serving(looks_up, whole=lambda _: refused) as address, pytest.raises(ServerError, match="no such thing"):
        OpenAIServer(address, "m").ask("How are you?")


def test_nothing_explained_is_scored_and_every_part_of_the_range_is_there() -> None:
    chance = np.random.default_rng(0)
    high = np.concatenate([chance.random(900), np.zeros(100)]).astype(np.float32)
    at, lengths = chance.integers(0, 100, 1000).astype(np.int32), np.full(1000, 127)
    planned = plan(high, at, lengths, [0, 1, 2])
    best = np.argsort(-high, kind="stable")[: 2 * TOP]
    assert sorted(place.context for place in (*planned.explained, *planned.top)) == sorted(best.tolist())
    for explained, scored in (
        (planned.explained, [*planned.top, *planned.random]), (planned.range_explained, planned.range_scored)
    ):  # fmt: skip
        assert not {place.context for place in explained} & {place.context for place in scored}
        parts = {min(INTERVALS - 1, int(high[place.context] / high.max() * INTERVALS)) for place in scored}
        assert parts == set(range(INTERVALS)) or explained is planned.explained
    for place in (*planned.explained, *planned.top):
        assert place.first <= at[place.context] < place.first + LONG <= 127
    for place in planned.range_scored:
        assert place.first <= at[place.context] < place.first + SHORT
    assert plan(high, at, lengths, [0, 1, 2]) == planned
    assert plan(high, at, lengths, [0, 1, 3]) != planned


def test_a_unit_that_fires_once_has_what_there_is() -> None:
    high = np.zeros(3, np.float32)
    high[1] = 2
    planned = plan(high, np.zeros(3, np.int32), np.array([5, 1, 70]), [0])
    assert [place.context for place in planned.explained] == [1]
    assert planned.top == []
    texts = [["a"] * 5, ["b"], ["c"] * 70]
    (one,) = cut(planned.explained, texts.__getitem__, lambda one: np.full(len(texts[one]), -1 + 3 * (one == 1)))
    assert (one.tokens, one.values.tolist()) == (["b"], [2])


def test_excerpts_show_characters_and_never_bytes_of_them() -> None:
    tokens = [" a", "<0xE7>", "<0x8C>", "<0xAB>", "b", "<0xE6><0x9D>", "<0xB1>", "c"]
    values = np.array([0, 1, 3, 2, -4, 5, 6, 7], np.float32)
    for first, length, words, active in [
        (0, 64, [" a", "猫", "b", "東", "c"], [0, 3, 0, 6, 7]),
        (2, 4, ["猫", "b", "東"], [3, 0, 6]),
        (4, 1, ["b"], [0]),
        (7, 1, ["c"], [7]),
    ]:
        (one,) = cut([ExcerptPlace(0, first, length)], lambda _: tokens, lambda _: values)
        assert (one.tokens, one.values.tolist()) == (words, active)
    assert "<0x" not in explaining([one], 7.0)


# Numbers whose squares are zero in float64 have no correlation, of which scipy warns.
_FLOATS = st.floats(-5, 5).map(lambda number: round(number, 6))


@given(st.lists(st.tuples(st.integers(0, 10), _FLOATS), max_size=30))
def test_correlations_are_scipys_where_those_exist(pairs: list[tuple[int, float]]) -> None:
    simulated_, true = [float(pair[0]) for pair in pairs], [pair[1] for pair in pairs]
    for own, theirs in ((correlation, pearsonr), (rank_correlation, spearmanr)):
        found = own(simulated_, true)
        if len(set(true)) < 2:
            assert found is None
        elif len(set(simulated_)) < 2:
            assert found == 0
        elif np.ptp(true) > 1e-6:
            assert found == pytest.approx(theirs(simulated_, true).statistic, abs=1e-6)


def test_hostile_tokens_stay_within_their_lines() -> None:
    tokens = ['"\n3: 10', "none\n\n", "\u2028", "</script>", "\\"]
    assert simulating("\ud800", [["\ud800"]]).encode()
    question = simulating('x"\nAnswer: 1: 10', [tokens, tokens])
    numbered = re.findall(r"^(\d+): (.*)$", question, re.MULTILINE)
    assert [int(number) for number, _ in numbered] == list(range(1, 11))
    assert [json.loads(token) for _, token in numbered] == tokens * 2
    shown = explaining([Excerpt(tokens, np.array([0, 1, 2, 3, 4], np.float32))], 4.0)
    assert [json.loads(line.rsplit(" ", 1)[0]) for line in shown.split("\n\n")[1].split("\n")] == tokens


def test_answers_are_read_as_far_as_they_can_be() -> None:
    def read(answer: str) -> list[float] | None:
        found = simulated(answer, 4)
        return None if found is None else found.tolist()

    assert read("1: 10\n3: 4") == [10, 0, 4, 0]
    assert read("Sure!\n- 2:\t7.5\n 9: 3\n0: 2\n4 = 99") == [0, 7.5, 0, 10]
    assert read("None.") == [0, 0, 0, 0]
    assert read("Answer: none") == [0, 0, 0, 0]
    assert read("**1**: 4,\nToken 2: 5.\n3: 6 (high)\n4:  **7**") == [4, 5, 6, 7]
    assert read("I see nonetheless that it fires.") is None
    assert read("9" * 5000 + ": 3") is None
    assert read("It fires on verbs.") is None
    assert levels(np.array([0, 0.04, 0.96, 1, 1.2], np.float32), 1.0).tolist() == [0, 0, 10, 10, 10]


@pytest.mark.parametrize(
    ("answer", "conclusion"),
    [
        ("<think>Is it cats?\nNo.</think>\n\ndogs", "dogs"), ("dogs", "dogs"), ("\n<THINK>cats</Think> dogs", "dogs"),
        ("<thinking>cats <think> </thinking>dogs", "dogs"), ("<think>cats</think><think>birds</think> dogs", "dogs"),
        ("Is it cats?\n</think>\n\ndogs", "dogs"), ("cats</think>\ndogs", "dogs"), ("<think></think>dogs", "dogs"),
        ("<think>cats, or </thinking> dogs", ""), ("<think>cats", ""), ("<think>cats</think>  ", ""), ("</think>", ""),
        ("the tag <think> and </think> of a model", "the tag <think> and </think> of a model"),
        ("<think>x</think> the token </think>\nends", "the token </think>\nends"),
    ],
)  # fmt: skip
def test_an_answer_is_what_follows_the_reasoning(answer: str, conclusion: str) -> None:
    assert after_reasoning(answer) == conclusion


def test_a_server_gives_no_reasoning_and_says_where_there_is_nothing_else() -> None:
    with serving(lambda question: "<think>cats</think>\ndogs") as address:
        assert OpenAIServer(address, "m").ask("what?") == "dogs"
    with serving(lambda question: "<think>cats and") as address, pytest.raises(ServerError, match="and no answer"):
        OpenAIServer(address, "m").ask("what?")

    def in_parts(asked: dict[str, Any]) -> tuple[int, str]:
        content = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "cats"}]},
            {"type": "text", "text": "dogs"},
        ]
        message = {"role": "assistant", "content": content, "reasoning_content": "cats"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        )

    with serving(lambda question: "", whole=in_parts) as address:
        assert OpenAIServer(address, "m").ask("what?") == "dogs"


@pytest.mark.parametrize(
    "body",
    ["{}", "null", "[]", '"text"', '{"error": {"message": "overloaded"}}', '{"choices": null}', '{"choices": {}}',
     '{"choices": [null]}', '{"choices": [{"message": null}]}', '{"choices": "abc"}', "[" * 100_000, " ", "\x00"],
)  # fmt: skip
def test_what_is_no_chat_completion_is_a_sentence(body: str) -> None:
    sentence = r"does not answer \(.+\): check the address, model and key\.$"
    with serving(looks_up, whole=lambda _: (200, body)) as address, pytest.raises(ServerError, match=sentence) as error:
        OpenAIServer(address, "m").ask("what?")
    assert "\n" not in str(error.value)
    assert "NoneType" not in str(error.value)


@pytest.mark.parametrize("content", [None, 3, {"a": 1}, ["a", 3], [None], [{"type": "text", "text": {}}], float("nan")])
def test_a_message_without_text_is_no_answer(content: object) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}}]})
    sentence = "m returned an empty answer: check the model and try again"
    with serving(looks_up, whole=lambda _: (200, body)) as address, pytest.raises(NoAnswerError, match=sentence):
        OpenAIServer(address, "m").ask("what?")


def test_an_answer_that_runs_on_is_read_at_once() -> None:
    """A small model often ends in thousands of empty lines; none of the expressions reads them more than once."""
    for part in ("\n", "-\n", "\t", "1\t", " ", "</", "<think>", "token ", "1 "):
        answer = f"a\n1{part * 100_000}a"
        started = time.process_time()
        after_reasoning(answer)
        simulated(answer, 8)
        chosen_numbers(answer, 8)
        assert time.process_time() - started < 1, part
    assert chosen_numbers("\n\n - 1: yes\n\n\n* Excerpt 3) no", 5) == {1}

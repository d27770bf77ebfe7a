"""Behaviours explained and scored: by a server on this machine, and by one that counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from atlas_builder import reader
from atlas_builder.cli import main
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.client import NoAnswerError, OpenAIServer, ServerError
from atlas_builder.explain.judging import Materials
from atlas_builder.explain.materials import MaterialsReader
from atlas_builder.explain.plans import MEDIUM, RECOGNISED, behaviour_plan
from atlas_builder.explain.results import digest, kept_text, read_explanations
from atlas_builder.explain.run import explain
from atlas_builder.explain.targets import ExplainTarget, Targets
from atlas_builder.files import read_json
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import LONGEST_TEXT, Explanation, ExplanationScores
from atlas_builder.records.schema import Record
from atlas_builder.rerun.source import Rerun, open_rerun
from tests.support.atlases import Configure, Listener, Once
from tests.support.servers import listening, looks_up, serving


class CountingServer:
    """Answers as a function says, and remembers the questions; fails at one of them."""

    name = "m"

    def __init__(self, answer: Callable[[str], str] = looks_up, fails_at: int | None = None) -> None:
        self.asked: list[str] = []
        self._answer, self._fails_at = answer, fails_at
        self._lock = threading.Lock()

    def ask(self, question: str) -> str:
        with self._lock:
            if len(self.asked) == self._fails_at:
                raise KeyboardInterrupt
            self.asked.append(question)
        return self._answer(question)


def run(site: Path, output: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["explain", str(site), "--output", str(output), *more])


@pytest.fixture(scope="module")
def source(tiny_site: Path) -> Rerun:
    return open_rerun(tiny_site)


def test_random_behaviours_are_explained_beside_labels_and_tokens_and_above_the_floor(
    tiny_site: Path, tmp_path: Path
) -> None:
    with serving(looks_up) as address:
        server = ("--server", address, "--model", "stand-in")
        result = run(tiny_site, tmp_path / "said", *server, "--behaviours", "12")
        assert result.exit_code == 0, result.output
        lines = read_explanations(tmp_path / "said")
        assert "explanations: " in result.output.splitlines()[-1]
        by_source = {kind: [one for one in lines if one.source == kind] for kind in ("explain", "label", "tokens")}
        assert [len(by_source["explain"]), len(by_source["label"])] == [12, 12]
        for one in lines:
            assert one.behaviour is not None
            assert one.does == digest(tiny_site, one.layer, one.unit, one.behaviour)
            assert (one.judge, one.range_explanation, one.scores.whole_range) == ("stand-in", "", None)
            assert one.model == ("stand-in" if one.source == "explain" else "")
        # Tokens tell much of where units of a random model fire, and nothing of where others do.
        for kind in ("explain", "tokens"):
            scored = [(one.scores.simulation, one.floor.simulation) for one in by_source[kind]]
            means = np.array([pair for pair in scored if None not in pair], float).mean(0)
            assert means[0] > means[1] + 0.15
        few = run(tiny_site, tmp_path / "few", *server, "--only", "L0/N0", "--scores", "detection", "--no-baselines")
        assert few.exit_code == 0, few.output
    (one,) = read_explanations(tmp_path / "few")
    assert (one.id, one.behaviour, one.scores.simulation, one.scores.fuzzing) == ("tiny/L0/N0", None, None, None)
    assert one.scores.detection is not None
    assert list(json.loads(one.line)) == [
        "id", "layer", "unit", "behaviour", "does", "model", "source", "judge", "seed", "explanation",
        "range_explanation", "scores", "floor",
    ]  # fmt: skip


def test_what_is_named_is_explained_and_what_does_not_exist_is_a_sentence(tiny_site: Path) -> None:
    targets = Targets(reader.open(tiny_site))
    first = targets.main[0]
    assert targets.named(first.name) == targets.named(f"tiny/{first.name}") == first
    assert targets.chosen([first.name, "L1/N3"], 0, 0, 0) == sorted({first, ExplainTarget(1, 3)})
    for wrong in ("L9/N0", "L0/N0#b99", "L0/N9999"):
        with pytest.raises(ConfigurationError, match=r"--only: the atlas has no .*: choose one that has a page\."):
            targets.named(wrong)
    for wrong in ("", "verbs", "demo/L0/N0", "L0/N0#3", "L0/N0#b"):
        with pytest.raises(ConfigurationError, match="is no unit or behaviour of this atlas: write L2/N17"):
            targets.named(wrong)
    drawn = targets.chosen([], 10, 5, 3)
    assert drawn == targets.chosen([], 10, 5, 3)
    assert (len(drawn), sum(not target.behaviour for target in drawn)) == (15, 5)
    assert len(targets.chosen([], 10**6, 0, 0)) == len(targets.main)
    for target in drawn:
        other = targets.other(target, 0)
        assert other is not None
        assert (other.layer, bool(other.behaviour)) == (target.layer, bool(target.behaviour))
        assert other.unit != target.unit


def _record(site: Path, target: ExplainTarget) -> Record:
    record: Record = read_json(site / UnitAddress(target.layer, target.unit).record)
    return record


def _materials(site: Path, source: Rerun, *targets: ExplainTarget) -> dict[ExplainTarget, Materials]:
    materials = MaterialsReader(source, Targets(reader.open(site)), 0)
    return materials.read(targets, lambda target: _record(site, target), Progress(quiet=True))


def _activations(source: Rerun, layer: int, unit: int) -> list[np.ndarray]:
    """A unit's activations in each context."""
    return [
        seen[layer][1][0, :, unit].numpy()
        for number in range(len(source.text))
        for _, seen in source.reader.run(source.text, [number], [layer])
    ]


def test_detection_and_fuzzing_are_those_of_a_slow_reading_of_the_text(tiny_site: Path, source: Rerun) -> None:
    atlas = reader.open(tiny_site)
    targets = Targets(atlas)
    rows = atlas.examples.to_pylist()
    checked = 0
    for target in targets.main[::7]:
        materials = _materials(tiny_site, source, target)[target]
        values = _activations(source, target.layer, target.unit)
        of_unit = [row for row in rows if (row["layer"], row["unit"]) == target[:2]]
        own = [row for row in of_unit if row["behaviour"] == target.behaviour]
        own.sort(key=lambda row: -row["activation"])
        places = []
        for row in own:
            for number, (document, start, tokens) in enumerate(source.text.contexts):
                if document == row["document"] and start <= row["position"] < start + len(tokens):
                    key = row["position"] - start
                    assert values[number][key] == pytest.approx(row["activation"], rel=1e-3)
                    places.append((number, min(max(0, key - 24), max(0, len(tokens) - 32))))
        texts = [
            "".join(source.reader.token_texts[token] for token in source.text.contexts[number][2][first : first + 32])
            for number, first in places
        ]
        trial = materials.detection
        assert sorted(text for text, right in zip(trial.texts, trial.truth, strict=True) if right) == sorted(
            texts[1::2][:RECOGNISED]
        )
        assert ["".join(excerpt.tokens) for excerpt in materials.explained] == texts[::2][:8]
        wrong = [text for text, right in zip(trial.texts, trial.truth, strict=True) if not right]
        assert 0 < len(wrong) <= RECOGNISED
        for text in wrong:  # of contexts that are no example
            assert not set(texts) & {text}
        for excerpt, text in zip(materials.top, texts[1::2], strict=False):
            number, first = places[texts.index(text)]
            assert excerpt.values.tolist() == pytest.approx(
                np.maximum(values[number][first : first + len(excerpt.values)], 0).tolist(), abs=1e-5
            )
        checked += len(materials.top) > 1
    assert checked > 2


def test_a_score_is_the_balanced_accuracy_of_the_answer(tiny_site: Path, source: Rerun, tmp_path: Path) -> None:
    targets = Targets(reader.open(tiny_site))
    server = CountingServer(lambda question: "every third" if "We study" in question else "3, 6, 9, 12, 15, 18")
    lines = explain(
        tiny_site, server, tmp_path / "said", behaviours=6, baselines=False, scores=["detection", "fuzzing"]
    )
    for one in lines:
        target = ExplainTarget(one.layer, one.unit, one.behaviour or 0)
        other = targets.other(target, 0)
        assert other is not None
        read = _materials(tiny_site, source, target, other)
        for scores, materials in ((one.scores, read[target]), (one.floor, read[other])):
            for found, trial in ((scores.detection, materials.detection), (scores.fuzzing, materials.fuzzing)):
                right = [place % 3 == 0 for place, fits in enumerate(trial.truth, 1) if fits]
                wrong = [place % 3 != 0 for place, fits in enumerate(trial.truth, 1) if not fits]
                if right and wrong and len(trial.truth) >= 3:
                    assert found == pytest.approx((np.mean(right) + np.mean(wrong)) / 2, abs=1e-3)


def test_nothing_explained_is_scored_and_random_windows_are_in_no_example() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(5, 60, 100)
    contexts = chance.permutation(100)[:30].tolist()
    examples = [(context, int(chance.integers(lengths[context]))) for context in (*contexts, contexts[0])]
    planned = behaviour_plan(examples, [*contexts, 99], lengths, chance.permutation(100), [0, 1])
    explained = {place.context for place in planned.explained}
    scored = {place.context for place in (*planned.top, *planned.active)}
    drawn = [place.context for place in (*planned.random, *planned.idle)]
    assert not explained & scored
    assert not set(drawn) & {*contexts, 99}
    assert len(set(drawn)) == len(drawn) > 30
    assert explained == set(contexts[::2][:8])
    for place in planned.places:
        assert 0 <= place.first <= max(0, lengths[place.context] - MEDIUM)
    empty = behaviour_plan([], [], lengths[:0], np.zeros(0, np.int64), [0])
    assert empty.places == set()


def test_what_was_killed_goes_on_and_asks_nothing_twice(tiny_site: Path, tmp_path: Path) -> None:
    whole = CountingServer()
    wanted = explain(tiny_site, whole, tmp_path / "whole", behaviours=5, units=1)
    journal = tmp_path / ".said.answers.jsonl"
    assert not (tmp_path / ".whole.answers.jsonl").exists()
    killed = CountingServer(fails_at=40)
    with pytest.raises(KeyboardInterrupt):
        explain(tiny_site, killed, tmp_path / "said", behaviours=5, units=1)
    assert len(journal.read_text().splitlines()) >= 40
    again = CountingServer(fails_at=30)
    with pytest.raises(KeyboardInterrupt):
        explain(tiny_site, again, tmp_path / "said", behaviours=5, units=1, at_once=3)
    content = journal.read_bytes()
    last = content.rstrip(b"\n").rsplit(b"\n", 1)[1]
    journal.write_bytes(content.rstrip(b"\n")[: -len(last) // 2])  # killed amid a line: its answer is not known
    lines = (tmp_path / "said").read_text() if (tmp_path / "said").exists() else ""
    rest = CountingServer()
    assert explain(tiny_site, rest, tmp_path / "said", behaviours=5, units=1) == wanted
    assert (tmp_path / "said").read_text().startswith(lines)
    asked = [*killed.asked, *again.asked, *rest.asked]
    assert set(asked) == set(whole.asked)
    assert len(asked) <= len(whole.asked) + 1
    assert not journal.exists()
    nothing = CountingServer()
    assert explain(tiny_site, nothing, tmp_path / "said", behaviours=5, units=1) == wanted
    assert nothing.asked == []


@pytest.mark.parametrize(
    "said",
    ["x" * 10_000, "<h1>Hello</h1><script>alert(1)</script>", "I would rather not.", "a\u202eb\x00\u2028c", "9" * 9999],
    ids=["long", "HTML", "refuses", "hidden characters", "digits"],
)
def test_nonsense_is_kept_as_text_and_gives_no_score(tiny_site: Path, tmp_path: Path, said: str) -> None:
    server = CountingServer(lambda question: said)
    lines = explain(tiny_site, server, tmp_path / "said", behaviours=2, baselines=False)
    for one in lines:
        assert one.explanation == kept_text(said)
        assert 0 < len(one.explanation) <= LONGEST_TEXT
        assert one.explanation.isprintable()
        assert one.scores == ExplanationScores()
    written = read_explanations(tmp_path / "said")
    assert sorted(written, key=lambda one: one.key) == sorted(lines, key=lambda one: one.key)


def test_a_question_without_an_answer_costs_one_explanation_and_a_sentence(tiny_site: Path, tmp_path: Path) -> None:
    def answers(question: str) -> str:
        if "We study" in question and sum(map(ord, question)) % 3 == 0:
            raise NoAnswerError("m returned an empty answer")
        return looks_up(question)

    listener = Listener()
    server = CountingServer(answers)
    lines = explain(tiny_site, server, tmp_path / "said", behaviours=12, at_once=1, progress=listener)
    missing = 12 - sum(one.source == "explain" for one in lines)
    assert 0 < missing < 12
    assert any(line.startswith(f"{missing} of 12 have no explanation") for line in listener.lines)
    assert sum(one.source == "label" for one in lines) == 12
    # They are asked for again, and nothing else is.
    again = CountingServer()
    assert sum(one.source == "explain" for one in explain(tiny_site, again, tmp_path / "said", behaviours=12)) == 12
    assert sum("We study" in question for question in again.asked) == missing

    def refuses(question: str) -> str:
        raise NoAnswerError("m returned an empty answer")

    for number in (2, 30):
        with pytest.raises(ServerError, match="empty answer"):
            explain(tiny_site, CountingServer(refuses), tmp_path / "no", behaviours=number, baselines=False)
    assert read_explanations(tmp_path / "no") == []


def test_a_server_that_stops_loses_nothing(tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._constants.MAX_RETRY_DELAY", 0.002)
    asked: list[str] = []

    def stops(question: str) -> str:
        if len(asked) >= 25:
            raise RuntimeError("the power is off")
        asked.append(question)
        return looks_up(question)

    monkeypatch.setattr("socketserver.BaseServer.handle_error", lambda *_: None)
    options = ("--behaviours", "4", "--model", "m", "--seed", "2")
    with serving(stops) as address:
        result = run(tiny_site, tmp_path / "said", "--server", address, *options)
    assert result.exit_code == 1
    assert "does not answer (Connection error.): check the address, model and key." in result.output
    more: list[str] = []
    with serving(listening(more)) as address:
        result = run(tiny_site, tmp_path / "said", "--server", address, *options)
    assert result.exit_code == 0, result.output
    assert not set(asked) & set(more)
    assert len(read_explanations(tmp_path / "said")) == 12


def test_a_server_that_is_slow_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlas_builder.explain.client._SECONDS", 0.2)
    monkeypatch.setattr("atlas_builder.explain.client._RETRIES", 0)
    waits = threading.Event()
    monkeypatch.setattr("socketserver.BaseServer.handle_error", lambda *_: None)
    with serving(lambda question: str(waits.wait(5))) as address:
        with pytest.raises(ServerError, match=r"does not answer \(Request timed out\.\)"):
            OpenAIServer(address, "m").ask("?")
        waits.set()


def test_another_model_scores(tiny_site: Path, tmp_path: Path) -> None:
    says, judges = CountingServer(), CountingServer()
    judges.name = "judge"
    lines = explain(tiny_site, says, tmp_path / "said", behaviours=3, judge=judges)
    assert all("We study" in question for question in says.asked)
    assert not any("We study" in question for question in judges.asked)
    assert {one.judge for one in lines} == {"judge"}
    with pytest.raises(ConfigurationError, match="or scores by another model: name another file"):
        explain(tiny_site, says, tmp_path / "said", behaviours=3)
    for options, sentence in (
        (("--server", "http://localhost/v1"), "--server and --model go together"),
        (("--server", "http://x/v1", "--model", "m", "--judge-server", "x"), "name the model there with --judge"),
        (("--judge", "m"), "--judge scores beside --server and --model"),
        ((), "explain requires --server and --model, or --from"),
    ):  # fmt: skip
        result = run(tiny_site, tmp_path / "none", *options)
        assert result.exit_code == 2
        assert sentence in result.output


def test_lines_of_an_earlier_version_are_read_and_later_lines_replace_earlier_ones(
    tiny_site: Path, tmp_path: Path
) -> None:
    does = digest(tiny_site, 0, 1)
    old = {
        "id": "tiny/L0/N1", "layer": 0, "unit": 1, "does": does, "model": "m", "seed": 0,
        "explanation": "verbs", "range_explanation": "all verbs",
        "scores": {"top_and_random": 0.5, "random_only": None, "whole_range": 0.25},
    }  # fmt: skip
    file = tmp_path / "said"
    file.write_text(json.dumps(old) + "\n")
    (one,) = read_explanations(file)
    assert one == Explanation(
        "tiny/L0/N1", 0, 1, None, does, "m", "explain", "m", 0, "verbs", "all verbs",
        ExplanationScores(0.5, None, 0.25),
    )  # fmt: skip
    listener = Listener()
    file.write_text(one.line + replace(one, explanation="nouns").line + replace(one, model="other").line)
    assert [one.explanation for one in read_explanations(file, listener.say)] == ["nouns", "verbs"]
    assert listener.lines == [f"{file}: of its lines, 1 is of what a later line explains too, which counts"]
    # What was explained before is not explained again.
    file.write_text(one.line)
    server = CountingServer()
    assert explain(tiny_site, server, file, only=["L0/N1"]) == [one]
    assert server.asked == []


@pytest.mark.parametrize(
    "change",
    [{"layer": "0"}, {"unit": None}, {"scores": {"simulation": "high"}}, {"scores": {"detection": 2.0}}, {"does": "it"},
     {"explanation": 3}, {"behaviour": "1"}, {"scores": None}, {"seed": True}],
    ids=str,
)  # fmt: skip
def test_anything_else_is_no_file_of_explanations(tmp_path: Path, change: dict[str, object]) -> None:
    one = json.loads(Explanation("tiny/L0/N1", 0, 1, 2, "0" * 64, "m").line)
    (tmp_path / "said").write_text(json.dumps(one | change) + "\n")
    with pytest.raises(ConfigurationError, match="is not a file of explanations: name another file"):
        read_explanations(tmp_path / "said")


def test_a_digest_changes_with_what_it_is_of(tiny_site: Path) -> None:
    targets = Targets(reader.open(tiny_site))
    several = next(target for target in targets.main if target.behaviour > 1)
    digests = {digest(tiny_site, several.layer, several.unit, behaviour) for behaviour in (None, 1, several.behaviour)}
    assert len(digests) == 3
    with pytest.raises(KeyError):
        digest(tiny_site, 0, 0, 999)


@pytest.fixture(scope="module")
def gated_site(configure: Configure, llama_folder: Path, pool: Executor, once: Once) -> Path:
    """A built atlas of gated neurons, which have negative activations."""
    settings = configure(
        atlas={"id": "gated"}, model={"name": str(llama_folder)}, describe={"importance": "none"},
        clusters={"resamples": 2},
    )  # fmt: skip
    return once("gated-explained", lambda output: build(settings, output, executor=pool))


def test_a_behaviour_of_negative_activations_is_explained_by_how_far_below_zero_it_is(
    gated_site: Path, tmp_path: Path
) -> None:
    targets = Targets(reader.open(gated_site))
    below = [target for target in targets.main if targets.sign(target) < 0]
    assert below
    source = open_rerun(gated_site)
    target = below[0]
    record = _record(gated_site, target)
    materials = _materials(gated_site, source, target)[target]
    assert materials.maximum == -record["stats"]["min"]
    lowest = [values.min() for values in _activations(source, target.layer, target.unit)]
    assert materials.maximum == pytest.approx(-min(lowest), rel=1e-2)
    examples = targets.examples(target.layer, target.unit)
    own = examples.activations[examples.behaviours == target.behaviour]
    assert materials.explained[0].values.max() == pytest.approx(-own.min(), rel=1e-3)
    (one, *_) = explain(gated_site, CountingServer(), tmp_path / "said", only=[target.name])
    assert one.behaviour == target.behaviour
    assert one.scores.simulation is not None

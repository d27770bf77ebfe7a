"""Explanations that others made: taken as they are, with a sentence for each thing that is not as it should be."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from atlas_builder.cli import main
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.published import given_explanations
from atlas_builder.explain.results import digest, read_explanations
from atlas_builder.records.explanations import Explanation, ExplanationScores, parse_lines
from tests.support.servers import listening, looks_up, serving


def _neuronpedia(index: int | str, description: str | None, layer: str = "1-res", **more: object) -> dict[str, object]:
    return {
        "modelId": "tiny", "layer": layer, "index": str(index), "description": description, "typeName": "x",
        "explanationModelName": "gpt-4o-mini", **more,
    }  # fmt: skip


def test_files_of_delphi_are_descriptions_of_whole_units(tiny_site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "explanations"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "run_config.json").write_text(json.dumps({"explainer_model": "a/big-model"}))
    for name, content in {
        "layers.1.mlp_latent3.txt": json.dumps("verbs\nof motion"),
        "transformer.h.0.mlp_latent0.txt": json.dumps("<b>bold</b>"),
        "layers.1.mlp_latent999.txt": json.dumps("nobody"),
        "layers.7_latent0.txt": json.dumps("nowhere"),
        "layers.1.mlp_latent4.txt": json.dumps("  "),
        "layers.1.mlp_latent5.txt": json.dumps("x" * 10_000),
        "layers.1.mlp_latent6.txt": '"unfinished',
        "layers.1.mlp_latent7.txt": "[1]",
        "h.1_latent3.txt": json.dumps("verbs again"),
        "readme.txt": "hello",
        "mlp_latent1.txt": json.dumps("of no layer"),
    }.items():
        (folder / name).write_text(content)
    lines, sentences = given_explanations(f"delphi:{tmp_path / 'run'}", tiny_site)
    assert {(one.layer, one.unit): one.explanation for one in lines} == {
        (1, 3): "verbs of motion", (0, 0): "<b>bold</b>", (1, 5): "x" * 2000,
    }  # fmt: skip
    for one in lines:
        assert (one.source, one.model, one.behaviour, one.judge) == ("delphi", "a/big-model", None, None)
        assert one.does == digest(tiny_site, one.layer, one.unit)
        assert one.scores == ExplanationScores()
    assert sorted(sentence.removeprefix(f"{tmp_path / 'run'}: ") for sentence in sentences) == [
        "1 empty: left out",
        "1 longer than 2,000 characters: cut",
        "1 said twice of one unit or behaviour by one model: the last is taken",
        "1 with what looks like HTML: kept as text",
        "2 damaged files, without a JSON string: left out",
        "2 files without a layer and a latent in their names: left out",
        "2 of units or behaviours that the atlas does not have: left out",
    ]


@pytest.mark.parametrize("form", ["jsonl", "gz", "list", "list.gz"])
def test_a_batch_of_neuronpedia_is_taken_in_each_form(tiny_site: Path, tmp_path: Path, form: str) -> None:
    records = [
        _neuronpedia(2, "verbs"),
        _neuronpedia(5, None),
        _neuronpedia("x", "?"),
        _neuronpedia(3, "nouns", "0-mlp"),
    ]
    records += [_neuronpedia(3, "names", "0-mlp", explanationModelName=None), _neuronpedia(10**30, "?"), {"index": 3}]
    lined = "list" not in form
    text = (
        "".join(json.dumps(one) + "\n" for one in records) + "\n{damaged\n" if lined else json.dumps(records, indent=1)
    )
    file = tmp_path / "batch"
    file.write_bytes(gzip.compress(text.encode()) if "gz" in form else text.encode())
    lines, sentences = given_explanations(f"neuronpedia:{file}", tiny_site)
    assert [(one.layer, one.unit, one.explanation, one.model, one.source) for one in lines] == [
        (1, 2, "verbs", "gpt-4o-mini", "neuronpedia"), (0, 3, "nouns", "gpt-4o-mini", "neuronpedia"),
        (0, 3, "names", "", "neuronpedia"),
    ]  # fmt: skip
    assert f"{file}: 1 empty: left out" in sentences
    assert f"{file}: 2 without a layer, an index and a description: left out" in sentences
    assert f"{file}: 1 of units or behaviours that the atlas does not have: left out" in sentences
    assert (f"{file}: 1 damaged lines or lists: left out" in sentences) == lined


def test_a_file_that_breaks_off_gives_what_is_before(tiny_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl.gz"
    text = "".join(json.dumps(_neuronpedia(number % 20, f"number {number * 7919}")) + "\n" for number in range(3000))
    packed = gzip.compress(text.encode())
    file.write_bytes(packed[: len(packed) // 2])
    lines, sentences = given_explanations(f"neuronpedia:{file}", tiny_site)
    assert len(lines) == 20
    assert f"{file}: 1 break in the file: what follows is left out" in sentences


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnonsense", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"{}\n"])
def test_a_file_of_something_else_is_a_sentence(tiny_site: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "batch"
    file.write_bytes(content)
    for kind in ("neuronpedia", "lines"):
        with pytest.raises(ConfigurationError, match="holds no explanation of this atlas"):
            given_explanations(f"{kind}:{file}", tiny_site)
    for wrong in ("delphi:", f"csv:{file}", "nothing", f"delphi:{file}", f"lines:{tmp_path}", "lines:none"):
        with pytest.raises(ConfigurationError, match="--from: "):
            given_explanations(wrong, tiny_site)


def test_what_others_said_is_written_without_a_server_and_scored_with_one(tiny_site: Path, tmp_path: Path) -> None:
    batch, output = tmp_path / "batch", tmp_path / "said"
    batch.write_text("".join(json.dumps(_neuronpedia(unit, '" the", " def"')) + "\n" for unit in range(3)))
    command = ["explain", str(tiny_site), "--from", f"neuronpedia:{batch}", "--output", str(output)]
    own = Explanation("tiny/L0/N0", 0, 0, None, digest(tiny_site, 0, 0), "m", explanation="mine", judge="judge")
    output.write_text(own.line)
    for _ in range(2):  # the second time changes nothing
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        lines = read_explanations(output)
        assert lines[0] == own
        assert [(one.unit, one.judge) for one in lines[1:]] == [(0, None), (1, None), (2, None)]
    asked: list[str] = []
    with serving(listening(asked)) as address:
        server = ["--server", address, "--model", "judge"]
        result = CliRunner().invoke(main, [*command, *server])
        assert result.exit_code == 0, result.output
        assert "layer 1, units, neuronpedia: simulation" in result.output
        scored = read_explanations(output)
        assert len(scored) == 4
        assert not any("We study" in question for question in asked)
        for one in scored[1:]:
            assert (one.judge, one.model, one.source) == ("judge", "gpt-4o-mini", "neuronpedia")
            assert one.scores.simulation is not None
            assert one.floor.simulation is not None
            assert one.scores.whole_range is None
        asked.clear()
        assert CliRunner().invoke(main, [*command, *server]).exit_code == 0
        assert asked == []
    assert CliRunner().invoke(main, command).exit_code == 0
    assert read_explanations(output) == scored  # and loses no score


def test_lines_of_another_edition_are_kept_and_not_scored(tiny_site: Path, tmp_path: Path) -> None:
    fits = Explanation("tiny/L0/N0", 0, 0, 1, digest(tiny_site, 0, 0, 1), "m", explanation="verbs")
    others = [
        replace(fits, does="0" * 64, unit=1, id="tiny/L0/N1"), replace(fits, id="huge/L0/N0"),
        replace(fits, behaviour=99),
    ]  # fmt: skip
    file = tmp_path / "lines"
    file.write_text("".join(one.line for one in (fits, *others)))
    lines, sentences = given_explanations(f"lines:{file}", tiny_site)
    assert lines == [fits, others[0]]
    assert [sentence.removeprefix(f"{file}: ") for sentence in sentences] == [
        "1 of another edition of the atlas: kept, and not scored",
        "1 of another atlas: left out",
        "1 of units or behaviours that the atlas does not have: left out",
    ]
    with serving(looks_up) as address:
        result = CliRunner().invoke(
            main, ["explain", str(tiny_site), "--from", f"lines:{file}", "--output", str(tmp_path / "said"),
                   "--server", address, "--model", "judge"],
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert {one.does == "0" * 64: one.judge for one in read_explanations(tmp_path / "said")} == {
        True: None, False: "judge",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "model"),
    [({"explainer_model": "a/big-model", "explainer": "default"}, "a/big-model"), ({"explainer_model": None}, ""),
     # Only scored by this run: who explained is not known.
     ({"explainer_model": "a/judge", "explainer": "none"}, ""), ({"explainer_model": ["a"]}, ""), ([], ""), (3, ""),
     ({"explainer_model": " a\n" + "m" * 5000}, "a " + "m" * 198), ({"explainer_model": "\u202ea"}, "U+202Ea")],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
@pytest.mark.parametrize("given", ["run", "run/explanations"])
def test_the_model_is_that_of_the_run_of_delphi(
    tiny_site: Path, tmp_path: Path, given: str, config: object, model: str
) -> None:
    (tmp_path / "run" / "explanations").mkdir(parents=True)
    (tmp_path / "run" / "explanations" / "layers.1.mlp_latent3.txt").write_text('"verbs"')
    (tmp_path / "run" / "run_config.json").write_text(json.dumps(config))
    # A run without a name writes into the folder above.
    (tmp_path / "run_config.json").write_text('{"explainer_model": "of-another-run"}')
    (one,) = given_explanations(f"delphi:{tmp_path / given}", tiny_site).lines
    assert one.model == model
    assert parse_lines(one.line, "").explanations == (one,)


def test_what_is_no_file_beside_texts_of_delphi_is_not_waited_for(tiny_site: Path, tmp_path: Path) -> None:
    (tmp_path / "layers.1.mlp_latent3.txt").write_bytes(b'\xef\xbb\xbf"verbs"')
    os.mkfifo(tmp_path / "run_config.json")
    os.mkfifo(tmp_path / "layers.1.mlp_latent4.txt")
    (tmp_path / "layers.1.mlp_latent5.txt").symlink_to("layers.1.mlp_latent5.txt")
    (one,) = given_explanations(f"delphi:{tmp_path}", tiny_site).lines
    assert (one.explanation, one.model) == ("verbs", "")


def test_where_delphi_says_that_it_failed_there_is_no_explanation(tiny_site: Path, tmp_path: Path) -> None:
    for unit, text in enumerate(
        ("Explanation could not be parsed.", "No explanation found", "words of failure",
         "[BestOfKExplainer::parse_explanations] No explanations found.",
         "[BestOfKExplainer::__call__] Explanation                         could not be parsed.")
    ):  # fmt: skip
        (tmp_path / f"layers.1.mlp_latent{unit}.txt").write_text(json.dumps(text))
    lines, sentences = given_explanations(f"delphi:{tmp_path}", tiny_site)
    assert [one.explanation for one in lines] == ["words of failure"]
    assert sentences == [f"{tmp_path}: 4 in which delphi says that it has no explanation: left out"]


def test_lines_of_others_are_kept_as_those_that_are_asked_for(tiny_site: Path, tmp_path: Path) -> None:
    """What is given is found again in the file that it is written to, so that it is scored once."""
    fits = Explanation("tiny/L0/N0", 0, 0, None, digest(tiny_site, 0, 0), "m", "delphi")
    file, said = tmp_path / "lines", tmp_path / "said"
    lines = [replace(fits, model="long", explanation='" the" ' * 2000), replace(fits, explanation=" \u3000 "),
             replace(fits, model="odd  " + "n" * 500, explanation='\u202e" the"')]  # fmt: skip
    file.write_text("\ufeff" + "\r\n".join(one.line for one in lines))
    given, sentences = given_explanations(f"lines:{file}", tiny_site)
    assert [len(one.explanation) for one in given] == [2000, 12]
    assert given[1].model == "odd " + "n" * 196
    assert [sentence.removeprefix(f"{file}: ") for sentence in sentences] == [
        "1 longer than 2,000 characters: cut", "1 empty: left out",
    ]  # fmt: skip
    asked: list[str] = []
    options = ["explain", str(tiny_site), "--from", f"lines:{file}", "--output", str(said)]
    with serving(listening(asked)) as address:
        server = ["--server", address, "--model", "judge " + "j" * 300, "--scores", "detection"]
        for number in range(2):
            asked.clear()
            result = CliRunner().invoke(main, [*options, *server])
            assert result.exit_code == 0, result.output
            assert bool(asked) == (not number)
            assert not any("We study" in question for question in asked)
    scored = read_explanations(said)
    assert CliRunner().invoke(main, options).exit_code == 0
    assert read_explanations(said) == scored
    assert [one.judge for one in scored] == ["judge " + "j" * 194] * 2


@pytest.mark.parametrize("begins", [b"", b"[", b'[{"x": "'])
def test_a_file_that_grows_when_it_is_read_is_read_in_part(tiny_site: Path, tmp_path: Path, begins: bytes) -> None:
    file = tmp_path / "batch.gz"
    good = json.dumps(_neuronpedia(2, "verbs")).encode() + b"\n"
    with gzip.open(file, "wb", 1) as packed:
        packed.write(begins)
        for _ in range(5):
            packed.write(bytes(1 << 23))
        packed.write(b"\n" + good)
    assert file.stat().st_size < 1 << 20
    if begins:
        with pytest.raises(ConfigurationError, match="1 damaged lines or lists: left out"):
            given_explanations(f"neuronpedia:{file}", tiny_site)
    else:
        lines, sentences = given_explanations(f"neuronpedia:{file}", tiny_site)
        assert [one.explanation for one in lines] == ["verbs"]
        assert sentences == [f"{file}: 1 damaged lines or lists: left out"]


@pytest.mark.parametrize(
    "change",
    [{"layer": True}, {"layer": "1_0-res"}, {"layer": "\u0661-res"}, {"layer": None}, {"index": 2.5}, {"index": True},
     {"index": [2]}, {"index": float("nan")}, {"index": " 2"}, {"layer": "-1-res"}, {"index": -2}],
    ids=str,
)  # fmt: skip
def test_a_number_that_is_none_is_not_guessed(tiny_site: Path, tmp_path: Path, change: dict[str, object]) -> None:
    file = tmp_path / "batch"
    file.write_text(json.dumps(_neuronpedia(2, "verbs") | change))
    with pytest.raises(ConfigurationError, match="1 without a layer, an index and a description: left out"):
        given_explanations(f"neuronpedia:{file}", tiny_site)


def test_a_name_that_is_too_long_is_a_sentence(tiny_site: Path) -> None:
    for kind in ("lines", "neuronpedia", "delphi"):
        with pytest.raises(ConfigurationError, match=r"^--from: .{1,130} is not found, or no (file|folder)\.$"):
            given_explanations(f"{kind}:{'x' * 3000}", tiny_site)

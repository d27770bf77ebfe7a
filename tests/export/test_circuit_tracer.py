"""`export circuit-tracer`: features that its frontend reads, with the numbers of the records."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import atlas_builder
from atlas_builder.cli import main
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.export.circuit_tracer import cantor_pair, cantor_unpair, feature_of, token_shown
from atlas_builder.export.command import export_circuit_tracer
from atlas_builder.export.losses import LOSSES
from atlas_builder.files import locked
from atlas_builder.reader import Unit
from tests.support.atlases import digests, records_of
from tests.support.circuit_tracer import Feature, joined_by_frontend, read_packed

ROOT = Path(__file__).parent.parent.parent
Judge = Callable[[Feature], Any]
SITES = ["tiny_site", "logits_site", "demo_site", "chat_site", "hostile_site"]


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", "circuit-tracer", *map(str, arguments)])


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Path:
    """An atlas of each kind of units and text."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def unit(tiny_site: Path) -> Unit:
    """A unit with a record that a test may alter."""
    found = atlas_builder.open(tiny_site)[1, 5]
    return Unit(found.atlas, 1, 5, orjson.loads(orjson.dumps(found.record)))


def test_every_feature_is_one_for_circuit_tracer(site: Path, tmp_path: Path, feature_model: Judge) -> None:
    export_circuit_tracer(site, tmp_path / "out")
    for feature in read_packed(tmp_path / "out").values():
        read = feature_model(feature)
        assert read.model_dump() == feature


def test_what_is_read_again_has_the_numbers_of_the_records(site: Path, tmp_path: Path) -> None:
    export_circuit_tracer(site, tmp_path / "out")
    features = read_packed(tmp_path / "out")
    atlas = atlas_builder.open(site)
    assert len(features) == len(atlas)
    for record in records_of(site):
        feature, stats = features[record["layer"], record["unit"]], record["stats"]
        assert feature["transcoder_id"] == f"{atlas.id}/L{record['layer']}"
        assert feature["index"] == record["unit"]
        assert (feature["act_min"], feature["act_max"]) == (stats["min"], stats["max"])
        assert feature["activation_frequency"] == stats["density"]
        assert sum(feature["histogram"]) == sum(stats["histogram"]["counts"])
        assert len(feature["quantile_values"]) == 100
        assert feature["quantile_values"] == sorted(feature["quantile_values"])
        assert len(feature["top_logits"]) == len(record["logits"]["positive"])
        written = [example for section in feature["examples_quantiles"] for example in section["examples"]]
        behaviours = sorted(record["behaviours"], key=lambda one: (-one["sign"], one["id"]))
        listed = [one["examples"] for one in behaviours if one["sign"] > 0]
        listed += [band["examples"] for band in record["bands"]]
        listed += [one["examples"] for one in behaviours if one["sign"] < 0]
        places = [place for places in listed for place in places]
        places += sorted(set(range(len(record["examples"]))) - set(places))
        assert [(one["train_token_ind"], one["tokens_acts_list"]) for one in written] == [
            (record["examples"][place]["key"], record["examples"][place]["values"]) for place in places
        ]


def test_behaviours_are_sections_by_name_and_negative_ones_come_behind_the_bands(unit: Unit) -> None:
    first = unit.record["behaviours"][0]
    second = {**first, "id": 2}
    unit.record["behaviours"] = [first, second]
    first["sign"], first["label"], first["coverage"] = -1, "before\nthe line", 0.254
    second["label"], second["coverage"] = "after import", 0.8
    for band in unit.record["bands"]:
        band["examples"] = [0]
    names = [section["quantile_name"] for section in feature_of(unit, "x")["examples_quantiles"]]
    assert names[0] == "after import · 80%"
    bands = [place for place, name in enumerate(names) if name.startswith("activations ")]
    assert len(bands) == len(unit.record["bands"])
    assert re.fullmatch(r"activations \S+ to \S+ · quantiles 0 to 0.5", names[bands[0]])
    assert names[bands[-1] + 1] == "negative activations: before↵the line · 25%"


def test_what_is_in_no_behaviour_and_no_band_is_a_section_of_its_own(unit: Unit) -> None:
    before = feature_of(unit, "x")["examples_quantiles"]
    gone = unit.record["behaviours"].pop(0)
    sections = feature_of(replace(unit), "x")["examples_quantiles"]
    assert before[0]["quantile_name"] not in [section["quantile_name"] for section in sections]
    assert sections[-1]["quantile_name"] == "unclustered examples"
    assert len(sections[-1]["examples"]) >= len(set(gone["examples"]))
    capped = feature_of(replace(unit), "x", examples=1)["examples_quantiles"]
    assert {len(section["examples"]) for section in capped} == {1}


def test_a_unit_without_examples_says_so_and_a_dead_one_has_a_feature(unit: Unit, feature_model: Judge) -> None:
    unit.record.update(examples=[], behaviours=[], bands=[], logits={"positive": [], "negative": []})
    unit.record["stats"].update(max=0, min=0, density=0, histogram={"edges": [-1e-5, 1e-5], "counts": [9]})
    feature = feature_of(unit, "x")
    assert feature["examples_quantiles"] == [
        {"quantile_name": "no examples: never active in this text", "examples": []}
    ]
    assert (feature["quantile_values"], sum(feature["histogram"])) == ([0] * 100, 9)
    feature_model(feature)


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("", ""),
        (" the", " the"),
        ("\n\t\r", "⏎→↵"),
        ("a\u202eb\u200b", "aU+202EbU+200B"),
        ("<script>", "<script>"),
        ("<0xE2><0x80>", r"\xe2\x80"),
        ("<0x0A>", "<0x0A>"),
        (r"\xe2", r"\x5cxe2"),
        (r"\XE2\n", r"\XE2\n"),
        ("é", "é"),
    ],
)
def test_tokens_are_written_so_that_the_frontend_shows_them(token: str, shown: str) -> None:
    assert token_shown(token) == shown


@settings(deadline=None)
@given(st.lists(st.sampled_from([r"\xe2", r"\x0a", "\\", "x41", " the", "é", "", "€", r"a\x80"]), max_size=8))
def test_text_that_looks_like_bytes_is_shown_as_it_is(tokens: list[str]) -> None:
    text = joined_by_frontend([token_shown(token) for token in tokens])
    # The frontend joins no last token alone, so an escape may stay there.
    assert text.replace(r"\x5cx", r"\x") == "".join(tokens)


def test_bytes_of_a_character_are_joined_by_the_frontend() -> None:
    assert joined_by_frontend([token_shown(token) for token in ("a<0xE2>", "<0x82>", "<0xAC>", "b")]) == "a€b"


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_layer_and_unit_are_in_the_number(layer: int, unit: int) -> None:
    assert cantor_unpair(cantor_pair(layer, unit)) == (layer, unit)


def test_numbers_are_counted_by_diagonals() -> None:
    order = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    assert [cantor_unpair(number) for number in range(6)] == order
    assert [cantor_pair(*place) for place in order] == [*range(6)]


def test_files_have_what_is_packed(tiny_site: Path, tmp_path: Path) -> None:
    export_circuit_tracer(tiny_site, tmp_path / "packed")
    done = export_circuit_tracer(tiny_site, tmp_path / "files", files=True, scan="owner/name")
    features = read_packed(tmp_path / "packed")
    names = {f"{cantor_pair(*place)}.json": feature for place, feature in features.items()}
    assert {path.name for path in done.folder.iterdir()} == {*names, "export.json"}
    for name, feature in names.items():
        feature["transcoder_id"] = feature["transcoder_id"].replace("tiny/", "owner/name/")
        assert json.loads((done.folder / name).read_bytes()) == feature
    assert done.bytes == sum(path.stat().st_size for path in done.folder.iterdir() if path.name != "export.json")


def test_the_same_bytes_come_each_time_and_an_earlier_export_is_replaced(tiny_site: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    export_circuit_tracer(tiny_site, output, files=True)
    export_circuit_tracer(tiny_site, output)
    first = digests(output)
    assert not [name for name in first if name[0].isdigit()]
    export_circuit_tracer(tiny_site, output)
    assert digests(output) == first
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "index.json.gz").read_bytes()[:8] == b"\x1f\x8b\x08" + bytes(5)  # no name, no time


def test_the_command_says_what_it_made_how_to_look_at_it_and_what_is_lost(tiny_site: Path, tmp_path: Path) -> None:
    result = _run(tiny_site, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"features, {0.1:.1f} MB: {tmp_path / 'out'}" in result.stdout
    assert "features_dir" in result.stdout
    said = [line.removeprefix("lost: ") for line in result.stdout.splitlines() if line.startswith("lost: ")]
    assert tuple(said) == LOSSES["circuit-tracer"]
    assert json.loads((tmp_path / "out" / "export.json").read_bytes())["lost"] == said
    files = _run(tiny_site, "--output", tmp_path / "mine", "--files")
    assert '"./data/mine"' in files.stdout


def test_by_default_it_is_beside_the_atlas(built: Path) -> None:
    assert export_circuit_tracer(built).folder == built.with_name("site.circuit-tracer")
    assert export_circuit_tracer(built / "index.html").folder == built.with_name("site.circuit-tracer")


@pytest.mark.parametrize("held", ["notes.txt", "index.json.gz", "sub/5.json"])
def test_a_folder_with_something_else_is_refused_and_left_alone(tiny_site: Path, tmp_path: Path, held: str) -> None:
    mine = tmp_path / "out" / held
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    for prepare in (lambda: None, lambda: (tmp_path / "out" / "export.json").write_text('{"format":"circuit-tracer"}')):
        prepare()
        if held == "index.json.gz" and (tmp_path / "out" / "export.json").exists():
            continue  # what an export is made of
        with pytest.raises(ConfigurationError, match="holds something else than an export for circuit-tracer"):
            export_circuit_tracer(tiny_site, tmp_path / "out")
        assert mine.read_text(encoding="utf-8") == "mine"
        assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_other_places_that_cannot_be_written_are_refused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for place, words in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "in", "is a file")):
        with pytest.raises(ConfigurationError, match=words):
            export_circuit_tracer(built, place)
    with pytest.raises(ConfigurationError, match="is inside the atlas"):
        export_circuit_tracer(built, built / "features")
    with pytest.raises(ConfigurationError, match="is no folder of its own"):
        export_circuit_tracer(built, Path("/"))
    with (
        locked(tmp_path / ".out.lock", "held"),
        pytest.raises(ConfigurationError, match="another export writes to"),
    ):
        export_circuit_tracer(built, tmp_path / "out")


@pytest.mark.parametrize("scan", ["", "two words", "../up", 'a"b', "x" * 200])
def test_names_that_are_none_are_refused(tiny_site: Path, tmp_path: Path, scan: str) -> None:
    result = _run(tiny_site, "--output", tmp_path / "out", "--scan", scan)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "give a name of letters" in result.stderr


def test_what_is_no_atlas_is_refused(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "is not a built atlas" in result.stderr
    with pytest.raises(SiteError, match="cannot be read"):
        export_circuit_tracer("http://localhost:9/atlas", tmp_path / "out")


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("stats"),
        lambda record: record["stats"].update(histogram={"edges": [3, 1], "counts": [1]}),
        lambda record: record["stats"].update(max="high"),
        lambda record: record["stats"]["histogram"].update(counts=None),
        lambda record: record["examples"][0].update(key=99),
        lambda record: record["examples"][0]["values"].pop(),
        lambda record: record["examples"][0].update(tokens=[1] * len(record["examples"][0]["tokens"])),
        lambda record: record["behaviours"][0].update(examples=[10**6]),
        lambda record: record["behaviours"][0].update(label=5, coverage="much"),
        lambda record: record["bands"][0].update(range=[]),
    ],
)
def test_a_damaged_record_ends_the_export_in_a_sentence_and_the_former_one_stays(
    built: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    output = tmp_path / "out"
    export_circuit_tracer(built, output)
    before = digests(output)
    file = built / "L1" / "N5.json"
    record = json.loads(file.read_bytes())
    damage(record)
    file.write_text(json.dumps(record), encoding="utf-8")
    result = _run(built, "--output", output)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("The record L1/N5.json is damaged: run atlas-builder check")
    assert digests(output) == before
    assert not list(tmp_path.glob(".out*"))


def test_the_guide_lists_what_each_format_loses() -> None:
    guide = (ROOT / "site_config" / "guide" / "exports.md").read_text(encoding="utf-8")
    for name, sentences in LOSSES.items():
        (section,) = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL)
        (listed,) = re.findall(r"^### What is lost\n\n(.*?)(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        assert listed.splitlines() == [f"- {sentence}" for sentence in sentences]

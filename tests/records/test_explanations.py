"""Lines of explanations: read from files of either version, written one way, and the digest of what they explain."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.records.explanations import FloorScores, digest_of, parse_lines, published_lines
from atlas_builder.records.record import LayerRecords
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, records_of, stages_of
from tests.support.explained import line_of


def test_an_outline_has_the_digests_of_its_record(tiny_site: Path, configure: Configure) -> None:
    stages = stages_of(work_folder(tiny_site))
    layers = {layer.layer: LayerRecords(stages, layer, configure()) for layer in stages.collected.layers}
    for record in records_of(tiny_site):
        outline = layers[record["layer"]].outline(record["unit"])
        for number in (None, *(one["id"] for one in record["behaviours"])):
            assert digest_of(outline, number) == digest_of(record, number)


def test_a_digest_changes_with_what_is_explained_and_with_nothing_else(tiny_site: Path) -> None:
    record = next(one for one in records_of(tiny_site) if len(one["behaviours"]) > 1)
    same, other = copy.deepcopy(record), copy.deepcopy(record)
    same["behaviours"][0]["label"], same["hash"], same["behaviours"][1]["size"] = "another", "", 1000
    other["behaviours"][0]["coverage"] += 0.001
    assert digest_of(same, 1) == digest_of(record, 1)
    assert digest_of(same) == digest_of(record) == digest_of(other)
    assert digest_of(other, 1) != digest_of(record, 1)
    assert len({digest_of(record, number) for number in (None, 1, 2)}) == 3
    with pytest.raises(KeyError):
        digest_of(record, 10_000)


def test_lines_of_the_version_before_are_of_whole_units(tiny_site: Path) -> None:
    record = records_of(tiny_site)[0]
    line = line_of(record)
    for name in ("behaviour", "source", "judge", "floor"):
        del line[name]
    line["scores"] = {"top_and_random": 0.5, "random_only": None, "whole_range": -0.25}
    (one,) = parse_lines(json.dumps(line) + "\n", "file").explanations
    assert (one.behaviour, one.source, one.judge) == (None, "explain", line["model"])
    assert one.scores.simulation == 0.5
    assert one.floor == FloorScores()


@given(
    part=st.text(min_size=1, max_size=60),
    times=st.integers(1, 60),
    score=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_written_is_read_back_the_same(part: str, times: int, score: float | None, seed: int) -> None:
    text = part * times
    record = {"id": "a/L0/N1", "layer": 0, "unit": 1, "stats": {}}
    line = line_of(record, None, explanation=text, seed=seed, scores={"detection": score})
    found, _ = parse_lines(json.dumps(line), "file")
    content = published_lines(found)
    assert published_lines(parse_lines(content.decode(), "file").explanations) == content
    assert all(len(one.explanation) <= 2000 and one.explanation == one.explanation.strip() for one in found)

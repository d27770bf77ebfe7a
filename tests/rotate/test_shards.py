"""Atlases of directions in shards: those that find directions first, then those of the pass."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json, write_json
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, digests


@pytest.mark.parametrize("basis", ["global", "local"])
def test_an_atlas_of_directions_from_shards_is_the_same_to_the_byte(
    configure: Configure, pool: Executor, tmp_path: Path, basis: str
) -> None:
    settings = configure(
        units={"kind": "basis", "basis": basis},
        describe={"importance": "none", "prediction": False},
        interaction={"edge_tokens": 100},
        link={"map": False},
    )
    whole = build(settings, tmp_path / "whole", executor=pool)
    shards.collect_shards(settings, tmp_path / "parts", 3, pool)
    assert shards.next_pass(settings, tmp_path / "parts") == "collect"
    assert digests(build(settings, tmp_path / "parts", executor=pool)) == digests(whole)
    if basis == "local":
        with pytest.raises(ConfigurationError, match="has no shards"):
            shards.collect_shard(settings, tmp_path / "others", 1, 2)


def test_shards_of_directions_found_elsewhere_are_not_merged(
    configure: Configure, pool: Executor, tmp_path: Path
) -> None:
    settings = configure(units={"kind": "basis"}, examples={"per_unit": 4})
    parts = tmp_path / "parts"
    for number in (1, 2):
        shards.collect_shard(settings, parts, number, 2)
    shards.merge_shards(settings, parts)
    shards.collect_shard(settings, parts, 1, 2)
    # As another machine might have rounded.
    file = work_folder(parts) / "rotate" / "rotation.safetensors"
    arrays = load_file(file)
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    save_file({**arrays, "L0.encode": arrays["L0.encode"] * 1.001}, file, metadata)
    mark = work_folder(parts) / "rotate" / "stage.json"
    stage = read_json(mark)
    stage["files"]["rotation.safetensors"] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_json(mark, stage)
    shards.collect_shard(settings, parts, 2, 2)
    with pytest.raises(ConfigurationError, match="of different models or texts"):
        shards.merge_shards(settings, parts)

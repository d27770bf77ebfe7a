"""The page on the architecture lists every file of every stage, with its shape and type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from atlas_builder.cluster.run import MEASURES_DTYPE
from atlas_builder.pipeline.build import build
from atlas_builder.pipeline.shards import collect_shard
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure

PAGE = (Path(__file__).parent.parent / "site_config" / "guide" / "architecture.md").read_text(encoding="utf-8")
STAGES = ("collect", "cluster", "describe", "link")


class Row(NamedTuple):
    shape: str
    dtype: str
    content: str


def _tables(heading: str) -> dict[str, Row]:
    """The rows under a heading by file, or by file and array: `L0.logits.npz/positive`."""
    (section,) = re.findall(rf"^### {heading}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    found: dict[str, Row] = {}
    file = ""
    for names, shape, dtype, content in re.findall(
        r"^\| (`.*?) \| (.*?) ?\| (.*?) ?\| (.*?) \|", section, re.MULTILINE
    ):
        where, colon, arrays = names.partition(": ")
        files = re.findall(r"`([^`]+)`", where)
        if colon:  # arrays of an archive
            files = [f"{files[0]}/{array}" for array in re.findall(r"`(\w+)`", arrays)]
        elif file.endswith(".npz") and "." not in files[0]:  # the arrays of the row before
            files = [f"{file}/{array}" for array in files]
        else:
            file = files[-1]
        found |= {name: Row(shape, dtype, content) for name in files}
    return found


def _files(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Layer, name as the page gives it, and place of each file."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        name = re.sub(r"\bafter-\d+", "after-<batches>", re.sub(r"\.\d+\.f32$", ".<n>.f32", name))
        layer = re.search(r"\bL(\d+)\b", name)
        if path.name not in ("stage.json", ".lock", "begun.json"):
            yield layer[1] if layer else "", re.sub(r"\bL\d+\b", "L0", name), path


def _types(row: Row) -> dict[str, str]:
    """The fields of a record, as the page describes them."""
    fields: dict[str, str] = {}
    for part in row.content.split(";") if row.dtype == "record" else [row.content]:
        kind = re.search(r"\b(?:u?int\d+|float\d+|bool)\b", row.dtype if row.dtype != "record" else part)
        fields |= dict.fromkeys(re.findall(r"`(\w+)`", part), kind[0]) if kind else {}
    return fields


def _check(array: np.ndarray, row: Row, layer: str, sizes: dict[tuple[str, str], int]) -> None:
    if array.dtype.names:
        kinds = {name: array.dtype[name].base.name for name in array.dtype.names}
        of_measures = {name: MEASURES_DTYPE[name].name for name in MEASURES_DTYPE.names or ()}
        described = of_measures if "`Measures`" in row.content else _types(row)
        assert kinds == {name: described.get(name) for name in kinds}
    else:
        assert row.dtype == array.dtype.name
    shape = row.shape.strip("()").split(", ")
    assert len(shape) == array.ndim
    for said, size in zip(shape, array.shape, strict=True):
        if said.isdecimal():
            assert int(said) == size
        else:  # what has one name has one size, within a layer
            assert sizes.setdefault((layer, said), size) == size, said


_OF_DIRECTIONS = {"edges-L0.npy", "modules.json"}
_OF_OUTPUT_NEURONS = {
    *(f"L0/{name}.npy" for name in ("output_tokens", "own", "own_bands", "own_band_windows", "draws")),
    *(f"L0.own_bands.npz{array}" for array in ("", "/drawn", "/share", "/chance")),
    *(f"after-<batches>/L0.npz/wide_{name}" for name in ("column", "context", "position", "row", "value", "limit")),
    "after-<batches>/L0.npz/own_sample",
}
_NOT_OF_OUTPUT_NEURONS = {"L0/write.npy", "L0.steering.npz", "L0.importance.npz", "L0.graphs.json"}
_OF_CHARACTERS = {"contexts/begins.b1", "contexts/reads.i32"}  # none where every token begins a character
_OF_CHAT = {"contexts/special.b1", "contexts/roles.u1"}


def _compare(folder: Path, tables: dict[str, Row], optional: set[str]) -> None:
    met: set[str] = set()
    sizes: dict[tuple[str, str], int] = {}
    for layer, name, path in _files(folder):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                for array in arrays.files:
                    _check(arrays[array], tables[f"{name}/{array}"], layer, sizes)
                    met.add(f"{name}/{array}")
            met.add(name)
            continue
        met.add(name)
        row = tables[name]
        if path.suffix == ".npy":
            _check(np.load(path), row, layer, sizes)
        elif path.suffix == ".json":
            assert row.dtype == "JSON"
            if row.shape:
                assert sizes.setdefault((layer, row.shape), len(json.loads(path.read_bytes()))) > 0
        else:
            assert row.dtype in ("int32, raw", "float32, raw", "bool, raw", "uint8, raw")
            assert path.stat().st_size % (1 if row.dtype in ("bool, raw", "uint8, raw") else 4) == 0
    assert tables.keys() - met <= optional | _OF_CHARACTERS | _OF_CHAT


@pytest.fixture(scope="module")
def work(configure: Configure, llama_folder: Path, pool: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of an atlas of gated neurons, with all that can be described."""
    output = tmp_path_factory.mktemp("architecture") / "gated"
    settings = configure(
        model={"name": str(llama_folder)}, describe={"steering": True, "associations": True, "graphs": True}
    )
    build(settings, output, executor=pool, until="link")
    return work_folder(output)


@pytest.mark.parametrize("stage", STAGES)
def test_files_of_a_stage_are_as_described(work: Path, stage: str) -> None:
    _compare(work / stage, _tables(stage), {"importance/<first batch>.npy", *_OF_DIRECTIONS, *_OF_OUTPUT_NEURONS})


@pytest.mark.parametrize("stage", STAGES)
def test_files_of_output_neurons_are_as_described(logits_site: Path, stage: str) -> None:
    tables = {
        name: row._replace(shape="(units, none)") if name.startswith("L0.logits.npz/") else row
        for name, row in _tables(stage).items()
    }
    missing = {
        name for name in tables if name.split("/")[0] in _NOT_OF_OUTPUT_NEURONS or name in _NOT_OF_OUTPUT_NEURONS
    }
    optional = {"importance/<first batch>.npy", "unembedding.npy", *_OF_DIRECTIONS, *missing}
    _compare(work_folder(logits_site) / stage, tables, optional)


def test_files_of_conversations_are_as_described(chat_site: Path) -> None:
    folder = work_folder(chat_site) / "collect"
    assert all((folder / name).exists() for name in _OF_CHAT)
    _compare(folder, _tables("collect"), {"unembedding.npy", *_OF_OUTPUT_NEURONS, *_OF_DIRECTIONS})


def test_files_of_a_shard_are_as_described(configure: Configure, tmp_path: Path) -> None:
    folder = collect_shard(configure(), tmp_path / "atlas", 1, 2) / "shard" / "pass"
    whole, tables = _tables("collect"), _tables("The folder of a pass or shard")
    del tables["contexts/"]  # as in the stage, like these
    like = ("contexts/", "tokens.json", "unembedding.npy", "L0/read.npy", "L0/write.npy")
    _compare(folder, tables | {name: row for name, row in whole.items() if name.startswith(like)}, _OF_OUTPUT_NEURONS)

"""`verify` on atlases of directions, and on neurons that say which directions they read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atlas_builder import reader
from atlas_builder.errors import SiteError
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure, Once, records_of

LIGHT = {
    "describe": {"importance": "none", "prediction": False, "steering": True},
    "examples": {"policy": "robust", "per_unit": 20, "least": 15},
    "link": {"map": False},
}


@pytest.fixture(scope="module")
def atlas_of(
    configure: Configure, pool: Executor, once: Once, tiny_model: Callable[[str], Path]
) -> Callable[..., Path]:
    def make(family: str, **units: Any) -> Path:
        name = "-".join(["directions", family, *map(str, units.values())])
        config = configure(
            model={"name": str(tiny_model(family))},
            units=units,
            interaction={"report": True, "edge_tokens": 200},
            **LIGHT,
        )
        return once(name, lambda output: build(config, output, executor=pool))

    return make


@pytest.mark.parametrize(
    ("family", "units"),
    [
        ("gpt2", {"kind": "basis"}),
        ("gpt2", {"kind": "basis", "basis": "local"}),
        ("gpt2", {"kind": "basis", "basis": "principal"}),
        ("llama", {"kind": "basis", "basis": "random"}),
        ("llama", {"kind": "mlp"}),
        ("gpt_neox", {"kind": "mlp", "basis": "principal"}),
    ],
)
def test_what_is_published_of_directions_holds(
    atlas_of: Callable[..., Path], family: str, units: dict[str, Any]
) -> None:
    site = atlas_of(family, **units)
    report = verify(site, units=6)
    assert report.problems == []
    assert report.compared["directions"] >= 3
    assert report.compared["importance" if units["kind"] == "basis" else "reads"] >= 6
    assert check(site, Progress(quiet=True)).problems == []


def test_shares_that_a_neuron_reads_add_up_with_the_rest(atlas_of: Callable[..., Path]) -> None:
    for record in records_of(atlas_of("llama", kind="mlp")):
        assert [part["part"] for part in record["reads"]] == ["gate", "linear"]
        for part in record["reads"]:
            assert sum(share for _, share in part["directions"]) + part["rest"] == pytest.approx(1, abs=1e-3)


def test_a_program_reads_directions_and_edges(atlas_of: Callable[..., Path]) -> None:
    atlas = reader.open(atlas_of("gpt2", kind="basis"))
    direction = atlas["L1/N0"].direction
    assert direction is not None
    assert direction.rank == 1
    shares = [float(unit.direction.share or 0) for unit in atlas[1] if unit.direction]
    assert sum(shares) == pytest.approx(1, abs=1e-2)
    edges = atlas.edges.to_pylist()
    strongest = max(edges, key=lambda edge: float(edge["strength"]))
    before = atlas[f"L0/N{strongest['direction_before']}"].direction
    assert before is not None
    assert before.edges_out[0].strength == pytest.approx(strongest["strength"], rel=1e-3)
    neurons = reader.open(atlas_of("llama", kind="mlp"))
    assert {part.part for part in neurons["L0/N3"].reads} == {"gate", "linear"}
    assert neurons["L0/N3"].direction is None
    with pytest.raises(SiteError, match="only directions have edges"):
        _ = neurons.edges


def test_random_directions_read_alike_and_important_ones_do_not(atlas_of: Callable[..., Path]) -> None:
    def spread(basis: str, family: str) -> float:
        shares = [record["direction"]["share"] for record in records_of(atlas_of(family, kind="basis", basis=basis))]
        return float(np.std(shares))

    assert spread("random", "llama") < spread("global", "gpt2")


Edit = Callable[[dict[str, Any]], None]


def _readers(direction: dict[str, Any]) -> None:
    direction["readers"].pop(0)


EDITS: list[tuple[str, Edit, str]] = [
    ("importance", lambda one: one.update(importance=one["importance"] * 1.01), "importance is published"),
    ("share", lambda one: one.update(share=one["share"] * 1.01), "share is published"),
    ("rank", lambda one: one.update(rank=one["rank"] + 3), "rank is published"),
    ("stability", lambda one: one.update(stability=abs(one["stability"] - 0.1)), "stability is published"),
    ("readers", _readers, "readers"),
]


@pytest.mark.parametrize(("edit", "shows_in"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_an_altered_direction_is_found_out(
    atlas_of: Callable[..., Path], tmp_path: Path, edit: Edit, shows_in: str
) -> None:
    site = copied(atlas_of("gpt2", kind="basis"), tmp_path)
    path = site / "L1" / "N2.json"
    record = json.loads(path.read_bytes())
    edit(record["direction"])
    record["hash"] = content_hash(record)
    path.write_bytes(serialise(record))
    assert any(shows_in in problem for problem in verify(site, units=32).problems)


def copied(site: Path, folder: Path) -> Path:
    copy = folder / site.name
    shutil.copytree(site, copy)
    for hidden in site.parent.glob(f".{site.name}*"):
        if hidden.is_dir():
            shutil.copytree(hidden, folder / hidden.name)
    return copy


@pytest.mark.parametrize("name", ["mean", "encode", "decode", "effect"])
def test_altered_arrays_of_directions_are_found_out(atlas_of: Callable[..., Path], tmp_path: Path, name: str) -> None:
    site = copied(atlas_of("gpt2", kind="basis"), tmp_path)
    arrays = load_file(site / "directions.safetensors")
    arrays[f"L1.{name}"] = arrays[f"L1.{name}"] * np.float32(1.05)
    save_file(arrays, site / "directions.safetensors")
    assert verify(site, units=32).problems

"""The pass with model.engine device: the bytes of the compiled loops, for every kind of unit, and what crosses."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_builder.collect import batch_run, device, device_counts, run, statistics
from atlas_builder.collect.checkpoints import Collectors
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.config_file import validate
from atlas_builder.errors import AtlasError
from atlas_builder.models import memory, sae
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import portable_configuration, work_folder
from tests.support.atlases import Configure, Listener, digests
from tests.support.saes import an_sae

KINDS = ("mlp", "gated", "sae", "crate", "basis", "logits", "associations")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, configure: Configure, tmp_path: Path) -> Configuration:
    """Settings of a tiny model with units of one kind."""
    if request.param == "sae":
        for layer, place in ((0, "hook_resid_post"), (1, "mlp.hook_in")):
            sae.save_sae(an_sae("topk", layer, place), tmp_path / "saes" / str(layer))
        return configure(units={"kind": "sae", "path": str(tmp_path / "saes")})
    if request.param == "crate":
        folder = request.getfixturevalue("crate_folder")
        return configure(model={"name": str(folder)}, units={"kind": "crate"})
    if request.param == "basis":
        return configure(units={"kind": "basis"}, interaction={"max_tokens": 2000})
    if request.param == "logits":
        return configure(units={"kind": "logits", "top": 8}, examples={"association_draws": 5, "per_band": 2})
    if request.param == "associations":
        return configure(describe={"associations": True}, examples={"association_draws": 5, "policy": "robust"})
    return configure(
        model={"name": str(request.getfixturevalue("llama_folder" if request.param == "gated" else "gpt2_folder"))}
    )


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCH_TOKENS", 128)
    monkeypatch.setattr(run, "_CONTEXTS_BETWEEN_CHECKPOINTS", 8)


def on(engine: str, settings: Configuration) -> Configuration:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"engine": engine})})


def collected(settings: Configuration, output: Path, **more: Any) -> dict[str, str]:
    """The digests of all files of the stage."""
    build(settings, output, until="collect", **more)
    return digests(work_folder(output) / "collect")


def read_again(patch: pytest.MonkeyPatch, again: bool) -> None:
    patch.setattr(run, "reads_again", lambda *_: again)


@pytest.mark.usefixtures("small_batches")
def test_every_kind_of_unit_has_the_bytes_of_the_loops(
    kind: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With inputs logged as the pass goes, read by a second run, and divided into three shards."""
    wanted = collected(on("loops", kind), tmp_path / "loops")
    assert wanted
    settings = on("device", kind)
    read_again(monkeypatch, False)
    assert collected(settings, tmp_path / "logged") == wanted
    read_again(monkeypatch, True)
    assert collected(settings, tmp_path / "again") == wanted
    if kind.units.kind != "basis":
        for number in (1, 2, 3):
            shards.collect_shard(settings, tmp_path / "parts", number, 3)
        shards.merge_shards(settings, tmp_path / "parts")
        assert digests(work_folder(tmp_path / "parts") / "collect") == wanted

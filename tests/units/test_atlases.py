"""Atlases of other units than neurons: built whole, and what their records say recomputed."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from atlas_builder.config import Configuration
from atlas_builder.corpus import documents
from atlas_builder.curate.run import curate
from atlas_builder.models import language_model, sae
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.hosting.check import check
from atlas_builder.units.base import Units
from atlas_builder.units.open import open_units
from atlas_builder.verify.curated import verify_curated
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure
from tests.support.families import save_family
from tests.support.saes import an_sae


def _settings(kind: str, configure: Configure, crate_folder: Path, tmp_path: Path) -> Configuration:
    if kind == "crate":
        return configure(model={"name": str(crate_folder)}, units={"kind": "crate"}, describe={"steering": True})
    for layer, place in ((0, "hook_resid_post"), (1, "mlp.hook_in")):
        sae.save_sae(an_sae("topk", layer, place), tmp_path / "saes" / str(layer))
    return configure(units={"kind": "sae", "path": str(tmp_path / "saes")})


@pytest.mark.parametrize(("kind", "noun"), [("crate", "coordinate"), ("sae", "latent")])
def test_an_atlas_says_of_its_units_what_the_model_does(
    kind: str, noun: str, configure: Configure, crate_folder: Path, pool: Executor, tmp_path: Path
) -> None:
    settings = _settings(kind, configure, crate_folder, tmp_path)
    site = build(settings, tmp_path / "site", executor=pool)
    assert not check(site, Progress(quiet=True)).problems
    loaded = language_model.load_model(settings.model)
    units = open_units(loaded, settings)
    largest = {layer: np.full(units.count(layer), -np.inf) for layer in units.layers}
    room = settings.corpus.context - 1
    for document in documents.documents(settings.corpus):
        (ids,) = loaded.encode([document.text])
        for first in range(0, len(ids), room):
            for layer, (_, found) in _seen(units, [0, *ids[first : first + room]]).items():
                largest[layer] = np.maximum(largest[layer], found[1:].max(axis=0))
    for layer in units.layers:
        records = [json.loads(path.read_bytes()) for path in sorted(site.glob(f"L{layer}/N*.json"))]
        assert len(records) == units.count(layer)
        for record in records:
            assert record["kind"] == kind
            assert record["stats"]["max"] == pytest.approx(largest[layer][record["unit"]], rel=1e-3, abs=1e-4)
    report = verify(site, units=8, seed=1)
    assert report.problems == []
    assert report.compared["activations"] > 100
    assert report.compared.get("clamped units", 0) > (20 if kind == "crate" else -1)
    page = (site / f"L{units.layers[0]}" / "N0.html").read_text(encoding="utf-8")
    assert f"<h1>{noun.capitalize()} 0 of layer {units.layers[0]}</h1>" in page
    assert f"This {noun} <strong>" in page


def _seen(units: Units, tokens: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    units.run(
        torch.tensor([tokens]), lambda layer, read, fired: found.update({layer: (read[0].numpy(), fired[0].numpy())})
    )
    return found


def test_an_atlas_without_any_behaviour_is_whole(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    save_family("gpt2", tmp_path / "model")
    silent = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        for parameter in silent.parameters():
            parameter.zero_()
    silent.save_pretrained(tmp_path / "model")
    settings = configure(model={"name": str(tmp_path / "model")}, units={"kind": "logits", "top": 3})
    site = build(settings, tmp_path / "site", executor=pool)
    assert check(site, Progress(quiet=True)).problems == []
    assert verify(site, units=3).problems == []
    for side in ("own", "others"):
        lines = tmp_path / f"{side}.jsonl"
        if curate(site, lines, side=side, quantiles=(0.0, 1.0), number=3).lines:
            assert verify_curated(site, lines).problems == []

"""What the model says next when a unit is clamped at its maximum: against a model changed by hand."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.describe import steering
from atlas_builder.describe.steering import EXAMPLES_CLAMPED, SHOWN, largest
from atlas_builder.models import crate, language_model
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.units.base import Steerable
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder
from tests.support import reference
from tests.support.atlases import Configure


def test_the_largest_changes_come_first() -> None:
    found = largest(np.array([[0.1, -0.3, 0.0, 0.2, -0.1, 0.05, 0.2]], np.float32))
    assert found.more[0].tolist() == [3, 6, 0, 5, 2]
    assert found.less[0].tolist() == [1, 4, 2, 5, 0]
    assert found.less_by[0, 0] == pytest.approx(-0.3)


@pytest.fixture(params=["mlp", "crate"])
def settings(request: pytest.FixtureRequest, configure: Configure, crate_folder: Path) -> Configuration:
    only: dict[str, Any] = {"describe": {"steering": True, "importance": "none"}, "corpus": {"max_documents": 8}}
    if request.param == "crate":
        return configure(model={"name": str(crate_folder)}, units={"kind": "crate", "layers": [0]}, **only)
    return configure(units={"layers": [0]}, **only)


def _probabilities(settings: Configuration, tokens: torch.Tensor, unit: int | None, value: float) -> np.ndarray:
    """Of the next token, with a unit of the first layer overwritten: (vocabulary,)."""
    if settings.units.kind == "crate":
        found = crate.load_crate(Path(settings.model.name))
        block: Any = found.blocks[0]
        encode = block.ista.encode

        def changed(x: torch.Tensor) -> torch.Tensor:
            code: torch.Tensor = encode(x)
            if unit is not None:
                code[:, :, unit] = value
            return code

        block.ista.encode = changed
        with torch.no_grad():
            return found.forward(tokens)[0, -1].softmax(-1).numpy()
    slow = reference.SlowModel(Path(settings.model.name))

    def hold(_: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        if unit is not None:
            given[0][:, :, unit] = value
        return given

    slow.outs[0].register_forward_pre_hook(hold)
    with torch.no_grad():
        logits: torch.Tensor = slow.model(tokens).logits
    return logits[0, -1].softmax(-1).numpy()


def test_records_say_what_changes(settings: Configuration, pool: Executor, tmp_path: Path) -> None:
    site = build(settings, tmp_path / "site", executor=pool)
    collected = Collected(work_folder(site) / "collect")
    (layer,) = collected.layers
    texts, read = collected.token_texts, collected.contexts
    compared = 0
    for unit in range(0, layer.units, 6):
        record = json.loads((site / "L0" / f"N{unit}.json").read_bytes())
        own = layer.of(unit)[:EXAMPLES_CLAMPED]
        value = float(layer.moments.maximum[unit])
        if value <= 0:
            assert record["steering"] is None
            continue
        change = np.zeros(len(texts))
        for example in own:
            text = read.text_of(int(example["context"]))[: int(example["position"]) + 1].tolist()
            tokens = torch.tensor([[read.bos, *text]])
            change += _probabilities(settings, tokens, unit, value) - _probabilities(settings, tokens, None, value)
        change /= len(own)
        found = record["steering"]
        assert found["value"] == pytest.approx(value, rel=1e-3)
        for side, sign in (("more", -1), ("less", 1)):
            wanted = np.sort(sign * change)[:SHOWN] * sign
            np.testing.assert_allclose([by for _, by in found[side]], wanted, rtol=2e-3, atol=1e-5)
            for text, by in found[side]:
                candidates = change[[place for place, known in enumerate(texts) if known == text]]
                assert np.abs(candidates - by).min() < 1e-5 + 2e-3 * abs(by)
        compared += 1
    assert compared > 2
    page = (site / "L0" / "N0.html").read_text(encoding="utf-8")
    assert ("Steering: clamped to its maximum" in page) == (
        json.loads((site / "L0" / "N0.json").read_bytes())["steering"] is not None
    )
    assert open_units(language_model.load_model(settings.model), settings).kind == settings.units.kind


@pytest.mark.parametrize("at_once", [1, 40_000])
def test_blocks_of_units_change_nothing(
    settings: Configuration, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """With room for one unit and one row, and for some of both."""
    build(settings, tmp_path / "site", executor=pool, until="describe")
    work = work_folder(tmp_path / "site")
    units = open_units(language_model.load_model(settings.model), settings)
    assert isinstance(units, Steerable)
    monkeypatch.setattr(steering, "_AT_ONCE", at_once)
    monkeypatch.setattr(steering, "_SORTED_AT_ONCE", at_once)
    steering.clamp_units(units, Collected(work / "collect"), tmp_path, "cpu", Progress(quiet=True))
    with np.load(work / "describe" / "L0.steering.npz") as whole, np.load(tmp_path / "L0.steering.npz") as parts:
        for name in whole.files:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6)

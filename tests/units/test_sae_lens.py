"""SAELens as the judge: its own encoders on the files that are written and read here. Runs where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas_builder.models import sae
from atlas_builder.shipped import SAES
from tests.support.saes import ARCHITECTURES, LATENTS, WIDTH, an_sae

sae_lens = pytest.importorskip("sae_lens", reason="the extra `sae` is not installed; it wants another transformer-lens")


@pytest.mark.parametrize("folder", sorted(SAES.glob("*/*")), ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_shipped_saes_are_saelens_too(folder: Path) -> None:
    found, theirs = sae.load_sae(folder), sae_lens.SAE.load_from_disk(str(folder))
    inputs = torch.randn(200, found.width, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latents = theirs.encode(inputs)
        torch.testing.assert_close(found.encode(found.read(inputs)), latents, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.decode(latents), theirs.decode(latents), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("settings", [{}, {"b_dec_first": False, "normalization": "layer_norm"}])
def test_latents_are_those_of_saelens(architecture: str, settings: dict[str, Any], tmp_path: Path) -> None:
    found = an_sae(architecture, **settings)
    sae.save_sae(found, tmp_path)
    if architecture == "batchtopk":
        # SAELens keeps those as jumprelu once they are trained.
        cfg = json.loads((tmp_path / "cfg.json").read_text(encoding="utf-8"))
        (tmp_path / "cfg.json").write_text(json.dumps({**cfg, "architecture": "jumprelu"}), encoding="utf-8")
        weights = load_file(tmp_path / "sae_weights.safetensors")
        weights["threshold"] = torch.full((LATENTS,), float(weights["threshold"]))
        save_file(weights, tmp_path / "sae_weights.safetensors")
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path))
    inputs = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latents = theirs.encode(inputs)
        torch.testing.assert_close(found.encode(found.read(inputs)), latents, atol=1e-4, rtol=1e-4)
        if found.normalization != "layer_norm":
            torch.testing.assert_close(found.decode(latents), theirs.decode(latents), atol=1e-3, rtol=1e-3)
    assert 0 < float((latents > 0).float().mean()) < 1

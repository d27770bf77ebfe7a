"""An atlas of an SAE is verified by another reading of it: whatever a build computes wrong, `verify` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from atlas_builder.config import Configuration
from atlas_builder.models.sae import SAE
from atlas_builder.pipeline.build import build
from atlas_builder.units import sae as units_sae
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure, Listener
from tests.support.saes import WIDTH, write_sae

LATENTS = 10
OLD_TOPK = {
    "hook_point": "blocks.0.hook_resid_post",
    "hook_point_layer": 0,
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 2},
    "model_from_pretrained_kwargs": {"center_writing_weights": True},
    "prepend_bos": False,
    "leak": 0.5,
}
JUMPRELU = {"architecture": "jumprelu", "hook_name": "blocks.0.hook_resid_post"}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def settings(configure: Configure, folder: Path, cfg: dict[str, Any]) -> Configuration:
    tensors = {"W_enc": drawn(WIDTH, LATENTS, seed=1), "W_dec": drawn(LATENTS, WIDTH, seed=2)}
    tensors |= {"b_enc": 0.3 * drawn(LATENTS, seed=3), "b_dec": 0.2 * drawn(WIDTH, seed=4)}
    if cfg.get("architecture") == "jumprelu":
        tensors["log_threshold"] = 0.3 * drawn(LATENTS, seed=5)
    write_sae(folder, cfg, tensors)
    return configure(
        units={"kind": "sae", "path": str(folder)},
        corpus={"max_documents": 12},
        describe={"importance": "none", "prediction": False},
    )


def test_an_old_cfg_is_obeyed_from_the_text_to_the_pages(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    told = Listener()
    made = settings(configure, tmp_path / "sae", OLD_TOPK)
    site = build(made, tmp_path / "site", executor=pool, progress=told)
    assert any("nothing reads leak of cfg.json" in line for line in told.lines)
    assert json.loads((site / "atlas.json").read_bytes())["bos"] == "none"
    records = [json.loads(path.read_bytes()) for path in sorted(site.glob("L0/N*.json"))]
    assert len(records) == LATENTS
    report = verify(site, units=LATENTS, seed=1)
    assert report.problems == []
    assert report.compared["activations"] > 100


ALTERED: dict[str, tuple[dict[str, Any], Callable[[pytest.MonkeyPatch], None]]] = {
    "topk left out": (OLD_TOPK, lambda patch: patch.setattr(
        SAE, "encode", lambda self, read: (read @ self.tensors["W_enc"] + self.tensors["b_enc"]).relu()
    )),
    "b_dec left out": (JUMPRELU, lambda patch: patch.setattr(SAE, "read", lambda self, x: x)),
    "threshold as its logarithm": (JUMPRELU, lambda patch: patch.setattr(Tensor, "exp", lambda self: self.abs())),
    "mean left in": (OLD_TOPK, lambda patch: patch.setattr(units_sae, "_STREAM", ())),
}  # fmt: skip


@pytest.mark.parametrize("case", ALTERED)
def test_what_a_build_computes_wrong_is_found(
    case: str, configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, alter = ALTERED[case]
    made = settings(configure, tmp_path / "sae", cfg)
    with monkeypatch.context() as patch:
        alter(patch)
        site = build(made, tmp_path / "site", executor=pool)
    problems = verify(site, units=LATENTS, seed=1).problems
    assert any("is published as" in problem for problem in problems), problems

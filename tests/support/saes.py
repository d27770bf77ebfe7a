"""Random sparse autoencoders of every architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atlas_builder.config import Configuration
from atlas_builder.models.sae import SAE, save_sae
from tests.support.atlases import Configure

WIDTH, LATENTS = 16, 40
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def an_sae(architecture: str, layer: int = 1, place: str = "mlp.hook_in", **settings: Any) -> SAE:
    """A random SAE whose latents are active here and there."""
    chance = torch.Generator().manual_seed(layer)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    tensors = {"W_enc": drawn(WIDTH, LATENTS), "W_dec": drawn(LATENTS, WIDTH), "b_dec": 0.1 * drawn(WIDTH)}
    if architecture == "gated":
        tensors |= {name: 0.3 * drawn(LATENTS) for name in ("b_gate", "b_mag", "r_mag")}
    else:
        tensors["b_enc"] = drawn(LATENTS)
    if architecture == "jumprelu":
        tensors["threshold"] = drawn(LATENTS).abs()
    if architecture == "batchtopk":
        tensors["threshold"] = torch.tensor(1.5)
    return SAE(architecture, layer, place, tensors, k=5 if architecture == "topk" else 0, **settings)


def a_transcoder(architecture: str, layer: int = 1, place: str = "mlp.hook_in", **settings: Any) -> SAE:
    """A random transcoder whose latents are active here and there."""
    plain = an_sae("jumprelu" if "jumprelu" in architecture else "standard", layer, place)
    tensors = dict(plain.tensors)
    if "skip" in architecture:
        tensors["W_skip"] = 0.3 * torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(99 + layer))
    settings = {"b_dec_first": False, "writes": "hook_mlp_out", **settings}
    return SAE(architecture, layer, place, tensors, **settings)


def write_sae(folder: Path, cfg: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """An SAE's folder with a cfg.json as given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def slow_latents(cfg: dict[str, Any], tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Latents of (rows, width) inputs as SAELens 6 defines them, from a flat or nested cfg.json: (rows, latents).

    Written from its `handle_pre_6_0_config`, `process_sae_in` and the `encode` of each class.
    """
    cfg = {**cfg, **cfg.get("metadata", {})}
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    x = x.double()
    how = cfg.get("normalize_activations") or "none"
    if how == "layer_norm":
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.std(-1, keepdim=True) + 1e-5)
    elif how == "constant_norm_rescale":
        x = x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))
    x = x - weights["b_dec"] * cfg.get("apply_b_dec_to_input", True)
    architecture = cfg.get("architecture", "standard")
    k = cfg.get("k")
    if cfg.get("activation_fn", cfg.get("activation_fn_str")) == "topk":
        architecture, k = "topk", cfg.get("activation_fn_kwargs", {}).get("k", k)
    if architecture == "gated":
        is_open = (x @ weights["W_enc"] + weights["b_gate"] > 0).double()
        return is_open * (x @ (weights["W_enc"] * weights["r_mag"].exp()) + weights["b_mag"]).relu()
    before = x @ weights["W_enc"] + weights["b_enc"]
    if cfg.get("rescale_acts_by_decoder_norm"):
        before = before * weights["W_dec"].norm(dim=-1)
    if architecture == "topk":
        values, at = before.topk(int(k or 0), dim=-1)
        return torch.zeros_like(before).scatter(-1, at, values.relu())
    if architecture == "standard":
        return before.relu()
    threshold = weights["log_threshold"].exp() if "log_threshold" in weights else weights.get("threshold")
    threshold = weights["topk_threshold"] if threshold is None else threshold
    return before.relu() * (before > threshold)


def trained_units(request: pytest.FixtureRequest, configure: Configure, folder: Path) -> Configuration:
    """Settings of a tiny model with latents of two SAEs, or of a tiny CRATE, as the fixture's parameter says."""
    if request.param == "crate":
        return configure(model={"name": str(request.getfixturevalue("crate_folder"))}, units={"kind": "crate"})
    for layer, place in ((0, "hook_resid_post"), (1, "mlp.hook_in")):
        save_sae(an_sae("topk", layer, place), folder / "saes" / str(layer))
    return configure(units={"kind": "sae", "path": str(folder / "saes")})

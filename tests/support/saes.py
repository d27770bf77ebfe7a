"""Random sparse autoencoders of every architecture."""

from __future__ import annotations

from typing import Any

import torch

from atlas_builder.models.sae import SAE

WIDTH, LATENTS = 16, 40
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk")


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

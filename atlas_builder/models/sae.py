"""Sparse autoencoders in SAELens's layout: a folder with cfg.json and sae_weights.safetensors.

Each architecture computes what SAELens 6 computes (`SAE.encode`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from atlas_builder.errors import ConfigurationError, ModelError

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

_ENCODERS = {
    "standard": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "batchtopk": ("b_enc", "threshold"),
}
"""Architectures, and the (latents,) tensors of their encoders besides `W_enc`."""

_PLACES = {
    "ln2.hook_normalized": "mlp.hook_in",
    "mlp.hook_in": "mlp.hook_in",
    "hook_mlp_out": "hook_mlp_out",
    "mlp.hook_out": "hook_mlp_out",
    "hook_resid_pre": "hook_resid_pre",
    "hook_resid_mid": "hook_resid_mid",
    "hook_resid_post": "hook_resid_post",
}
"""Hooks whose output an SAE may read, by SAELens's names and by those of TransformerLens's bridges."""


@dataclass(frozen=True)
class SAE:
    """One sparse autoencoder: `W_enc` is (width, latents), `W_dec` (latents, width)."""

    architecture: str
    layer: int
    place: str
    """The hook of the layer whose output it reads, one of `_PLACES`' values."""
    tensors: dict[str, Tensor]
    k: int = 0
    """Latents that are active at a token, for `topk`."""
    b_dec_first: bool = True
    """Whether `b_dec` is subtracted from the input before encoding."""
    normalises: bool = False
    """Whether each input is first normalised to mean 0 and variance 1."""
    by_decoder_norm: bool = False
    """Whether latents are scaled by the norm of their decoder row, for `topk`."""
    model: str | None = None
    """The model that the SAE was trained on, by its metadata."""

    @property
    def width(self) -> int:
        """Width of its input."""
        return int(self.tensors["W_enc"].shape[0])

    @property
    def latents(self) -> int:
        """Number of latents."""
        return int(self.tensors["W_enc"].shape[1])

    def read(self, x: Tensor) -> Tensor:
        """The encoder's own input, from the output of its hook: (…, width)."""
        if self.normalises:
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.std(-1, keepdim=True) + 1e-5)
        return x - self.tensors["b_dec"] if self.b_dec_first else x

    def encode(self, read: Tensor) -> Tensor:
        """Latents of the encoder's own input: (…, latents)."""
        weights = self.tensors
        linear = read @ weights["W_enc"]
        if self.architecture == "gated":
            magnitude = functional.relu(linear * weights["r_mag"].exp() + weights["b_mag"])
            return magnitude * (linear + weights["b_gate"] > 0)
        linear = linear + weights["b_enc"]
        if self.by_decoder_norm:
            linear = linear * weights["W_dec"].norm(dim=-1)
        active = functional.relu(linear)
        if "threshold" in _ENCODERS[self.architecture]:
            return active * (linear > weights["threshold"])
        if self.architecture == "topk":
            values, places = active.topk(self.k, dim=-1)
            return torch.zeros_like(active).scatter(-1, places, values)
        return active

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstruction of the hook's output, where inputs are not normalised: (…, width)."""
        rows = self.tensors["W_dec"]
        if self.by_decoder_norm:
            latents = latents / rows.norm(dim=-1)
        return latents @ rows + self.tensors["b_dec"]

    def to(self, device: str | torch.device, dtype: torch.dtype) -> SAE:
        """The same SAE on another device or in another precision."""
        moved = {name: tensor.to(device, dtype) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)


def load_sae(folder: Path) -> SAE:
    """Read one SAE.

    Raises `ModelError` where the folder is not an SAE, its architecture or hook is unknown,
    or tensors are missing or have mismatched shapes.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(f"SAE {folder} cannot be read ({error}): it requires {CONFIG} and {WEIGHTS}.") from error
    config = {**config, **(config.get("metadata") or {})}  # SAELens 6 moved the model's facts there
    architecture = str(config.get("architecture", "standard"))
    if architecture not in _ENCODERS:
        known = ", ".join(_ENCODERS)
        raise ModelError(f"SAE {folder}: architecture {architecture!r} is unknown: it must be one of {known}.")
    if "topk_threshold" in tensors:
        tensors["threshold"] = tensors.pop("topk_threshold")
    normalised = str(config.get("normalize_activations", "none"))
    if normalised not in ("none", "layer_norm"):
        raise ModelError(f"SAE {folder}: fold its normalize_activations {normalised!r} into the weights first.")
    if (function := config.get("activation_fn") or config.get("activation_fn_str")) not in (None, "relu", "topk"):
        raise ModelError(f"SAE {folder}: activation_fn {function!r} is unknown: it must be relu.")
    layer, place = _place(str(config.get("hook_name", "")), folder)
    sae = SAE(
        architecture=architecture,
        layer=layer,
        place=place,
        tensors=tensors,
        k=int(config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or 0),
        b_dec_first=bool(config.get("apply_b_dec_to_input", True)),
        normalises=normalised == "layer_norm",
        by_decoder_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
        model=config.get("model_name"),
    )
    _check(sae, folder)
    return sae


def save_sae(sae: SAE, folder: Path, **more: Any) -> None:
    """Write an SAE in SAELens's layout; `more` goes into its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": sae.architecture,
        "d_in": sae.width,
        "d_sae": sae.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.b_dec_first,
        "normalize_activations": "layer_norm" if sae.normalises else "none",
        "reshape_activations": "none",
        **({"k": sae.k, "rescale_acts_by_decoder_norm": sae.by_decoder_norm} if sae.architecture == "topk" else {}),
        "metadata": {"hook_name": f"blocks.{sae.layer}.{sae.place}", "model_name": sae.model, **more},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in sae.tensors.items()}, folder / WEIGHTS)


def find_saes(folder: Path) -> list[Path]:
    """The SAEs of a folder: itself, or its subfolders, by name. Raises `ConfigurationError` where there is none."""
    if (folder / CONFIG).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not folders:
        raise ConfigurationError(f"units.path: {folder} contains no SAE: name a folder with {CONFIG} and {WEIGHTS}.")
    return folders


def _place(hook: str, folder: Path) -> tuple[int, str]:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if not match or match[2] not in _PLACES:
        known = ", ".join(f"blocks.N.{place}" for place in _PLACES)
        raise ModelError(f"SAE {folder}: hook_name {hook!r} is not supported: it must be one of {known}.")
    return int(match[1]), _PLACES[match[2]]


def _check(sae: SAE, folder: Path) -> None:
    encoder = sae.tensors.get("W_enc")
    if encoder is None or encoder.ndim != 2:
        raise ModelError(f"SAE {folder} lacks the matrix W_enc.")
    width, latents = encoder.shape
    expected: dict[str, tuple[int, ...]] = {"W_dec": (latents, width), "b_dec": (width,)}
    expected |= dict.fromkeys(_ENCODERS[sae.architecture], (latents,))
    if sae.architecture == "batchtopk":
        expected["threshold"] = ()
    for name, shape in expected.items():
        if name not in sae.tensors:
            raise ModelError(f"SAE {folder} lacks the tensor {name}, which architecture {sae.architecture} requires.")
        given = tuple(sae.tensors[name].shape)
        if given != shape and not (name == "threshold" and given in ((), (1,), (latents,))):
            raise ModelError(f"SAE {folder}: {name} has the shape {given}, but W_enc requires {shape}.")
    if sae.architecture == "topk" and not 0 < sae.k <= latents:
        raise ModelError(
            f"SAE {folder}: k is {sae.k}, with {latents} latents: set k in {CONFIG} to the number of active latents."
        )

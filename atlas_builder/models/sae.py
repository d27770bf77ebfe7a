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
from atlas_builder.models.checkpoint import read_settings, safe_tensors
from atlas_builder.models.wording import and_more, named, reason, shortened

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
    a setting is of another type than it must be, or tensors are missing, unexpected, have
    mismatched shapes or are not numbers.
    """
    whose = f"SAE {named(folder)}"
    hint = f"it requires {CONFIG} and {WEIGHTS}"
    config = read_settings(folder / CONFIG, whose, hint)
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ModelError(f"{whose}: metadata in {CONFIG} must be a map, not {_kind(metadata)}.")
    settings = _Settings({**config, **metadata}, whose)  # SAELens 6 moved the model's facts there
    architecture = settings.get("architecture", str, "standard")
    if architecture not in _ENCODERS:
        known = ", ".join(_ENCODERS)
        raise ModelError(f"{whose}: architecture {architecture!r} is unknown: it must be one of {known}.")
    normalised = settings.get("normalize_activations", str, "none")
    if normalised not in ("none", "layer_norm"):
        raise ModelError(f"{whose}: fold its normalize_activations {normalised!r} into the weights first.")
    function = settings.get("activation_fn", str, None) or settings.get("activation_fn_str", str, None)
    if function not in (None, "relu", "topk"):
        raise ModelError(f"{whose}: activation_fn {function!r} is unknown: it must be relu.")
    more = _Settings(settings.get("activation_fn_kwargs", dict, None) or {}, whose)
    layer, place = _place(settings.get("hook_name", str, ""), whose)
    sae = SAE(
        architecture=architecture,
        layer=layer,
        place=place,
        tensors=_tensors(folder / WEIGHTS, whose, hint),
        k=settings.get("k", int, 0) or more.get("k", int, 0),
        b_dec_first=settings.get("apply_b_dec_to_input", bool, True),
        normalises=normalised == "layer_norm",
        by_decoder_norm=settings.get("rescale_acts_by_decoder_norm", bool, False),
        model=settings.get("model_name", str, None),
    )
    _check(sae, whose)
    for key, size in (("d_in", sae.width), ("d_sae", sae.latents)):
        if settings.get(key, int, size) != size:
            raise ModelError(f"{whose}: {key} is {settings.get(key, int, 0)}, but W_enc has {size}: correct {CONFIG}.")
    return sae


class _Settings:
    """Values of a cfg.json, each of the type that it must be."""

    def __init__(self, values: dict[str, Any], whose: str) -> None:
        self._values, self._whose = values, whose

    def get(self, key: str, kind: type, default: Any) -> Any:
        """A value; the default where it is absent or null. Raises `ModelError` for another type."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            wanted = {str: "text", int: "a whole number", bool: "true or false", dict: "a map"}[kind]
            raise ModelError(f"{self._whose}: {key} in {CONFIG} must be {wanted}, not {_kind(value)}.")
        return shortened(value) if kind is str else value


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a map" if isinstance(value, dict) else shortened(repr(value), 20)


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
        raise ConfigurationError(
            f"units.path: {named(folder)} contains no SAE: name a folder with {CONFIG} and {WEIGHTS}."
        )
    return folders


def _tensors(file: Path, whose: str, hint: str) -> dict[str, Tensor]:
    try:
        if not file.is_file():
            raise FileNotFoundError(f"there is no {file.name}")
        if whole := [name for name, tensor in safe_tensors(file) if not tensor.is_float]:
            raise ValueError(f"{shortened(whole[0], 30)} holds whole numbers")
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(f"{whose} cannot be read ({reason(error)}): {hint}.") from error
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ModelError(f"{whose}: {and_more(broken)} contain NaN or infinity: save it again.")
    if "topk_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("topk_threshold")
    # SAELens has written ones beside weights that were never fine-tuned.
    if "scaling_factor" in tensors and (tensors["scaling_factor"] == 1).all():
        del tensors["scaling_factor"]
    return tensors


def _place(hook: str, whose: str) -> tuple[int, str]:
    match = re.fullmatch(r"blocks\.(\d{1,6})\.(.+)", hook)
    if not match or match[2] not in _PLACES:
        known = f"blocks.N.{', .'.join(_PLACES)}"
        raise ModelError(f"{whose}: hook_name {shortened(hook, 40)!r} is not supported: it must be one of {known}.")
    return int(match[1]), _PLACES[match[2]]


def _check(sae: SAE, whose: str) -> None:
    encoder = sae.tensors.get("W_enc")
    if encoder is None or encoder.ndim != 2 or not encoder.numel():
        raise ModelError(f"{whose} lacks the matrix W_enc.")
    width, latents = encoder.shape
    expected: dict[str, tuple[int, ...]] = {"W_dec": (latents, width), "b_dec": (width,)}
    expected |= dict.fromkeys(_ENCODERS[sae.architecture], (latents,))
    if sae.architecture == "batchtopk":
        expected["threshold"] = ()
    if missing := [name for name in expected if name not in sae.tensors]:
        raise ModelError(
            f"{whose} lacks the tensor {and_more(missing)}, which architecture {sae.architecture} requires."
        )
    if surplus := sae.tensors.keys() - expected.keys() - {"W_enc"}:
        raise ModelError(
            f"{whose} contains the tensor {and_more(surplus)}, which architecture {sae.architecture} does not have."
        )
    for name, shape in expected.items():
        given = tuple(sae.tensors[name].shape)
        if given != shape and not (name == "threshold" and given in ((), (1,), (latents,))):
            raise ModelError(f"{whose}: {name} has the shape {given}, but W_enc requires {shape}.")
    if sae.architecture == "topk" and not 0 < sae.k <= latents:
        raise ModelError(
            f"{whose}: k is {shortened(sae.k, 20)}, with {latents} latents: set k in {CONFIG} to the number "
            "of active latents."
        )

"""SAEs and transcoders read a second time, straight from their files: SAELens's definitions in float64, token by token.

Nothing is shared with `models.sae`, by which a build reads them, so that both cannot make the same mistake.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from atlas_builder.errors import ModelError

Numbers = NDArray[np.float64]
_KNOWN = (
    *("standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk"),
    *("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
)


class PlainSAE:
    """One SAE as its files say; raises `ModelError` for what is not known here."""

    def __init__(self, folder: Path) -> None:
        written = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        self._said: dict[str, Any] = {**written, **(written.get("metadata") or {})}
        self._whose = folder.name
        self._numbers = _numbers(folder / "sae_weights.safetensors")
        dead = self._dead()
        self._numbers["W_enc"][:, dead] = 0
        for name, array in self._numbers.items():
            if name not in ("W_enc", "b_dec", "W_skip") and array.size >= len(dead):
                array[dead] = 0
        hook = str(self._first("hook_name", "hook_point"))
        _, layer, self.hook = hook.split(".", 2)
        self.layer = int(self._first("hook_layer", "hook_point_layer")) if layer == "{layer}" else int(layer)
        self.prepends_bos = self._said.get("prepend_bos") is not False
        self._lengths: Numbers = np.ones(1)
        if self._said.get("rescale_acts_by_decoder_norm"):
            self._lengths = np.sqrt((self._numbers["W_dec"] ** 2).sum(axis=1))

    @property
    def encoder(self) -> Numbers:
        """What each latent responds to: (latents, width)."""
        rows: Numbers = self._numbers["W_enc"].T * self._lengths[:, np.newaxis]
        return rows

    @property
    def decoder(self) -> Numbers:
        """What each latent writes when its activation is 1: (latents, width)."""
        rows: Numbers = self._numbers["W_dec"] / np.maximum(self._lengths, 1e-8)[:, np.newaxis]
        return rows

    def was_loaded_with(self, argument: str) -> bool:
        """Whether the model that it was trained on was loaded with a processing of its weights."""
        return bool((self._said.get("model_from_pretrained_kwargs") or {}).get(argument))

    def latents(self, x: Numbers) -> tuple[Numbers, Numbers]:
        """The encoder's own inputs and the latents, of (tokens, width) values of the hook."""
        inputs = np.stack([self._encoder_input(token) for token in x])
        before = inputs @ self._numbers["W_enc"]
        return inputs, np.stack([self._active(drive) for drive in before])

    def _encoder_input(self, token: Numbers) -> Numbers:
        how = self._said.get("normalize_activations") or "none"
        if how == "layer_norm":
            token = token - token.mean()
            token = token / (np.sqrt((token**2).sum() / (token.size - 1)) + 1e-5)
        elif how == "constant_norm_rescale":
            token = token * np.sqrt(token.size) / max(float(np.sqrt(token @ token)), 1e-8)
        elif how != "none":
            raise self._unknown("normalize_activations", how)
        if "transcoder" in self._architecture:  # its b_dec is of what it writes
            return token
        return token if self._said.get("apply_b_dec_to_input") is False else token - self._numbers["b_dec"]

    def _active(self, drive: Numbers) -> Numbers:
        """The latents of one token, from its input's products with the encoder's columns: (latents,)."""
        numbers, architecture = self._numbers, self._architecture
        if architecture == "gated":
            opened = drive > -numbers["b_gate"]
            return np.maximum(drive * np.exp(numbers["r_mag"]) + numbers["b_mag"], 0) * opened
        drive = (drive + numbers["b_enc"]) * self._lengths
        if architecture == "topk":
            out = np.zeros_like(drive)
            for latent in np.argsort(-drive, kind="stable")[: self._k]:
                out[latent] = max(drive[latent], 0)
            return out
        least = np.zeros(1)
        if architecture not in ("standard", "transcoder", "skip_transcoder"):
            least = np.exp(numbers["log_threshold"]) if "log_threshold" in numbers else self._threshold
        return np.where((drive > least) & (drive > 0), drive, 0.0)

    @property
    def _architecture(self) -> str:
        named = self._said.get("architecture") or "standard"
        if self._first("activation_fn", "activation_fn_str") == "topk":
            return "topk"
        if named not in _KNOWN:
            raise self._unknown("architecture", named)
        return str(named)

    @property
    def _k(self) -> int:
        given = self._said.get("k")
        return int((self._said.get("activation_fn_kwargs") or {})["k"] if given is None else given)

    @property
    def _threshold(self) -> Numbers:
        return self._numbers["threshold" if "threshold" in self._numbers else "topk_threshold"]

    def _first(self, *keys: str) -> Any:
        return next((self._said[key] for key in keys if self._said.get(key) is not None), None)

    def _dead(self) -> NDArray[np.bool_]:
        """Latents with weights that are no numbers, which an atlas shows as dead: (latents,)."""
        latents = self._numbers["W_enc"].shape[1]
        dead = np.asarray(np.logical_not(np.isfinite(self._numbers["W_enc"])).any(axis=0))
        for name, array in self._numbers.items():
            if name not in ("W_enc", "b_dec", "W_skip") and array.size >= latents:
                dead |= np.logical_not(np.isfinite(array.reshape(latents, -1))).any(axis=1)
        return dead

    def _unknown(self, key: str, value: object) -> ModelError:
        return ModelError(f"SAE {self._whose}: {key} {value!r} cannot be verified: build from an SAE without it.")


def _numbers(file: Path) -> dict[str, Numbers]:
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        return {name: tensors.get_tensor(name).double().numpy() for name in names}

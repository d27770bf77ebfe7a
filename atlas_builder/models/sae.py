"""Sparse autoencoders and transcoders in SAELens's layout: a folder with cfg.json and sae_weights.safetensors.

Each architecture computes what SAELens 6 computes (`SAE.encode`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from atlas_builder.errors import ModelError
from atlas_builder.models.checkpoint import read_settings, safe_tensors
from atlas_builder.models.saelens import CONFIG, TRANSCODERS, parse_description
from atlas_builder.models.wording import and_more, named, reason, shortened

WEIGHTS = "sae_weights.safetensors"
_TINY = 1e-8
"""No decoder row is taken to be shorter, as in SAELens."""

_ENCODERS = {
    "standard": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "batchtopk": ("b_enc", "threshold"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc",),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold"),
}
"""Architectures, and the (latents,) tensors of their encoders besides `W_enc`."""


@dataclass(frozen=True)
class SAE:
    """One sparse autoencoder or transcoder: `W_enc` is (width, latents), `W_dec` (latents, written width).

    A transcoder writes the output of the MLP whose input it reads (Dunefsky et al. 2024, arXiv 2406.11944). `W_skip`,
    (written width, width), of a skip transcoder (Paulo et al. 2025, arXiv 2501.18823) counts in `reconstruct` alone.
    """

    architecture: str
    layer: int
    place: str
    """The hook of the layer that it reads, one of `HOOKS`."""
    tensors: dict[str, Tensor]
    k: int = 0
    """Latents that are active at a token, for `topk`."""
    b_dec_first: bool = True
    """Whether `b_dec` is subtracted from the input before encoding."""
    normalization: str = "none"
    """What is done to each input first: `layer_norm`, mean 0 and variance 1; `constant_norm_rescale`, length √width."""
    by_decoder_norm: bool = False
    """Whether latents are scaled by the norm of their decoder row before they are compared."""
    centred: bool = False
    """Whether it was trained on a model whose writing weights were centred (`center_writing_weights`)."""
    folded: bool = False
    """Whether it was trained on a model whose norms had no gain left (`fold_ln`)."""
    prepends_bos: bool = True
    """Whether the contexts that it was trained on began with the tokenizer's token for that."""
    model: str | None = None
    """The model that the SAE was trained on, by its metadata."""
    checkpoint: str | None = None
    """The model's revision or checkpoint that it was trained on, where that is not the last."""
    writes: str | None = None
    """The hook of the layer that a transcoder writes; None for an SAE, which writes what it reads."""
    notes: tuple[str, ...] = ()
    """What its user should know of its files, a sentence each."""

    @property
    def width(self) -> int:
        """Width of its input."""
        return int(self.tensors["W_enc"].shape[0])

    @property
    def noun(self) -> str:
        """What it is called in messages."""
        return "transcoder" if self.architecture in TRANSCODERS else "SAE"

    @property
    def written_width(self) -> int:
        """Width of what it writes."""
        return int(self.tensors["W_dec"].shape[1])

    @property
    def latents(self) -> int:
        """Number of latents."""
        return int(self.tensors["W_enc"].shape[1])

    def read(self, x: Tensor) -> Tensor:
        """The encoder's own input, from the output of its hook: (…, width)."""
        if self.normalization == "layer_norm":
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.std(-1, keepdim=True) + 1e-5)
        elif self.normalization == "constant_norm_rescale":
            x = x * (self.width**0.5 / x.norm(dim=-1, keepdim=True).clamp(min=_TINY))
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
            linear = linear * self.decoder_norms()
        active = functional.relu(linear)
        if "threshold" in _ENCODERS[self.architecture]:
            return active * (linear > weights["threshold"])
        if self.architecture == "topk":
            values, places = active.topk(self.k, dim=-1)
            return torch.zeros_like(active).scatter(-1, places, values)
        return active

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstruction of the hook's output, where inputs are not normalised: (…, width)."""
        return latents @ self.written() + self.tensors["b_dec"]

    def reconstruct(self, x: Tensor) -> Tensor:
        """What it makes of the output of its hook, where that is not normalised: (…, written width)."""
        made = self.decode(self.encode(self.read(x)))
        return made + x @ self.tensors["W_skip"].T if "W_skip" in self.tensors else made

    def unexplained(self, x: Tensor, target: Tensor) -> float:
        """Fraction of variance unexplained: squared error of the reconstruction over the target's variance.

        `x` are values of its hook, (tokens, width), `target` those of what it writes, (tokens, written width): of a
        transcoder the MLP's true outputs, of an SAE `x` again. NaN where the target does not vary.
        """
        error = (target - self.reconstruct(x)).double().square().sum()
        return float(error / (target - target.mean(0)).double().square().sum())

    def decoder_norms(self) -> Tensor:
        """Lengths of the decoder rows: (latents,)."""
        norms: Tensor = self.tensors["W_dec"].norm(dim=-1)
        return norms

    def encoder(self) -> Tensor:
        """What each latent responds to, on the scale of its activation: (latents, width)."""
        rows = self.tensors["W_enc"].T
        return rows * self.decoder_norms()[:, None] if self.by_decoder_norm else rows

    def written(self) -> Tensor:
        """What each latent adds to the reconstruction, for an activation of 1: (latents, width)."""
        rows = self.tensors["W_dec"]
        return rows / self.decoder_norms().clamp(min=_TINY)[:, None] if self.by_decoder_norm else rows

    def to(self, device: str | torch.device, dtype: torch.dtype) -> SAE:
        """The same SAE on another device or in another precision."""
        moved = {name: tensor.to(device, dtype) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)


def load_sae(folder: Path, kind: Literal["sae", "transcoder"] = "sae") -> SAE:
    """Read one SAE, or one transcoder.

    Latents whose weights are not numbers are read as dead, and `notes` say so. Raises
    `ModelError` where the folder is not of that kind, its architecture or hook is unknown, a
    setting cannot be obeyed, or tensors are missing, unexpected, have mismatched shapes or
    are not numbers.
    """
    whose = f"{'SAE' if kind == 'sae' else 'transcoder'} {named(folder)}"
    hint = f"it requires {CONFIG} and {WEIGHTS}"
    said = parse_description(read_settings(folder / CONFIG, whose, hint), whose)
    known = ", ".join(name for name in _ENCODERS if (name in TRANSCODERS) == (kind == "transcoder"))
    if (said.architecture in TRANSCODERS) != (kind == "transcoder") and said.architecture in _ENCODERS:
        fitting = "sae" if kind == "transcoder" else "transcoder"
        raise ModelError(f"{whose}: architecture {said.architecture} is not of this kind: set units.kind to {fitting}.")
    if said.architecture not in _ENCODERS:
        raise ModelError(f"{whose}: architecture {said.architecture!r} is unknown: it must be one of {known}.")
    settings = {name: value for name, value in vars(said).items() if name != "widths"}
    sae = SAE(tensors=_tensors(folder / WEIGHTS, whose, hint, said.architecture), **settings)
    _check(sae, whose)
    sizes = {"d_in": ("W_enc", sae.width), "d_sae": ("W_enc", sae.latents), "d_out": ("W_dec", sae.written_width)}
    for key, (name, size) in sizes.items():
        if (given := said.widths.get(key, size)) != size:
            raise ModelError(f"{whose}: {key} is {shortened(given, 20)}, but {name} has {size}: correct {CONFIG}.")
    return _without_broken(sae, whose)


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
        "normalize_activations": sae.normalization,
        "reshape_activations": "none",
        **({"k": sae.k} if sae.architecture == "topk" else {}),
        **({"rescale_acts_by_decoder_norm": sae.by_decoder_norm} if "topk" in sae.architecture else {}),
        **({"d_out": sae.written_width} if sae.writes else {}),
        "metadata": {
            "hook_name": f"blocks.{sae.layer}.{sae.place}",
            # Without a version SAELens reads a file as one of before 6, whose hook it does not keep.
            **(
                {"hook_name_out": f"blocks.{sae.layer}.{sae.writes}", "sae_lens_version": "6.0.0"} if sae.writes else {}
            ),
            "model_name": sae.model,
            "prepend_bos": sae.prepends_bos,
            "model_from_pretrained_kwargs": {"center_writing_weights": sae.centred, "fold_ln": sae.folded},
            **more,
        },
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in sae.tensors.items()}, folder / WEIGHTS)


def _tensors(file: Path, whose: str, hint: str, architecture: str) -> dict[str, Tensor]:
    try:
        if not file.is_file():
            raise FileNotFoundError(f"there is no {file.name}")
        if whole := [name for name, tensor in safe_tensors(file) if not tensor.is_float]:
            raise ValueError(f"{shortened(whole[0], 30)} holds whole numbers")
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    except Exception as error:  # safetensors raises its own kinds
        raise ModelError(f"{whose} cannot be read ({reason(error)}): {hint}.") from error
    if architecture == "batchtopk" and "topk_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("topk_threshold")
    if architecture == "jumprelu" and "log_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    # SAELens has written ones beside weights that were never fine-tuned.
    if "scaling_factor" in tensors and torch.allclose(tensors["scaling_factor"], torch.ones(())):
        del tensors["scaling_factor"]
    return tensors


def _without_broken(sae: SAE, whose: str) -> SAE:
    """The same SAE, its latents of NaN or infinity dead; raises `ModelError` where that concerns all of them."""
    broken = torch.zeros(sae.latents, dtype=torch.bool)
    by_latent = {
        name: tensor.T if name == "W_enc" else tensor[:, None] if tensor.ndim == 1 else tensor
        for name, tensor in sae.tensors.items()
        if name not in ("b_dec", "W_skip") and tensor.shape and tensor.numel() >= sae.latents
    }  # (latents, …) each
    damaged = [name for name, tensor in sae.tensors.items() if not tensor.isfinite().all()]
    if not damaged:
        return sae
    for tensor in by_latent.values():
        broken |= ~tensor.isfinite().all(1)
    if broken.all() or not by_latent.keys() >= set(damaged):
        raise ModelError(f"{whose}: {and_more(damaged)} contain NaN or infinity: save it again.")
    for tensor in by_latent.values():
        tensor[broken] = 0
    said = f"{whose}: {and_more(damaged)} contain NaN or infinity, so {int(broken.sum()):,} latents are read as dead"
    return replace(sae, notes=(*sae.notes, said))


def _check(sae: SAE, whose: str) -> None:
    encoder = sae.tensors.get("W_enc")
    if encoder is None or encoder.ndim != 2 or not encoder.numel():
        raise ModelError(f"{whose} lacks the matrix W_enc.")
    width, latents = encoder.shape
    written = width
    if sae.architecture in TRANSCODERS and "W_dec" in sae.tensors and sae.tensors["W_dec"].ndim == 2:
        written = sae.written_width
    expected: dict[str, tuple[int, ...]] = {"W_dec": (latents, written), "b_dec": (written,)}
    if "skip" in sae.architecture:
        expected["W_skip"] = (written, width)
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

"""Latents of sparse autoencoders, and of transcoders, of a model's MLPs or its residual stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from atlas_builder.errors import ConfigurationError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.models.sae import SAE
from atlas_builder.units.base import ActivationHook, StopForwardPass, chosen_layers, logits_with_hooks, run_with_hooks

_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")
"""Places that centred writing weights change: the residual stream, and what is added to it."""


class SAEUnits:
    """A unit is a latent of its layer's SAE, at most one SAE per layer.

    Its embedding is the encoder's own input ⊙ its encoder row, and its output weights are
    its decoder row (Foote 2024 has h − b_dec, where the encoder subtracts b_dec). Raises
    `ConfigurationError` where an SAE does not fit the model or the others.
    """

    kind = "sae"

    def __init__(self, bridge: Any, saes: Sequence[SAE], layers: Literal["all"] | Sequence[int] = "all") -> None:
        self._bridge = bridge
        depth = int(bridge.cfg.n_layers)
        self._saes = {sae.layer: sae for sae in _fitting(saes, depth, int(bridge.cfg.d_model))}
        chosen = chosen_layers(layers, depth)
        if layers != "all" and (missing := [layer for layer in chosen if layer not in self._saes]):
            noun, one = next(((sae.noun, _a(sae)) for sae in saes), ("SAE", "an SAE"))
            raise ConfigurationError(
                f"units.layers: there is no {noun} of layer {missing[0]}: choose layers with {one}."
            )
        self.layers = [layer for layer in chosen if layer in self._saes]
        read = [self._saes[layer] for layer in self.layers]
        self._sources = {sae.layer: _source(bridge, sae) for sae in read}
        self.prepends_bos = _agreed_bos(read)
        self.notes = [note for sae in read for note in (*sae.notes, *_notes(bridge, sae))]
        weight = next(iter(bridge.original_model.parameters()))
        self._saes = {sae.layer: sae.to(weight.device, weight.dtype) for sae in read}

    @property
    def activation(self) -> str:
        """The architectures of the SAEs."""
        return ", ".join(sorted({sae.architecture for sae in self._saes.values()}))

    def count(self, layer: int) -> int:
        """Number of latents of the layer's SAE."""
        return self._saes[layer].latents

    def has_negative(self, layer: int) -> bool:
        """Latents are never below zero."""
        return False

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on (batch, context) tokens up to the last layer with an SAE, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]
        run_with_hooks(self._bridge, tokens, self._hooks(visit, layers, rows.at), rows, layers[-1])

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on (batch, context) tokens, visiting each layer: (batch, context, vocabulary)."""
        return logits_with_hooks(self._bridge, tokens, self._hooks(visit, self.layers))

    def _hooks(self, visit: ActivationHook, layers: Sequence[int], at: Tensor | None = None) -> list[tuple[str, Any]]:
        """By places of the model what visits the layers; after the last, it stops the run."""

        def show(layer: int, change: Callable[[Tensor], Tensor]) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                sae = self._saes[layer]
                inputs = sae.read(change(at_places(tensor, at)))
                visit(layer, inputs, sae.encode(inputs))
                if layer == layers[-1]:
                    raise StopForwardPass

            return hook

        return [(name, show(layer, change)) for layer in layers for name, change in [self._sources[layer]]]

    def read_weights(self, layer: int) -> Tensor:
        """Encoder rows: (1, units, width)."""
        return as_float32(self._saes[layer].encoder())[None]

    def write_weights(self, layer: int) -> Tensor:
        """Decoder rows: (units, width)."""
        return as_float32(self._saes[layer].written())


class TranscoderUnits(SAEUnits):
    """A unit is a latent of its layer's transcoder, which reads what enters the MLP and writes what leaves it.

    Its embedding is the MLP's input ⊙ its encoder row, as of a neuron; its decoder row is added to the residual stream
    where the MLP's output is, so that its direct logit effect is that of a neuron.
    """

    kind = "transcoder"


def _a(sae: SAE) -> str:
    return "a transcoder" if sae.noun == "transcoder" else "an SAE"


def _fitting(saes: Sequence[SAE], depth: int, width: int) -> list[SAE]:
    """The SAEs, each of a layer of its own; raises `ConfigurationError` where one is of another model."""
    layers: set[int] = set()
    for sae in saes:
        if sae.layer >= depth:
            raise ConfigurationError(
                f"units.path: {_a(sae)} reads layer {sae.layer}, but the model has layers 0 to {depth - 1}."
            )
        if sae.width != width:
            raise ConfigurationError(
                f"units.path: the {sae.noun} of layer {sae.layer} has width {sae.width}, but the model has "
                f"width {width}: choose {_a(sae)} of this model."
            )
        if sae.written_width != width and sae.writes is not None:
            raise ConfigurationError(
                f"units.path: the transcoder of layer {sae.layer} writes width {sae.written_width}, but the model has "
                f"width {width}: choose a transcoder of this model."
            )
        if sae.layer in layers:
            raise ConfigurationError(
                f"units.path: two {sae.noun}s read layer {sae.layer}: name the folder of one of them."
            )
        layers.add(sae.layer)
    return list(saes)


def _source(bridge: Any, sae: SAE) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The bridge's hook that an SAE reads, and what is done to its value.

    A model whose norms are folded has no gains: its MLP reads what stands before them here.
    Centred writing weights leave the stream, and whatever is added to it, less its mean.
    """
    place = "ln2.hook_normalized" if sae.folded and sae.place == "mlp.hook_in" else sae.place
    name = f"blocks.{sae.layer}.{place}"
    if name not in bridge.hook_dict:
        raise ConfigurationError(
            f"units.path: the {sae.noun} of layer {sae.layer} reads {name}, which a model of this architecture "
            f"({bridge.cfg.architecture}) does not have: choose {_a(sae)} of another hook."
        )
    if sae.centred and sae.place in _STREAM and not _is_rms(bridge):
        if hasattr(bridge, "embed_ln") or not getattr(bridge.adapter, "supports_center_writing_weights", True):
            raise ConfigurationError(
                f"units.path: the SAE of layer {sae.layer} was trained with center_writing_weights, which changes what "
                f"a model of this architecture ({bridge.cfg.architecture}) computes: choose another SAE."
            )
        return name, lambda x: x - x.mean(-1, keepdim=True)
    return name, lambda x: x


def _is_rms(bridge: Any) -> bool:
    """Whether the norms leave the mean where it is: TransformerLens centres no such model."""
    return bool(getattr(getattr(bridge, "ln_final", None), "uses_rms_norm", True))


def _agreed_bos(saes: Sequence[SAE]) -> bool:
    """Whether contexts begin with the tokenizer's token for that, as all the SAEs were trained."""
    if len(said := {sae.prepends_bos for sae in saes}) > 1:
        one = next(sae for sae in saes if not sae.prepends_bos)
        raise ConfigurationError(
            f"units.layers: the {one.noun} of layer {one.layer} has prepend_bos false, others true: an atlas has "
            "contexts of one kind, so build one for each."
        )
    return said != {False}


def _notes(bridge: Any, sae: SAE) -> list[str]:
    if sae.place != "ln2.hook_normalized" or sae.folded or _is_rms(bridge):
        return []
    return [
        f"the {sae.noun} of layer {sae.layer} reads ln2.hook_normalized, which TransformerLens 3 and later have before "
        "the norm's gain; if it was trained with TransformerLens 2, set its hook_name to "
        f"blocks.{sae.layer}.mlp.hook_in"
    ]

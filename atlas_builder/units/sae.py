"""Latents of sparse autoencoders of a model's MLPs or its residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from atlas_builder.errors import ConfigurationError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.sae import SAE
from atlas_builder.units.base import ActivationHook, StopForwardPass, chosen_layers, run_with_hooks


class SAEUnits:
    """A unit is a latent of its layer's SAE, at most one SAE per layer.

    Its embedding is the encoder's own input ⊙ its encoder row, and its output weights are
    its decoder row (Foote 2024 has h − b_dec, where the encoder subtracts b_dec). Raises
    `ConfigurationError` where an SAE does not fit the model or two are of one layer.
    """

    kind = "sae"

    def __init__(self, bridge: Any, saes: Sequence[SAE], layers: Literal["all"] | Sequence[int] = "all") -> None:
        self._bridge = bridge
        depth, width = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
        weight = next(iter(bridge.original_model.parameters()))
        self._saes: dict[int, SAE] = {}
        for sae in saes:
            if sae.layer >= depth:
                raise ConfigurationError(
                    f"units.path: an SAE reads layer {sae.layer}, but the model has layers 0 to {depth - 1}."
                )
            if sae.width != width:
                raise ConfigurationError(
                    f"units.path: the SAE of layer {sae.layer} has width {sae.width}, but the model has "
                    f"width {width}: choose an SAE of this model."
                )
            if sae.layer in self._saes:
                raise ConfigurationError(
                    f"units.path: two SAEs read layer {sae.layer}: name the folder of one of them."
                )
            self._saes[sae.layer] = sae.to(weight.device, weight.dtype)
        chosen = chosen_layers(layers, depth)
        if layers != "all" and (missing := [layer for layer in chosen if layer not in self._saes]):
            raise ConfigurationError(f"units.layers: there is no SAE of layer {missing[0]}: choose layers with an SAE.")
        self.layers = [layer for layer in chosen if layer in self._saes]

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

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, cache: Any = None) -> None:
        """Run the model on (batch, context) tokens up to the last layer with an SAE, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]

        def show(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                sae = self._saes[layer]
                inputs = sae.read(tensor)
                visit(layer, inputs, sae.encode(inputs))
                if layer == layers[-1]:
                    raise StopForwardPass

            return hook

        hooks = [(f"blocks.{layer}.{self._saes[layer].place}", show(layer)) for layer in layers]
        run_with_hooks(self._bridge, tokens, hooks, cache)

    def read_weights(self, layer: int) -> Tensor:
        """Encoder rows: (1, units, width)."""
        return as_float32(self._saes[layer].tensors["W_enc"].T)[None]

    def write_weights(self, layer: int) -> Tensor:
        """Decoder rows: (units, width)."""
        return as_float32(self._saes[layer].tensors["W_dec"])

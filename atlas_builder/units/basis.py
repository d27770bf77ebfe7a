"""Directions of what enters each MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from atlas_builder.errors import ConfigurationError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.units.base import ActivationHook, StopForwardPass, chosen_layers, logits_with_hooks, run_with_hooks
from atlas_builder.units.mlp import MLPUnits


class Directions(NamedTuple):
    """Directions of one layer, k of width d_model."""

    mean: Tensor
    """(d_model,)"""
    encode: Tensor
    """(d_model, k)"""
    decode: Tensor
    """(k, d_model)"""
    effect: Tensor
    """Mean effect of a step of one through the MLP: (k, d_model)."""


class BasisUnits:
    """A unit is a direction of what enters its layer's MLP, h: its activation is (h - μ) · encode, of either sign.

    Its input weights are its column of `encode`, so that its embedding is (h - μ) ⊙ encode; as
    output weights it has its mean effect through the MLP, which is none of the model's own. Raises
    `ConfigurationError` for a layer without directions.
    """

    kind = "basis"
    activation = "linear"

    def __init__(
        self, bridge: Any, directions: Mapping[int, Directions], layers: Literal["all"] | Sequence[int] = "all"
    ) -> None:
        self._bridge = bridge
        self.layers = chosen_layers(layers, int(bridge.cfg.n_layers))
        if missing := [layer for layer in self.layers if layer not in directions]:
            raise ConfigurationError(
                f"units.layers: there are no directions of layer {missing[0]}: build with --fresh."
            )
        self._places = MLPUnits(bridge, layers)
        weight = next(iter(bridge.original_model.parameters()))
        self._directions = {
            layer: Directions(*(array.to(weight.device, torch.float32) for array in directions[layer]))
            for layer in self.layers
        }

    def count(self, layer: int) -> int:
        """Number of directions."""
        return int(self._directions[layer].encode.shape[1])

    def has_negative(self, layer: int) -> bool:
        """Coordinates are of either sign."""
        return True

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on (batch, context) tokens up to the last layer of the units, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]
        run_with_hooks(self._bridge, tokens, self._hooks(visit, layers, rows.at), rows, layers[-1])

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on (batch, context) tokens, visiting each layer: (batch, context, vocabulary)."""
        return logits_with_hooks(self._bridge, tokens, self._hooks(visit, self.layers))

    def _hooks(self, visit: ActivationHook, layers: Sequence[int], at: Tensor | None = None) -> list[tuple[str, Any]]:
        """By places of the model what visits the layers; after the last, it stops the run."""

        def show(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                own = self._directions[layer]
                centred = at_places(tensor, at).float() - own.mean
                visit(layer, centred, centred @ own.encode)
                if layer == layers[-1]:
                    raise StopForwardPass

            return hook

        return [(self._places.places(layer)[0], show(layer)) for layer in layers]

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens, (rows, vocabulary), coordinates (rows,) clamped to values (rows,)."""
        own = self._directions[layer]

        def clamp(tensor: Tensor, hook: Any) -> Tensor:
            assert unit is not None
            assert value is not None
            coordinate = ((tensor.float() - own.mean) * own.encode.T[unit][:, None]).sum(dim=-1)  # (rows, context)
            step = (value.float()[:, None] - coordinate)[..., None] * own.decode[unit][:, None]
            return tensor + step.to(tensor.dtype)

        hooks = [] if unit is None else [(self._places.places(layer)[0], clamp)]
        with torch.inference_mode():
            logits: Tensor = self._bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
        return logits[:, -1]

    def read_weights(self, layer: int) -> Tensor:
        """Columns of `encode`: (1, units, d_model)."""
        return as_float32(self._directions[layer].encode.T)[None]

    def write_weights(self, layer: int) -> Tensor:
        """Mean effects through the MLP: (units, d_model)."""
        return as_float32(self._directions[layer].effect)

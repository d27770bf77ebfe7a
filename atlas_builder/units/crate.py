"""Coordinates of a CRATE's sparse codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from atlas_builder.models.crate import CODES, Crate
from atlas_builder.models.memory import as_float32
from atlas_builder.units.base import ActivationHook, chosen_layers, clamped


class CrateUnits:
    """A unit is a coordinate of A₂, what two steps of ISTA make of a layer's input (arXiv 2410.16443).

    It reads with its column of the dictionary D, which is also what it writes: a layer hands
    on D A₂ and nothing beside it. An embedding is the dictionary's input ⊙ the column; its
    sum is what the first step starts from, so it says what was answered to as far as one step
    goes. Raises `ConfigurationError` for a layer that does not exist.
    """

    kind = "crate"
    activation = "ista"

    def __init__(self, model: Crate, layers: Literal["all"] | Sequence[int] = "all") -> None:
        self._model = model
        self.layers = chosen_layers(layers, model.shape.layers)

    def count(self, layer: int) -> int:
        """How many columns the dictionary has."""
        return CODES * self._model.shape.width

    def has_negative(self, layer: int) -> bool:
        """Codes are never below zero."""
        return False

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, cache: Any = None) -> None:
        """Run the model on (batch, context) tokens as far as the last layer read, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]

        def see(layer: int, read: Tensor, code: Tensor) -> None:
            if layer in layers:
                visit(layer, read, code)

        with torch.inference_mode():
            self._model.stream(tokens, see, layers[-1], cache)

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens, (rows, vocabulary), with coordinates (rows,) held at values (rows,)."""

        def change(at: int, code: Tensor) -> Tensor:
            return clamped(code, unit, value) if at == layer else code

        with torch.inference_mode():
            return self._model.forward(tokens, change)[:, -1]

    def read_weights(self, layer: int) -> Tensor:
        """Columns of D: (1, units, width)."""
        return self.write_weights(layer)[None]

    def write_weights(self, layer: int) -> Tensor:
        """Columns of D: (units, width)."""
        return as_float32(self._model.dictionary(layer))

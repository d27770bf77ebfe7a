"""Coordinates of a CRATE's sparse codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from atlas_builder.models.crate import CODES, Crate
from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import PLAIN, Rows
from atlas_builder.units.base import ActivationHook, chosen_layers, clamped


class CrateUnits:
    """A unit is a coordinate of A₂, the result of two steps of ISTA on a layer's input (arXiv 2410.16443).

    Its column of the dictionary D is both its input and its output weights: a layer's output
    is D A₂ and nothing else. An embedding is the dictionary's input ⊙ the column; its sum is
    the start of the first step, so it shows what the unit responds to as far as one step
    goes. Raises `ConfigurationError` for a layer that does not exist.
    """

    kind = "crate"
    activation = "ista"

    def __init__(self, model: Crate, layers: Literal["all"] | Sequence[int] = "all") -> None:
        self._model = model
        self.layers = chosen_layers(layers, model.shape.layers)

    def count(self, layer: int) -> int:
        """Number of columns of the dictionary."""
        return CODES * self._model.shape.width

    def has_negative(self, layer: int) -> bool:
        """Codes are never below zero."""
        return False

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on (batch, context) tokens up to the last layer of the units, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]

        def see(layer: int, inputs: Tensor, code: Tensor) -> None:
            if layer in layers:
                visit(layer, inputs, code)

        with torch.inference_mode():
            self._model.stream(tokens, see, layers[-1], rows=rows)

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on (batch, context) tokens, visiting each layer: (batch, context, vocabulary)."""

        def see(layer: int, inputs: Tensor, code: Tensor) -> None:
            if layer in self.layers:
                visit(layer, inputs, code)

        with torch.inference_mode():
            return self._model.forward(tokens, see=see)

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens, (rows, vocabulary), coordinates (rows,) clamped to values (rows,)."""

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

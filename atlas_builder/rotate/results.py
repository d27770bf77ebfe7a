"""The file of the rotate stage, opened without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import safe_open

ROTATION_FILE = "rotation.safetensors"
FACTS = "facts"
"""The only entry of the file's metadata, JSON: the order of several is not fixed."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RotatedLayer:
    """The directions of one layer, k of width d, the most important first (principal ones by variance)."""

    layer: int
    file: Path

    @cached_property
    def mean(self) -> Array:
        """Of what enters the MLP, μ: (d,)."""
        return self._array("mean")

    @cached_property
    def covariance(self) -> Array:
        """Of what enters the MLP, G: (d, d)."""
        return self._array("covariance")

    @cached_property
    def encode(self) -> Array:
        """A direction a column: coordinates are (h - μ) @ encode: (d, k)."""
        return self._array("encode")

    @cached_property
    def decode(self) -> Array:
        """decode @ encode = 1, and h ≈ μ + coordinates @ decode: (k, d)."""
        return self._array("decode")

    @cached_property
    def variance(self) -> Array:
        """Of each coordinate: (k,)."""
        return self._array("variance")

    @cached_property
    def importance(self) -> Array:
        """Variance of a coordinate times the mean square of the derivative by it of what counts: (k,).

        The logits count, or for the local basis the directions of the next layer. For an interaction basis it is λ.
        """
        return self._array("importance")

    @property
    def share(self) -> Array:
        """Of the importance of all directions of the layer: (k,)."""
        return self.importance / (float(self.importance.sum()) or 1.0)

    @cached_property
    def stability(self) -> Array:
        """|correlation| of the two directions, of either half of the text, that are most like each: (k,)."""
        return self._array("stability")

    @cached_property
    def likeness(self) -> Array:
        """The largest |correlation| of either of these two directions with each other direction: (k, k), 0 with itself.

        Where stability is low, a direction is one of a plane with those that are large here.
        """
        return self._array("likeness")

    @cached_property
    def effect(self) -> Array:
        """Mean effect of a step of one coordinate through the MLP, on what the MLP adds to the stream: (k, d_model)."""
        return self._array("effect")

    @cached_property
    def shares(self) -> Array:
        """Shares of the variance of what neurons read that come through each direction: (parts, units, k).

        Parts are the gate and the linear part of a gated neuron; NaN where nothing that is read varies.
        """
        return self._array("shares")

    def _array(self, name: str) -> Array:
        with safe_open(self.file, framework="numpy") as opened:
            array: Array = opened.get_tensor(f"L{self.layer}.{name}")
        return array


@dataclass(frozen=True)
class Rotation:
    """The results of the stage."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """`basis`, `tokens`, `contexts`, `layers` and, by layer, `degeneracy`."""
        with safe_open(self.folder / ROTATION_FILE, framework="numpy") as opened:
            facts: dict[str, Any] = orjson.loads(opened.metadata()[FACTS])
        return facts

    @property
    def layers(self) -> list[int]:
        """The layers, in rising order."""
        return list(self.facts["layers"])

    @property
    def degeneracy(self) -> list[dict[str, Any]]:
        """What `rotate.degeneracy` says of each layer, with its number as `layer`."""
        return [{"layer": layer, **self.facts["degeneracy"][str(layer)]} for layer in self.layers]

    def layer(self, number: int) -> RotatedLayer:
        """The directions of one layer."""
        return RotatedLayer(number, self.folder / ROTATION_FILE)

    def __reduce__(self) -> tuple[Callable[..., Rotation], tuple[Path]]:
        """Workers get the path, not the arrays that happen to be loaded."""
        return Rotation, (self.folder,)

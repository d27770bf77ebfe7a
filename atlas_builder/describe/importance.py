"""What each token before a key token does for the activation there, by masking it (Foote 2024).

The importance of token k for an example with activation a at its key token is
I(k) = 1 − a(k masked) / a: 1 where without it nothing is left, 0 where it does nothing,
below 0 where it holds the unit back. Tokens up to the key token count, itself included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.shown import Shown

Wanted = np.dtype([("layer", "<i4"), ("unit", "<i4"), ("context", "<i4"), ("position", "<i4")])
"""An example to explain: a unit's, and its key token's place in a context."""


def wanted(
    collected: Collected, clustered: Path, config: Configuration
) -> Iterator[tuple[int, NDArray[np.int64], np.ndarray]]:
    """For each layer the examples that are to be explained, by their place in the layer and as `Wanted`."""
    for layer in collected.layers:
        units = Clustered(layer.layer, clustered)
        if config.describe.importance == "central":
            places = np.unique(units.behaviours["central"])
        else:
            shown = Shown(layer, units, collected.contexts)
            places = np.array(
                [
                    layer.starts[unit] + place
                    for unit in range(layer.units)
                    for place in sorted(shown.of(unit, config.site))
                ],
                dtype=np.int64,
            )
        found = np.empty(len(places), Wanted)
        found["layer"] = layer.layer
        for name in ("unit", "context", "position"):
            found[name] = layer.examples[name][places]
        yield layer.layer, places, found


def file_of(folder: Path, layer: int) -> Path:
    """Where the importance of a layer's examples is in the folder of the describe stage."""
    return folder / f"L{layer}.importance.npz"


def save(path: Path, examples: NDArray[np.int64], importance: NDArray[np.float32]) -> None:
    """Write what was found of some of a layer's examples, (examples,), for `Importance` to read."""
    order = np.argsort(examples)
    np.savez(path, example=examples[order], importance=importance[order])


@dataclass(frozen=True)
class Importance:
    """One layer of what the describe stage found by masking."""

    path: Path

    @cached_property
    def all(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The examples that were asked for, rising, and I(k) of each up to its key token: (examples, tokens)."""
        if not self.path.exists():
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        with np.load(self.path, allow_pickle=False) as arrays:
            return arrays["example"], arrays["importance"]

    def of(self, example: int) -> NDArray[np.float32] | None:
        """I(k) of a layer's example up to its key token, which is the last; None where nobody asked."""
        examples, values = self.all
        place = int(np.searchsorted(examples, example))
        return values[place] if place < len(examples) and examples[place] == example else None

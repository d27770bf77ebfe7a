"""What a record says of directions: of a direction itself, and of those that a neuron reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from atlas_builder.describe.results import Interactions
from atlas_builder.records.kinds import DIRECTIONS_FILE
from atlas_builder.records.schema import Record
from atlas_builder.rotate.results import RotatedLayer, Rotation
from atlas_builder.rounding import significant

LISTED = 8
"""Most neurons that are listed as readers of a direction, and most directions as read by a neuron."""
STABLE = 0.9
"""Stability below which a direction is named as one of a plane."""
IN_A_PLANE = 0.3
"""Correlation from which on another direction is named as of the plane, of three at most."""
_OTHERS = 3
_LEAST_SHARE = 0.005

PARTS = (("input",), ("gate", "linear"))
"""Names of what a plain and a gated neuron read."""


_PUBLISHED = ("mean", "encode", "decode", "effect")


def published_edges(interactions: Interactions, layer: int, direction: int) -> Record:
    """The strongest edges of a direction, and its module."""
    sides = interactions.strongest(layer, direction)
    edges = {
        name: [[edge.layer, edge.direction, significant(edge.strength)] for edge in side]
        for name, side in zip(("in", "out"), sides, strict=True)
    }
    return {"edges": edges, "module": interactions.module_of(layer, direction)}


def write_directions(rotation: Rotation, folder: Path) -> None:
    """Write the arrays of all directions to a site, in float32, so that numbers can be recomputed."""
    arrays = {
        f"L{layer}.{name}": np.ascontiguousarray(getattr(rotation.layer(layer), name), np.float32)
        for layer in rotation.layers
        for name in _PUBLISHED
    }
    save_file(arrays, folder / DIRECTIONS_FILE)


class LayerDirections:
    """Makes the parts of the records of one layer that are about directions."""

    def __init__(self, rotated: RotatedLayer, interactions: Callable[[int], Record] | None = None) -> None:
        self._rotated, self._interactions = rotated, interactions

    def direction(self, number: int) -> Record:
        """What a direction is: how important, how stable, and which neurons read it."""
        return {
            "importance": significant(float(self._rotated.importance[number])),
            "share": significant(float(self._shares[number])),
            "rank": int(self._ranks[number]),
            "stability": significant(float(self._rotated.stability[number])),
            "plane": self._plane(number),
            "readers": [{"unit": unit, "part": part, "share": share} for unit, part, share in self._readers(number)],
            **(self._interactions(number) if self._interactions else {"edges": None, "module": None}),
        }

    def reads(self, unit: int) -> list[Record]:
        """Which directions each part of a neuron reads, by the share of its variance, and the rest of it."""
        return [
            self._read(name, self._rotated.shares[part, unit])
            for part, name in enumerate(PARTS[len(self._rotated.shares) - 1])
        ]

    def _read(self, name: str, shares: NDArray[np.float64]) -> Record:
        if np.isnan(shares).any():
            return {"part": name, "directions": [], "rest": None}
        order = np.argsort(-shares, kind="stable")[:LISTED]
        places = [int(place) for place in order if shares[place] >= _LEAST_SHARE]
        rest = max(0.0, 1 - float(shares[places].sum()))
        listed = [[place, significant(float(shares[place]))] for place in places]
        return {"part": name, "directions": listed, "rest": significant(rest)}

    def _readers(self, number: int) -> list[tuple[int, str, Any]]:
        shares = np.nan_to_num(self._rotated.shares[:, :, number])  # (parts, units)
        names, units = PARTS[len(shares) - 1], shares.shape[1]
        flat = shares.ravel()
        order = np.argsort(-flat, kind="stable")[:LISTED]
        return [
            (int(place % units), names[place // units], significant(float(flat[place])))
            for place in order
            if flat[place] >= _LEAST_SHARE
        ]

    def _plane(self, number: int) -> list[list[Any]]:
        if self._rotated.stability[number] >= STABLE:
            return []
        likeness = self._rotated.likeness[number]
        order = np.argsort(-likeness, kind="stable")[:_OTHERS]
        return [[int(other), significant(float(likeness[other]))] for other in order if likeness[other] >= IN_A_PLANE]

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        return self._rotated.share

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """The rank of each direction by importance, from 1."""
        ranks = np.empty(len(self._rotated.importance), np.int64)
        ranks[np.argsort(-self._rotated.importance, kind="stable")] = np.arange(1, len(ranks) + 1)
        return ranks

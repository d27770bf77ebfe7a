"""A layer of the second run: the choice of examples of its units, and their behaviours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.rerun.passes import Reader, Text, UnitTrace
from atlas_builder.verify.background import Unrelated, embedded, pairwise_cosines
from atlas_builder.verify.clusterings import clusters_of
from atlas_builder.verify.selection import ClaimedSide, claimed_sides
from atlas_builder.verify.shown import Key, token_at
from atlas_builder.verify.tokens import described_by
from atlas_builder.verify.unit import keys_of
from atlas_builder.verify.wording import BehaviourWords

MOST_UNITS = 512
"""Units of a layer whose words are known, for labels."""
_MOST_EXTREMES = 2**23  # kept of a layer


def units_read(contexts: int, units: int, drawn: Sequence[int], seed: int) -> list[int]:
    """The units of a layer that are read: those drawn, and others at random up to all, or as many as memory allows."""
    most = max(min(MOST_UNITS, _MOST_EXTREMES // max(contexts, 1)), len(drawn))
    others = [unit for unit in range(units) if unit not in set(drawn)]
    chance = np.random.default_rng([seed, units])
    taken = chance.permutation(len(others))[: most - len(drawn)].tolist()
    return sorted([*drawn, *(others[place] for place in taken)])


@dataclass
class ReadLayer:
    """What the second run found of a layer."""

    number: int
    units: list[int]
    trace: UnitTrace
    sides: dict[int, list[list[ClaimedSide]]]
    """Of each unit by side, as `claimed_sides` has them."""
    background: list[Key]
    """The tokens of the layer's background."""
    inputs: Mapping[Key, NDArray[np.float32]] = field(default_factory=dict)
    """At these and at the key tokens of examples: (width,)."""

    def inputs_of(self, keys: Sequence[Key], width: int) -> NDArray[np.float32]:
        """At some key tokens: (tokens, width)."""
        return np.array([self.inputs[key] for key in keys], np.float32).reshape(len(keys), width)

    def unrelated(self, text: Text, read: NDArray[np.float32]) -> Unrelated:
        """The background as a unit reads it, by its weights: (parts, width)."""
        ids = np.array([token_at(text, key) for key in self.background], np.int64)
        return Unrelated(self.inputs_of(self.background, read.shape[1]), ids, read)

    def described(
        self, reader: Reader, text: Text, config: Configuration
    ) -> dict[tuple[int, int], list[BehaviourWords]]:
        """The words of all behaviours of its units, by layer and unit."""
        found = {}
        for unit in self.units:
            read = reader.weights.read(self.number, [unit])[:, 0]
            found[self.number, unit] = [
                described_by(text, reader.token_texts, config.examples.window, members)
                for side, *_ in self.sides[unit]
                for members in self._behaviours(side, read, text, config)
            ]
        return found

    def _behaviours(
        self, side: ClaimedSide, read: NDArray[np.float32], text: Text, config: Configuration
    ) -> list[list[Key]]:
        keys = list(keys_of(side))
        inputs = self.inputs_of(keys, read.shape[1])
        dimensions = np.inf
        if config.clusters.method in ("linkage", "hdbscan"):
            unrelated = self.unrelated(text, read)
            distances, dimensions = 1 - unrelated.cosines(inputs), unrelated.dimensions
        else:
            distances = np.clip(1 - pairwise_cosines(embedded(inputs, read)), 0, 2)
        clusters = clusters_of(distances, dimensions, config.clusters)
        return [[keys[example] for example in cluster] for cluster in clusters]


def choose_examples(
    trace: UnitTrace, layer: int, units: Sequence[int], has_negative: bool, config: Configuration
) -> dict[int, list[list[ClaimedSide]]]:
    """The sides of all units read, by unit."""
    return {
        unit: list(claimed_sides(trace, place, layer, unit, has_negative, config)) for place, unit in enumerate(units)
    }


def keys_wanted(sides: Mapping[int, Iterable[Iterable[ClaimedSide]]]) -> list[Key]:
    """The key tokens of all examples, each once, in the order of the text."""
    return sorted(
        {key for of_unit in sides.values() for of_side in of_unit for side in of_side for key in keys_of(side)}
    )

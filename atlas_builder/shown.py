"""Which of a unit's examples are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import Site
from atlas_builder.contexts import Contexts

_NOISE_SHOWN = 2
_ALIKE = 6  # tokens up to the key token by which two examples count as the same text


@dataclass(frozen=True)
class Shown:
    """Chooses among the examples of a layer's units."""

    layer: CollectedLayer
    clustered: Clustered
    contexts: Contexts
    site: Site

    def of(self, unit: int) -> list[int]:
        """Places among the unit's examples: each behaviour's, its central one first, then some that fit none."""
        layer, clustered = self.layer, self.clustered
        examples = layer.of(unit)
        labels = clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
        behaviours = clustered.behaviours[clustered.starts[unit] : clustered.starts[unit + 1]]
        most = min(self.site.examples_per_behaviour, max(2, self.site.examples_per_unit // max(1, len(behaviours))))
        chosen: list[int] = []
        for behaviour in behaviours:
            members = np.flatnonzero(labels == behaviour["id"])
            central = int(behaviour["central"] - layer.starts[unit])
            chosen += self._spread(examples, members, most, central)
        for sign in (1, -1):
            noise = np.flatnonzero((labels < 0) & (examples["sign"] == sign))
            chosen += self._spread(examples, noise, _NOISE_SHOWN)
        return chosen

    def _spread(
        self, examples: np.ndarray, members: NDArray[np.int64], most: int, first: int | None = None
    ) -> list[int]:
        """At most `most` members, evenly from the highest to the lowest, no text twice.

        `first` leads them. Members are in the order of falling activation.
        """
        kept, seen = ([], set()) if first is None else ([first], {self._lead(examples[first])})
        for member in members:
            lead = self._lead(examples[member])
            if lead not in seen:
                seen.add(lead)
                kept.append(int(member))
        if len(kept) <= most:
            return kept
        head = 0 if first is None else 1
        picks = np.linspace(head, len(kept) - 1, max(0, most - head)).round().astype(int)
        return kept[:head] + [kept[pick] for pick in picks]

    def _lead(self, example: Any) -> bytes:
        """The tokens up to the key token, as a mark of the text."""
        start = self.contexts.starts[example["context"]]
        end = start + example["position"] + 1
        return bytes(self.contexts.tokens[max(start, end - _ALIKE) : end].tobytes())

"""Which of a unit's examples are published in its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import SiteSettings
from atlas_builder.corpus.contexts import Contexts

SHOWN_BY = ("examples_per_behaviour", "examples_per_unit", "examples_at_least", "noise_shown")
"""The settings of `SiteSettings` that decide it."""
_ALIKE = 6  # tokens up to the key token by which two examples count as the same text


@dataclass(frozen=True)
class Shown:
    """Chooses among the examples of a layer's units."""

    layer: CollectedLayer
    clustered: Clustered
    contexts: Contexts

    def of(self, unit: int, site: SiteSettings) -> list[int]:
        """Places among the unit's examples: those of each behaviour, the central one first, then unclustered ones."""
        first, last = self.layer.starts[unit : unit + 2].tolist()
        begin, end = self.clustered.starts[unit : unit + 2].tolist()
        main = self.main(unit)
        rare = len(main) - sum(main)
        share = (site.examples_per_unit - rare) // max(1, sum(main))
        limit = min(site.examples_per_behaviour, max(site.examples_at_least, share))
        leads: list[bytes] = self._leads[first:last].tolist()
        members: list[list[int]] = [[] for _ in main]
        noise: dict[int, list[int]] = {1: [], -1: []}
        signs = self._signs[first:last].tolist()
        for place, (label, sign) in enumerate(zip(self.clustered.labels[first:last].tolist(), signs, strict=True)):
            (members[label] if label >= 0 else noise[sign]).append(place)
        chosen: list[int] = []
        central: list[int] = (self.clustered.behaviours["central"][begin:end] - first).tolist()
        for places, lead, many in zip(members, central, main, strict=True):
            chosen += _spread(leads, places, limit if many else 1, lead)
        for places in noise.values():
            chosen += _spread(leads, places, site.noise_shown)
        return chosen

    def main(self, unit: int) -> list[bool]:
        """Whether each of a unit's behaviours is a main one; of a rare one little is shown."""
        begin, end = self.clustered.starts[unit : unit + 2]
        main: list[bool] = self.clustered.is_main[begin:end].tolist()
        return main

    @cached_property
    def _signs(self) -> NDArray[np.int32]:
        return np.ascontiguousarray(self.layer.examples["sign"])

    @cached_property
    def _leads(self) -> np.ndarray:
        """The last tokens up to the key token of each of the layer's examples, as bytes to compare: (examples,)."""
        examples = self.layer.examples
        starts = self.contexts.starts[examples["context"]]
        key = starts + examples["position"]
        places = key[:, None] + np.arange(1 - _ALIKE, 1)  # (examples, tokens)
        before = places < starts[:, None]
        tokens = np.where(before, np.int32(-1), self._tokens[np.where(before, 0, places)])
        return np.ascontiguousarray(tokens, dtype="<i4").view(f"V{4 * _ALIKE}").ravel()

    @cached_property
    def _tokens(self) -> NDArray[np.int32]:
        return np.asarray(self.contexts.tokens)


def _spread(leads: Sequence[bytes], members: Sequence[int], limit: int, first: int | None = None) -> list[int]:
    """At most `limit` members, evenly from the highest to the lowest, no text twice.

    `first` comes first. Members are in the order of falling activation.
    """
    kept, seen = ([], set()) if first is None else ([first], {leads[first]})
    for member in members:
        if leads[member] not in seen:
            seen.add(leads[member])
            kept.append(member)
    if len(kept) <= limit:
        return kept
    head = 0 if first is None else 1
    picked, steps = max(0, limit - head), max(1, limit - head - 1)
    return kept[:head] + [kept[round(head + step * (len(kept) - 1 - head) / steps)] for step in range(picked)]

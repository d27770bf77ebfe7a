"""Which of a unit's examples are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import Site
from atlas_builder.contexts import Contexts

SHOWN_BY = ("examples_per_behaviour", "examples_per_unit", "noise_shown")
"""The settings of `Site` that decide it."""
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
        leads = self._leads(examples)
        chosen: list[int] = []
        for number, central in zip(behaviours["id"].tolist(), behaviours["central"].tolist(), strict=True):
            members = np.flatnonzero(labels == number).tolist()
            chosen += _spread(leads, members, most, central - int(layer.starts[unit]))
        for sign in (1, -1):
            noise = np.flatnonzero((labels < 0) & (examples["sign"] == sign)).tolist()
            chosen += _spread(leads, noise, self.site.noise_shown)
        return chosen

    def _leads(self, examples: np.ndarray) -> list[bytes]:
        """The tokens up to each key token, as a mark of the text: (examples,)."""
        starts = self.contexts.starts[examples["context"]]
        key = starts + examples["position"]
        places = key[:, None] + np.arange(1 - _ALIKE, 1)  # (examples, tokens)
        before = places < starts[:, None]
        tokens = np.where(before, np.int32(-1), self._tokens[np.where(before, 0, places)])
        marks: list[bytes] = np.ascontiguousarray(tokens, dtype="<i4").view(f"V{4 * _ALIKE}").ravel().tolist()
        return marks

    @cached_property
    def _tokens(self) -> NDArray[np.int32]:
        return np.asarray(self.contexts.tokens)


def _spread(leads: Sequence[bytes], members: Sequence[int], most: int, first: int | None = None) -> list[int]:
    """At most `most` members, evenly from the highest to the lowest, no text twice.

    `first` leads them. Members are in the order of falling activation.
    """
    kept, seen = ([], set()) if first is None else ([first], {leads[first]})
    for member in members:
        if leads[member] not in seen:
            seen.add(leads[member])
            kept.append(member)
    if len(kept) <= most:
        return kept
    head = 0 if first is None else 1
    picks = np.linspace(head, len(kept) - 1, max(0, most - head)).round().astype(int)
    return kept[:head] + [kept[pick] for pick in picks]

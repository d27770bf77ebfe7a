"""A unit's examples chosen again: the contexts that its configuration's policy selects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.rerun.passes import UnitTrace
from atlas_builder.verify.chances import chances_of_contexts
from atlas_builder.verify.precision import tolerance

_SWAPPED = 4  # the number of pairs to try
_HIGHEST = 10  # contexts of which the robust maximum is the mean


@dataclass(frozen=True)
class ClaimedSide:
    """The positive or negative activations of a unit, the latter negated, in each context."""

    sign: int
    keys: NDArray[np.float64]
    """Highest activation of each context: (contexts,)."""
    at: NDArray[np.int32]
    """The position of the first token that reaches it: (contexts,)."""
    chosen: NDArray[np.int64]
    """The contexts of the unit's examples."""
    random: bool
    """Whether these are all contexts that qualify, or a random sample of them."""
    threshold: float
    """The activation from which a context qualifies; 0 where every active one does."""
    unsure: bool
    """Whether so many contexts are near the border that another run may choose yet others."""

    @property
    def order(self) -> NDArray[np.int64]:
        """The chosen contexts, highest activation first, of equals the first in the text."""
        return self.chosen[np.lexsort([self.chosen, -self.keys[self.chosen]])]


def claimed_sides(
    trace: UnitTrace, place: int, layer: int, unit: int, has_negative: bool, config: Configuration
) -> Iterator[list[ClaimedSide]]:
    """Choose a unit's examples again; `place` is its column in the trace.

    Of each side what is most likely, and what other runs may choose where activations are at the border.
    """
    for negative, (high, at, sign) in enumerate(((trace.high, trace.high_at, 1), (trace.low, trace.low_at, -1))):
        if negative <= int(has_negative):
            keys = sign * high[:, place].astype(np.float64)
            yield _variants(sign, keys, at[:, place], layer, unit, config)


def _variants(
    sign: int, keys: NDArray[np.float64], at: NDArray[np.int32], layer: int, unit: int, config: Configuration
) -> list[ClaimedSide]:
    near = tolerance("activation", config.model.dtype) * float(keys.max(initial=0))
    found: list[ClaimedSide] = []
    doubtful = 0
    for shift in (0.0, near, -near):
        chosen, random, threshold, borders = _choose(keys, shift, layer, unit, sign < 0, config)
        if not found:
            doubtful = sum(int((np.abs(keys - border) <= near).sum()) - exact for border, exact in borders)
        if all(set(chosen.tolist()) != set(other.chosen.tolist()) or random != other.random for other in found):
            found.append(ClaimedSide(sign, keys, at, chosen, random, threshold, doubtful > 1))
        if not doubtful:
            break
    return found


def _choose(
    keys: NDArray[np.float64], shift: float, layer: int, unit: int, negative: bool, config: Configuration
) -> tuple[NDArray[np.int64], bool, float, list[tuple[float, int]]]:
    """The contexts, whether they are random, the threshold, and borders with how many contexts define each.

    Borders are moved by `shift`.
    """
    rule, top = config.examples, float(keys.max(initial=0))
    active = np.flatnonzero(keys > 0)
    order = active[np.lexsort([active, -keys[active]])]
    if rule.policy == "top":
        chosen = order[: rule.per_unit]
        border = [(float(keys[chosen[-1]]), 1)] if len(chosen) < len(active) else []
        return chosen, len(chosen) == len(active), 0.0, border
    threshold, borders = rule.threshold * top, []
    if rule.policy == "robust":
        robust = sum(keys[order[:_HIGHEST]].tolist()) / _HIGHEST
        threshold, weakest, least = rule.share * robust, rule.weakest * robust, min(rule.least, rule.per_unit)
        qualify = int((keys[active] >= threshold + shift).sum())
        borders = [(threshold, 0)] if threshold else []
        if qualify < least:
            chosen = order[keys[order] >= weakest + shift][:least]
            last = [(float(keys[chosen[-1]]), 1)] if len(chosen) == least < len(order) else []
            weak = [(weakest, 0)] if weakest and len(chosen) < least else []
            return np.sort(chosen), len(chosen) <= qualify, threshold, borders + last + weak
    elif rule.threshold < 1 and top:
        borders = [(threshold, 0)]
    chosen = active[keys[active] >= threshold + (shift if borders else 0.0)]
    chances = chances_of_contexts(rule.seed, layer, unit, negative, chosen)
    return np.sort(chosen[np.argsort(chances)][: rule.per_unit]), True, threshold, borders


def orders(order: NDArray[np.intp], keys: NDArray[np.float64], dtype: str = "float32") -> Iterator[NDArray[np.intp]]:
    """The order of examples, highest first, and variants with neighbours swapped that differ by rounding only.

    The samples for stability are drawn by place in this order.
    """
    gaps = -np.diff(keys[order])
    nearest = np.argsort(gaps, kind="stable")[:_SWAPPED]
    close = np.sort(nearest[gaps[nearest] <= tolerance("order", dtype) * keys.max(initial=0)])
    for swaps in product((False, True), repeat=len(close)):
        swapped = order.copy()
        for place in close[list(swaps)]:
            swapped[[place, place + 1]] = swapped[[place + 1, place]]
        yield swapped

"""The tokens that are drawn from a unit's range to name associations, from their definition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.chances import chances_of_own, chances_of_tokens
from atlas_builder.verify.histograms import LOWEST, edges_of_bands
from atlas_builder.verify.own import own_edge
from atlas_builder.verify.unit import UnitCase

_Values = NDArray[np.float64]


class DrawnToken(NamedTuple):
    """A token drawn from a part of the range: below, middle or top."""

    part: str
    side: int
    """1 where an output neuron's token comes next, else 0."""
    context: int
    position: int
    value: float


def drawn_tokens(case: UnitCase, places: NDArray[np.int64], values: _Values) -> list[DrawnToken]:
    """Those of activations `values` at all `places`, contexts and positions: (tokens,) and (tokens, 2)."""
    seed = case.config.examples.seed
    of_others = chances_of_tokens(seed, case.layer, case.unit, *places.T)
    if case.config.units.kind != "logits":
        edges = edges_of_bands(np.sort(values), case.config.examples.bands)
        return _from_bands(case, places, values, edges, 0, np.argsort(of_others), values >= LOWEST)
    following = case.text.next_tokens
    is_own = following == int(case.record["token"]["id"])
    # Edges are activations themselves: another token as active may in another run be a little less so.
    edges = _own_edges(case.counted.astype(np.float64), float(values.max()), is_own, case.config.examples.own_bands)
    of_own = chances_of_own(seed, case.layer, *places.T)
    return [
        *_from_bands(case, places, values, edges, 0, np.argsort(of_others), ~is_own & (following >= 0)),
        *_from_bands(case, places, values, edges, 1, np.argsort(of_own), is_own),
    ]


def draws_differ(case: UnitCase, places: NDArray[np.int64], several: Sequence[_Values]) -> bool:
    """Whether other tokens are drawn, or into other parts, with activations that are nearly the same."""
    drawn = [{token[:-1] for token in drawn_tokens(case, places, values)} for values in several]
    return any(one != drawn[0] for one in drawn)


def _own_edges(
    values: _Values, maximum: float, is_own: NDArray[np.bool_], quantiles: list[float]
) -> list[float] | None:
    own = np.sort(values[is_own])
    return [-np.inf, *(own_edge(own, quantile, maximum) for quantile in quantiles)] if len(own) else None


def _from_bands(
    case: UnitCase,
    places: NDArray[np.int64],
    values: _Values,
    edges: list[float] | None,
    side: int,
    order: NDArray[np.int64],
    eligible: NDArray[np.bool_],
) -> list[DrawnToken]:
    """The first in `order` of those `eligible` from each band; of own tokens, from none below."""
    order, most = order[eligible[order]], case.config.examples.association_draws
    drawn = []
    for band, (low, high) in enumerate(pairwise(edges or ())):
        is_last = edges is not None and band == len(edges) - 2
        part = "top" if is_last else "middle" if band else "below"
        if side and part == "below":
            continue
        # Own tokens are all known; of others, the first at or above a band's lower edge.
        above = order[values[order] >= low][: None if side else most]
        inside = above[(values[above] <= high) if is_last else (values[above] < high)][:most]
        drawn += [
            DrawnToken(part, side, int(context), int(position), float(value))
            for (context, position), value in zip(places[inside].tolist(), values[inside].tolist(), strict=True)
        ]
    return drawn

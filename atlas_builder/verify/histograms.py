"""Histograms of a unit's activations and the edges of its bands, from all activations put in order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.report import VerificationReport, agrees

_OCTAVES = range(-16, 16)  # powers of two that are divided
_PARTS = 16  # of each
_BARS = 32

Values = NDArray[np.float64]

_MAGNITUDES = [2.0**power * (1 + part / _PARTS) for power in _OCTAVES for part in range(_PARTS)] + [2.0**16]
EDGES = [-edge for edge in reversed(_MAGNITUDES)] + _MAGNITUDES
"""Of all bins; an activation on an edge is in the bin farther from zero."""
LOWEST = _MAGNITUDES[0]
"""Smaller activations are in the middle bin, and in no band."""


def counts_below(ordered: Values) -> NDArray[np.int64]:
    """How many activations, given in rising order, are below each edge; the outermost bins have no outer edge."""
    below = [int(np.searchsorted(ordered, edge, "right" if edge < 0 else "left")) for edge in EDGES]
    return np.array([0, *below[1:-1], len(ordered)])


def check_histogram(
    report: VerificationReport, name: str, claimed: dict[str, Any], ordered: Values, slack: Values
) -> None:
    """Compare a histogram; each of the activations, in rising order, may differ by its `slack` in another run."""
    low, exact, high = (counts_below(np.sort(ordered + way * slack)) for way in (1, 0, -1))
    report.count("histograms")
    starts = sorted({int(np.flatnonzero(np.diff(counts))[0]) for counts in (low, exact, high)})
    ends = sorted({int(np.flatnonzero(np.diff(counts))[-1]) + 1 for counts in (low, exact, high)})
    for start in starts:
        for end in ends:
            cuts = _cuts(start, end)
            if len(cuts) == len(claimed["edges"]) and all(
                agrees(edge, EDGES[cut]) for edge, cut in zip(claimed["edges"], cuts, strict=True)
            ):
                break
        else:
            continue
        break
    else:
        report.wrong(f"{name}: the edges of the histogram are not those of the unit's range")
        return
    if len(claimed["counts"]) != len(cuts) - 1 or sum(claimed["counts"]) != len(ordered):
        report.wrong(f"{name}: the histogram does not count each of the {len(ordered)} tokens once")
        return
    running = np.cumsum([0, *claimed["counts"]])
    for (_, cut), (before, below) in zip(pairwise(cuts), pairwise(running.tolist()), strict=True):
        if cut != cuts[-1] and not low[cut] <= below <= high[cut]:
            report.wrong(
                f"{name}: the histogram has {below - before} tokens below {EDGES[cut]:.4g} in a bar that should have "
                f"{exact[cut] - before}"
            )
            return


def _cuts(start: int, end: int) -> list[int]:
    """Of bins `start` to `end` - 1, the edges of bars, each at least one part in `_BARS` of the range."""
    least = (EDGES[end] - EDGES[start]) / _BARS * (1 - 1e-9)
    cuts = [start]
    while cuts[-1] < end:
        cuts.append(bisect_left(EDGES, EDGES[cuts[-1]] + least, cuts[-1] + 1, end))
    return cuts


def edges_of_bands(ordered: Values, quantiles: Sequence[float]) -> list[float] | None:
    """The activations at which bands begin and end; None without a positive one. Activations are in rising order."""
    below = counts_below(ordered)
    first = EDGES.index(LOWEST)
    total = int(below[-1] - below[first])
    if not total:
        return None
    edges = []
    for quantile in quantiles:
        if quantile <= 0:
            edges.append(0.0)
            continue
        edge = float(ordered[-1])
        for lower, upper in pairwise(range(first, len(EDGES)) if quantile < 1 else ()):
            if below[upper] - below[first] >= quantile * total:
                edge = min(edge, EDGES[lower])
                break
        edges.append(edge)
    return edges

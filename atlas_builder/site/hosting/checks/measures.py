"""The measures of a unit's behaviours, computed again from their sizes, coverages and stabilities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster.diversity import (
    STANDARD_COVERAGE,
    chao1,
    effective_number,
    frequency_counts,
    sample_coverage,
)
from atlas_builder.cluster.stability import effective_interval
from atlas_builder.records.schema import Record
from atlas_builder.site.headline import measures_by_sign

CLOSE = 1e-3
"""A relative difference that rounding to four digits explains."""
_MAIN_SHARE = 0.05


def measure_problems(record: Record) -> Iterator[str]:
    """The measures of each side agree with the sizes, coverages and stabilities of its behaviours."""
    for sign, side in measures_by_sign(record).items():
        own = [behaviour for behaviour in record["behaviours"] if behaviour["sign"] == sign]
        examples, sizes = side["examples"], np.array([behaviour["size"] for behaviour in own], dtype=np.float64)
        clustered = int(sizes.sum())
        if side["behaviours"] != len(own):
            yield f"it counts {side['behaviours']} behaviours, but lists {len(own)}"
        if clustered > examples or not near(side["noise_fraction"], 1 - clustered / examples if examples else 0):
            yield "the sizes of its behaviours and its unclustered examples do not add up to its examples"
        if side["main_behaviours"] != int((sizes >= _MAIN_SHARE * examples).sum()):
            yield "its number of main behaviours is not that of the sizes of its behaviours"
        shares = sizes / clustered if clustered else sizes
        if not near(side["effective_behaviours"], math.exp(-np.sum(shares * np.log(shares))) if clustered else 0):
            yield "its effective number is not that of the sizes of its behaviours"
        if sum(behaviour["coverage"] for behaviour in own) > 1 + CLOSE:
            yield "its behaviours cover more than there is"
        known = [(behaviour["stability"], behaviour["size"]) for behaviour in own if behaviour["stability"] is not None]
        total = sum(size for _, size in known)
        if known and not near(side["stability"], sum(stability * size for stability, size in known) / total):
            yield "its stability is not the mean of its behaviours'"
        yield from _of_sizes(side, sizes)
        yield from _ordered(side)


def _of_sizes(side: Mapping[str, Any], sizes: NDArray[np.float64]) -> Iterator[str]:
    """Estimates that follow from the sizes of a side's behaviours and the number of its examples."""
    examples, sizes_ = side["examples"], sizes.astype(np.int64)
    ends = dict(zip(("effective_low", "effective_high"), effective_interval(sizes_), strict=True))
    if side["sample_coverage"] is not None and sizes_.sum() <= examples:
        labels = np.repeat(np.arange(-1, len(sizes_), dtype=np.int32), [examples - sizes_.sum(), *sizes_])
        counts = frequency_counts(labels)
        ends["sample_coverage"] = sample_coverage(counts)
        ends["standard_behaviours"] = effective_number(counts, STANDARD_COVERAGE)
        ends |= dict(zip(("richness", "richness_low", "richness_high"), chao1(counts), strict=True))
    for name, expected in ends.items():
        if side[name] is not None if math.isnan(expected) else not near(side[name], expected):
            yield f"its {name} is not that of the sizes of its behaviours"


def near(value: float | None, expected: float) -> bool:
    """Whether a published number is another, to four digits."""
    return value is not None and abs(value - expected) <= CLOSE * abs(expected) + 1e-9


_RISING = (
    ("main_low", "main_high"),
    ("effective_low", "effective_high"),
    ("standard_low", "standard_high"),
    ("richness_low", "richness", "richness_high"),
    ("mean_distance", "max_distance"),
    ("intra_distance", "max_distance"),
    ("inter_distance", "max_distance"),
)
"""Measures none of which is above the next."""


def _ordered(side: Mapping[str, Any]) -> Iterator[str]:
    for names in _RISING:
        values = [side[name] for name in names if side[name] is not None]
        if any(one > other + CLOSE * abs(other) for one, other in itertools.pairwise(values)):
            yield f"its {' is above its '.join(names)}"

"""A host's size limit, and how much of each unit is shown so that an atlas fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import or_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import SiteSettings
from atlas_builder.progress import Progress

SIZE_BUDGET = {"github-pages": 1_000_000_000}
"""Bytes that a host allows for a site.

"Published GitHub Pages sites may be no larger than 1 GB"
(https://docs.github.com/en/pages/getting-started-with-github-pages/github-pages-limits).
The deployment itself warns above 2^30 bytes, compressed, and refuses a tar of 10 GB; the
stated limit is used here.
"""
_SHARE = 0.75
# of the budget for pages and records, at most. The remainder allows for overviews, search, map, tables and prose, for
# errors of the estimate, and for growth: labels from outside.
_RESERVE = 0.05  # of the budget for errors and growth, where the rest of the site takes more than that leaves
_REST = 450
# bytes of the rest of the site a behaviour: its row in the tables, its words in the search index, its dot. The demo has
# 440, two layers of SmolLM2 390.
_SAMPLE = 256  # units whose size is measured, in all layers

STEPS: Sequence[dict[str, int]] = list(
    accumulate(
        [
            {},
            {"noise_shown": 1, "neighbours_shown": 2, "band_examples_shown": 3},
            {"activation_titles": False, "band_examples_shown": 2},
            {"tokens_before": 15, "tokens_after": 7, "band_examples_shown": 1},
            {"examples_per_behaviour": 4, "examples_per_unit": 8, "neighbours_shown": 1},
            {"tokens_before": 12, "tokens_after": 5, "noise_shown": 0},
            {"band_examples_shown": 0, "planes": False},
            {"examples_per_behaviour": 3, "examples_per_unit": 6, "tokens_before": 10, "tokens_after": 4},
            {"tokens_before": 8, "tokens_after": 3, "neighbours_shown": 0},
            {"tokens_before": 6, "tokens_after": 2},
            {"examples_per_behaviour": 2},
            {"examples_per_behaviour": 1},
            {"tokens_before": 4, "tokens_after": 1},
        ],
        or_,
    )
)
"""What is left out, step by step; a setting that is already lower is kept.

What surrounds examples goes first, then text around them, and last what a reader would miss most: the third example
of a main behaviour, and the second.
"""

_ROUNDS = ((0, 1), (1, 5), (5, 9), (9, len(STEPS)))
"""Steps whose sizes are measured together: most atlases fit as they are, and each round opens every layer anew."""

SizesOf = Callable[[Sequence[SiteSettings], Sequence[NDArray[np.intp]]], Sequence[NDArray[np.int64]]]
"""Bytes of page and record of some units of each layer, with each of some settings: (settings, units) a layer."""


class Estimate(NamedTuple):
    """The bytes of all units, and two standard errors of that estimate."""

    total: float
    error: float


def sampled_units(layers: Sequence[int]) -> list[NDArray[np.intp]]:
    """Units of each layer whose size is measured; `layers` are numbers of units.

    Layers differ more than the units of one, so each is a stratum, with its share of the
    sample, two units at least (Cochran, *Sampling Techniques*, 1977, ch. 5). The order
    of units has no meaning, so evenly spaced ones are as good as random ones.
    """
    samples = [min(count, max(2, round(_SAMPLE * count / sum(layers)))) for count in layers]
    return [
        (2 * np.arange(number) + 1) * count // (2 * max(number, 1))
        for number, count in zip(samples, layers, strict=True)
    ]


def estimate(layers: Sequence[int], sizes: Sequence[NDArray[np.int64]]) -> Estimate:
    """The bytes of the units of all layers, from the `sizes` of the sample of each."""
    total = variance = 0.0
    for count, sample in zip(layers, sizes, strict=True):
        total += count * float(np.mean(sample)) if len(sample) else 0.0
        if 1 < len(sample) < count:
            variance += count * (count - len(sample)) * float(np.var(sample, ddof=1)) / len(sample)
    return Estimate(total, 2 * variance**0.5)


def share_of_units(budget: int, behaviours: int, beside: int = 0) -> float:
    """The share of a budget that is for pages and records, in an atlas of so many behaviours.

    `beside` are bytes of the rest of the site that come to those of every behaviour.
    """
    return max(0.0, min(_SHARE, 1 - _RESERVE - (_REST * behaviours + beside) / budget))


def fitted(
    site: SiteSettings,
    layers: Sequence[int],
    sizes: SizesOf,
    progress: Progress,
    behaviours: int = 0,
    beside: int = 0,
) -> SiteSettings:
    """The settings with which the units of all layers fit the host's budget; those given, if they fit.

    `layers` are numbers of units, which have so many `behaviours` in all; `sizes` gives the
    bytes of pages and records, `beside` is as in `share_of_units`. Reports what is left out,
    and whether even the last step does not suffice, which is then used. The error of the
    estimate is a few per cent, less than the budget leaves for the rest of the site.
    """
    budget = SIZE_BUDGET.get(site.host)
    if budget is None or not sum(layers):
        return site
    steps = [
        site.model_copy(update={name: min(limit, getattr(site, name)) for name, limit in step.items()})
        for step in STEPS
    ]
    sampled, share = sampled_units(layers), share_of_units(budget, behaviours, beside)
    for first, last in _ROUNDS:  # units are rendered no further than to the first step that fits
        estimates = [estimate(layers, sample) for sample in zip(*sizes(steps[first:last], sampled), strict=True)]
        fits = [total <= share * budget for total, _ in estimates]
        if any(fits):
            break
    step = fits.index(True) if any(fits) else -1
    reduced, (total, error) = steps[first:last][step], estimates[step]
    left_out = [
        f"{name} {getattr(site, name)} → {getattr(reduced, name)}"
        for name in STEPS[-1]
        if getattr(reduced, name) != getattr(site, name)
    ]
    about = f"pages and records take {total / 1e6:,.0f} ± {error / 1e6:,.0f} MB"
    limit = f"of the {budget / 1e6:,.0f} MB that {site.host} allows, {share:.0%} are for them"
    if left_out:
        progress.say(f"less is shown of each unit ({', '.join(left_out)}): {about}; {limit}")
    if not any(fits):
        progress.say(f"still too large: {about}; {limit}. Publish fewer layers (units.layers), or use another host")
    return reduced

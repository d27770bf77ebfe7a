"""What a host allows, and how much of each unit is shown so that an atlas fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from operator import or_
from typing import NamedTuple

import numpy as np

from atlas_builder.config import Site
from atlas_builder.progress import Progress

SIZE_BUDGET = {"github-pages": 1_000_000_000}
"""Bytes that a host allows for a site.

"Published GitHub Pages sites may be no larger than 1 GB"
(https://docs.github.com/en/pages/getting-started-with-github-pages/github-pages-limits).
The deployment itself warns above 2^30 bytes, compressed, and refuses a tar of 10 GB; we
hold to what is promised.
"""
_SHARE = 0.72
# of the budget for pages and records. Overviews, search, map, tables and prose take as much as 0.09; what is left is for
# what an estimate cannot know, and for an atlas to grow: labels from outside, a layer more.
_SAMPLE = 256  # units whose size is taken, in all

STEPS: Sequence[dict[str, int]] = list(
    accumulate(
        [
            {},
            {"noise_shown": 1, "neighbours_shown": 2, "band_examples_shown": 3},
            {"tokens_before": 15, "tokens_after": 6, "band_examples_shown": 2},
            {"examples_per_unit": 8},
            {"tokens_before": 12, "tokens_after": 5, "band_examples_shown": 1},
            {"examples_per_unit": 6},
            {"examples_per_behaviour": 2, "examples_per_unit": 4, "neighbours_shown": 1},
            {"examples_per_behaviour": 1, "noise_shown": 0},
            {"band_examples_shown": 0},
        ],
        or_,
    )
)
"""What is left out, step by step; a setting that is lower already stays as it is."""


class Estimate(NamedTuple):
    """What all units take, in bytes, and two standard errors of it."""

    total: float
    error: float


def estimate(layers: Sequence[int], size_of: Callable[[int], int]) -> Estimate:
    """What the units of all layers take, from a sample of each layer.

    `layers` are numbers of units; `size_of` gives the bytes of the unit at a place, counted
    through all layers. Layers differ more than the units of one, so each is a stratum, with
    its share of the sample, two units at least (Cochran, *Sampling Techniques*, 1977, ch. 5).
    Units come in no order, so places evenly spread are as good as random ones.
    """
    total = variance = 0.0
    for first, count in zip(accumulate(layers, initial=0), layers, strict=False):
        drawn = min(count, max(2, round(_SAMPLE * count / sum(layers))))
        sizes = [size_of(first + (2 * number + 1) * count // (2 * drawn)) for number in range(drawn)]
        total += count * float(np.mean(sizes)) if sizes else 0.0
        if 1 < drawn < count:
            variance += count * (count - drawn) * float(np.var(sizes, ddof=1)) / drawn
    return Estimate(total, 2 * variance**0.5)


def fitted(site: Site, layers: Sequence[int], size_of: Callable[[Site, int], int], progress: Progress) -> Site:
    """The settings with which the units of all layers fit the host's budget, those given where they fit as they are.

    `layers` are numbers of units; `size_of` gives the bytes of a unit's page and record
    with some settings. Says what is left out, and where even the last step does not
    suffice, which is then taken. The error of the estimate is a few per cent, and what the
    budget leaves for the rest of the site is more.
    """
    budget = SIZE_BUDGET.get(site.host)
    if budget is None or not sum(layers):
        return site
    for step in STEPS:
        less = site.model_copy(update={name: min(most, getattr(site, name)) for name, most in step.items()})
        total, error = estimate(layers, partial(size_of, less))
        if fits := total <= _SHARE * budget:
            break
    left_out = [
        f"{name} {getattr(site, name)} → {getattr(less, name)}"
        for name in step
        if getattr(less, name) != getattr(site, name)
    ]
    about = f"pages and records take {total / 1e6:,.0f} ± {error / 1e6:,.0f} MB"
    most = f"of the {budget / 1e6:,.0f} MB that {site.host} allows, {_SHARE:.0%} are for them"
    if left_out:
        progress.say(f"less is shown of each unit ({', '.join(left_out)}): {about}; {most}")
    if not fits:
        progress.say(f"too much even so: {about}; {most}. Publish fewer layers (units.layers), or use another host")
    return less

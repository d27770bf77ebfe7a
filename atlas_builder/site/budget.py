"""What a host allows, and how much of each unit is shown so that an atlas fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import or_

from atlas_builder.config import Site
from atlas_builder.progress import Progress

SIZE_BUDGET = {"github-pages": 1_000_000_000}
"""Bytes that a host allows for a site."""
_SHARE = 0.9  # of the budget for units; the rest is for overviews, search and prose
_SAMPLE = 96  # units whose size is taken

STEPS: Sequence[dict[str, int]] = list(
    accumulate(
        [
            {},
            {"noise_shown": 1, "neighbours_shown": 2, "band_examples_shown": 2},
            {"examples_per_unit": 8},
            {"examples_per_unit": 6, "band_examples_shown": 1},
            {"examples_per_behaviour": 2, "examples_per_unit": 4, "neighbours_shown": 1},
            {"examples_per_behaviour": 1, "noise_shown": 0},
            {"band_examples_shown": 0},
        ],
        or_,
    )
)
"""What is left out, step by step; a setting that is lower already stays as it is."""


def fitted(site: Site, units: int, size_of: Callable[[Site, int], int], progress: Progress) -> Site:
    """The settings with which `units` units fit the host's budget, those given where they fit as they are.

    `size_of` gives the bytes of one unit's page and record with some settings; a sample of
    units, evenly spread, stands for all. Says what is left out. Where nothing helps, the
    last step is taken, and `check` will complain.
    """
    budget = SIZE_BUDGET.get(site.host)
    if budget is None or not units:
        return site
    sample = range(0, units, max(1, units // _SAMPLE))
    for step in STEPS:
        less = site.model_copy(update={name: min(most, getattr(site, name)) for name, most in step.items()})
        total = units * sum(size_of(less, place) for place in sample) / len(sample)
        if total <= _SHARE * budget:
            break
    left_out = [f"{name} {getattr(site, name)} → {getattr(less, name)}" for name in step if less != site]
    if left_out:
        progress.say(
            f"{site.host} allows {budget / 1e6:,.0f} MB: less is shown of each unit ({', '.join(left_out)}), "
            f"so that pages and records take about {total / 1e6:,.0f} MB"
        )
    return less

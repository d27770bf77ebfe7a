"""Named associations, planted and shifted: `python -m tests.benchmarks.associations [UNITS]`.

On synthetic draws of realistic shape, four bands of 256 tokens and 300 attributes in runs over contexts: in how
many units an association planted with an effect of 0.2 is found, by the share of tokens that have it; in how many
any is reported where attributes are shifted by whole contexts, beside a plain rank test; and the time of all units
on two cores. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from atlas_builder.describe.association_test import NAMED_P, AssociationScores, association_test
from tests.support.associations import clustered_draws, shifted_by_contexts

PROCESSES = 2
EFFECT = 0.2
JUDGED = (0.3, 2)
"""Share of tokens that have the planted attribute, and contexts of its runs, by which the target is judged."""
PLANTED = ((1, 0.1, 1), (1, 0.1, 2), (1, 0.2, 2), (1, *JUDGED), (2, *JUDGED))
"""Sides, share and contexts of a run."""
LEAST_FOUND, MOST_REPORTED, MOST_SECONDS = 0.95, 0.05, 60.0


class Outcome(NamedTuple):
    """What is named of a unit, and the seconds of its test."""

    found: bool
    others: int
    plain: bool
    """Whether a plain rank test, corrected by Bonferroni, reports any attribute."""
    tested: int
    seconds: float


def planted(unit: int, share: float, run: int, sides: int) -> Outcome:
    """A unit whose first attribute has the effect, among those without one."""
    draws = clustered_draws(np.random.default_rng(unit), effect=EFFECT, share=share, run=run, sides=sides)
    begun = time.process_time()
    scores = association_test(*draws, seed=unit)
    seconds = time.process_time() - begun
    named = scores.named().tolist()
    return Outcome(0 in named, len(set(named) - {0}), False, int(scores.tested.sum()), seconds)


def shifted(unit: int, sides: int) -> Outcome:
    """A unit whose attributes are shifted by whole contexts, so that none goes with it."""
    drawn = np.random.default_rng(unit)
    values, side, context, has = clustered_draws(drawn, effect=EFFECT, sides=sides)
    has = shifted_by_contexts(drawn, context, has)
    begun = time.process_time()
    scores = association_test(values, side, context, has, seed=unit)
    seconds = time.process_time() - begun
    named = scores.named()
    return Outcome(False, len(named), plain_reports(scores, has), int(scores.tested.sum()), seconds)


def plain_reports(scores: AssociationScores, has: np.ndarray) -> bool:
    """Whether Mann and Whitney's test, as if rows were independent and of one side, reports any attribute."""
    rows, having = len(has), has.sum(axis=0)
    deviation = np.sqrt((rows + 1) / 12 / np.maximum(1, having * (rows - having)))[scores.tested]
    p = [math.erfc(abs(z) / math.sqrt(2)) for z in scores.effect[scores.tested] / deviation]
    return min(p, default=1.0) * len(p) <= NAMED_P


def main(units: int = 2048) -> int:
    """Print the tables."""
    missed = 0
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        print(f"{units:,} units, 4 bands of 256 tokens, effect {EFFECT}")
        print("| sides | share of tokens that have it | contexts of a run | found | others named | attributes tested |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for sides, share, run in PLANTED:
            outcomes = list(
                pool.map(planted, range(units), [share] * units, [run] * units, [sides] * units, chunksize=16)
            )
            found = np.mean([outcome.found for outcome in outcomes])
            others = np.mean([outcome.others > 0 for outcome in outcomes])
            tested = np.mean([outcome.tested for outcome in outcomes])
            print(f"| {sides} | {share:.0%} | {run} | {found:.1%} | {others:.1%} | {tested:.0f} |", flush=True)
            missed += bool(found < LEAST_FOUND and (share, run) == JUDGED)
        seconds = sum(outcome.seconds for outcome in outcomes) / PROCESSES
        print("\nattributes shifted by whole contexts\n\n| sides | units that report any | a plain rank test |")
        print("| ---: | ---: | ---: |")
        for sides in (1, 2):
            outcomes = list(pool.map(shifted, range(units), [sides] * units, chunksize=16))
            reported = np.mean([outcome.others > 0 for outcome in outcomes])
            plain = np.mean([outcome.plain for outcome in outcomes])
            print(f"| {sides} | {reported:.1%} | {plain:.1%} |", flush=True)
            missed += bool(reported >= MOST_REPORTED)
    print(f"\ntests of {units:,} units on {PROCESSES} cores: {seconds:.1f} s")
    missed += seconds > MOST_SECONDS * units / 2048
    print(f"targets missed: {missed}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

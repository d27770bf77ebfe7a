"""What a unit's examples tell of behaviours that they do not show, computed again in fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import NormalDist, stdev

from atlas_builder.verify.linkage import Cluster

_STANDARD = Fraction(1, 2)  # the coverage at which units are compared
_SLACK = Fraction(1, 10**9)  # what a coverage may lack
_FEWEST = 10
_FURTHEST = 2  # extrapolation, in numbers of examples
_INTERVAL_OF_STANDARD, _INTERVAL_OF_RICHNESS = 0.90, 0.95

Sizes = tuple[int, ...]


def diversity_numbers(
    count: int, clusters: Sequence[Cluster], halves: Sequence[tuple[int, Sequence[Cluster]]], known: bool
) -> dict[str, float]:
    """Sample coverage, effective number at a coverage of one half, and richness, with their intervals.

    `count` examples are in `clusters` or alone; `halves` has the same of half-samples. All are NaN unless
    `known` says that the examples are a random sample, with groups of two among the clusters.
    """
    names = ("sample_coverage", "standard_behaviours", "standard_low", "standard_high")
    if not known or count < _FEWEST:
        return dict.fromkeys((*names, "richness", "richness_low", "richness_high"), math.nan)
    sizes = _sizes(count, clusters)
    number = _standard(sizes, _FURTHEST * count)
    again = [_standard(_sizes(half, new), _FURTHEST * count) for half, new in halves]
    reached = [value for value in again if not math.isnan(value)]
    low = high = math.nan
    if len(reached) > 1 and not math.isnan(number):
        reach = _quantile(_INTERVAL_OF_STANDARD) * stdev(reached)
        low, high = max(1.0, number - reach), number + reach
    return {**dict(zip(names, (float(_coverage(sizes)), number, low, high), strict=True)), **_richness(sizes)}


def _sizes(count: int, clusters: Sequence[Cluster]) -> Sizes:
    """The sizes of all groups, what is in no cluster being a group each."""
    sizes = [len(cluster) for cluster in clusters]
    return tuple(sorted(sizes + [1] * (count - sum(sizes))))


def _seen(sizes: Sizes) -> tuple[int, int, int]:
    """The number of examples, and of groups of one and of two."""
    return sum(sizes), sizes.count(1), sizes.count(2)


def _rate(sizes: Sizes) -> Fraction:
    """A of Chao & Jost (2012): the share of the groups of one by which coverage falls short."""
    n, ones, twos = _seen(sizes)
    if not ones:
        return Fraction(0)
    if twos:
        return Fraction((n - 1) * ones, (n - 1) * ones + 2 * twos)
    return Fraction((n - 1) * (ones - 1), (n - 1) * (ones - 1) + 2)


def _coverage(sizes: Sizes) -> Fraction:
    n, ones, _ = _seen(sizes)
    return 1 - Fraction(ones, n) * _rate(sizes)


def _coverage_of(drawn: int, sizes: Sizes) -> Fraction:
    """The coverage that `drawn` of the examples are expected to have, without replacement."""
    n = sum(sizes)
    if drawn == n:
        return _coverage(sizes)
    missed = (Fraction(size * math.comb(n - size, drawn), n * math.comb(n - 1, drawn)) for size in sizes)
    return 1 - sum(missed, Fraction(0))


def _entropy_of(drawn: int, sizes: Sizes) -> float:
    """The entropy of the groups of m drawn examples, from the expected number of groups of each size."""
    n = sum(sizes)
    entropy = 0.0
    for members in range(1, drawn + 1):
        ways = sum(math.comb(size, members) * math.comb(n - size, drawn - members) for size in sizes)
        share = members / drawn
        entropy -= float(Fraction(ways, math.comb(n, drawn))) * share * math.log(share)
    return entropy


def _entropy_of_all(sizes: Sizes) -> float:
    """The entropy of what the examples are drawn from, estimated as by Chao, Wang & Jost (2013)."""
    n, ones, _ = _seen(sizes)
    entropy = float(sum(Fraction(size, n) * sum(Fraction(1, k) for k in range(size, n)) for size in sizes))
    rate = _rate(sizes)
    tail = -math.log(1 - rate) - float(sum(rate**place / place for place in range(1, n)))
    return entropy + ones / n * tail / float(rate ** (n - 1))


@cache
def _standard(sizes: Sizes, most: int) -> float:
    """The effective number at the standard coverage: between the two numbers of examples on its two sides."""
    n, ones, _ = _seen(sizes)
    if n < 2:
        return math.nan
    for drawn in range(1, n + 1) if _coverage(sizes) >= _STANDARD - _SLACK else ():  # it never falls
        reached = _coverage_of(drawn, sizes)
        if reached >= _STANDARD - _SLACK:
            if drawn == 1:
                return 1.0
            before = _coverage_of(drawn - 1, sizes)
            part = min(1.0, float((_STANDARD - before) / (reached - before)))
            fewer, enough = (math.exp(_entropy_of(m, sizes)) for m in (drawn - 1, drawn))
            return fewer + part * (enough - fewer)
    total = n - 1 + math.log((1 - _STANDARD) * n / ones) / math.log(_rate(sizes))
    if total > most:
        return math.nan
    return math.exp(n / total * _entropy_of(n, sizes) + (1 - n / total) * _entropy_of_all(sizes))


def _richness(sizes: Sizes) -> dict[str, float]:
    """Chao's estimate of the number of groups (1984), with the interval of Chao (1987)."""
    n, ones, twos = _seen(sizes)
    number = low = high = math.nan
    if len(sizes) < n:
        part = (n - 1) / n
        if twos:
            r = ones / twos
            unseen = part * ones**2 / (2 * twos)
            variance = twos * (part * r**2 / 2 + part**2 * r**3 + part**2 * r**4 / 4)
        else:
            pairs = ones * (ones - 1) / 2
            unseen = part * pairs
            variance = part * pairs + part**2 * ones * (2 * ones - 1) ** 2 / 4
            variance -= part**2 * ones**4 / 4 / (len(sizes) + unseen)
        number = len(sizes) + unseen
        if unseen:
            spread = math.exp(_quantile(_INTERVAL_OF_RICHNESS) * math.sqrt(math.log(1 + variance / unseen**2)))
            low, high = len(sizes) + unseen / spread, len(sizes) + unseen * spread
    return {"richness": number, "richness_low": low, "richness_high": high}


def _quantile(interval: float) -> float:
    return NormalDist().inv_cdf((1 + interval) / 2)

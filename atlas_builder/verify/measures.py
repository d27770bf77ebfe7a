"""The measures of a unit's behaviours computed again, pair by pair, from clusters as lists of examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist, mean, stdev

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.linkage import Cluster, Matrix

_ALIKE = 1e-5  # share of the highest activation: what is less is rounding
_INTERVAL_OF_NUMBER, _INTERVAL_OF_EFFECTIVE = 0.90, 0.95
_MAIN = 20  # a main behaviour holds one example in so many


def distance_measures(distances: Matrix, clusters: Sequence[Cluster]) -> dict[str, float]:
    """Numbers of behaviours and examples, and means of distances, (examples, examples); NaN where there is no pair."""
    owner = {example: number for number, cluster in enumerate(clusters) for example in cluster}
    pairs = list(combinations(range(len(distances)), 2))
    clustered = [(i, j) for i, j in pairs if i in owner and j in owner]
    every = [float(distances[pair]) for pair in pairs]
    inside = [float(distances[i, j]) for i, j in clustered if owner[i] == owner[j]]
    between = [float(distances[i, j]) for i, j in clustered if owner[i] != owner[j]]
    return {
        "behaviours": len(clusters),
        "effective_behaviours": math.exp(_entropy(clusters)) if clusters else 0.0,
        "noise_fraction": 1 - len(owner) / len(distances) if len(distances) else 0.0,
        "mean_distance": mean(every) if every else math.nan,
        "max_distance": max(every, default=math.nan),
        "intra_distance": mean(inside) if inside else math.nan,
        "inter_distance": mean(between) if between else math.nan,
        "examples": len(distances),
    }


def _entropy(clusters: Sequence[Cluster]) -> float:
    total = sum(len(cluster) for cluster in clusters)
    return -sum(len(cluster) / total * math.log(len(cluster) / total) for cluster in clusters)


def effective_ends(clusters: Sequence[Cluster]) -> dict[str, float]:
    """The 95 % interval of the effective number: exp of the entropy with its bias (Miller) and variance (Hutcheson)."""
    low = high = math.nan
    if clusters:
        total, more = sum(len(cluster) for cluster in clusters), len(clusters) - 1
        shares = [len(cluster) / total for cluster in clusters]
        entropy = _entropy(clusters)
        squares = sum(share * math.log(share) ** 2 for share in shares)
        variance = (squares - entropy**2) / total + more / (2 * total**2)
        reach = _quantile_of(_INTERVAL_OF_EFFECTIVE) * math.sqrt(max(variance, 0.0))
        centre = entropy + more / (2 * total)
        low, high = (math.exp(max(0.0, centre + way * reach)) for way in (-1, 1))
    return {"effective_low": low, "effective_high": high}


def main_numbers(
    count: int, clusters: Sequence[Cluster], samples: Sequence[Sequence[int]], again: Sequence[Sequence[Cluster]]
) -> dict[str, float]:
    """Clusters that hold a twentieth of `count` examples, their 90 % interval, their mean number in half-samples."""
    number = _main(clusters, count)
    in_halves = [_main(new, len(sample)) for sample, new in zip(samples, again, strict=True)]
    low = high = math.nan
    if len(in_halves) > 1:
        reach = math.floor(_quantile_of(_INTERVAL_OF_NUMBER) * stdev(in_halves) + 0.5)
        low, high = max(0, number - reach), number + reach
    return {
        "main_behaviours": number,
        "main_low": low,
        "main_high": high,
        "main_half": mean(in_halves) if in_halves else math.nan,
    }


def _main(clusters: Sequence[Cluster], count: int) -> int:
    return sum(len(cluster) * _MAIN >= count for cluster in clusters)


def _quantile_of(interval: float) -> float:
    """How many standard deviations an interval around the mean of a normal distribution reaches."""
    return NormalDist().inv_cdf((1 + interval) / 2)


def stabilities(
    clusters: Sequence[Cluster], samples: Sequence[Sequence[int]], again: Sequence[Sequence[Cluster]]
) -> list[float]:
    """For each cluster the mean over samples of the best Jaccard index with a cluster found `again` there.

    Of the cluster, only the members in the sample count; samples with fewer than two are left out, NaN without any.
    """
    found = []
    for cluster in clusters:
        best = []
        for sample, new in zip(samples, again, strict=True):
            here = set(cluster) & set(sample)
            if len(here) >= 2:
                best.append(max((len(here & set(other)) / len(here | set(other)) for other in new), default=0.0))
        found.append(mean(best) if best else math.nan)
    return found


def mean_stability(clusters: Sequence[Cluster], of_each: Sequence[float]) -> float:
    """Mean stability over clustered examples, clusters without one left out."""
    known = [(len(cluster), value) for cluster, value in zip(clusters, of_each, strict=True) if not math.isnan(value)]
    return sum(size * value for size, value in known) / sum(size for size, _ in known) if known else math.nan


def weighted_similarity(distances: Matrix, strengths: NDArray[np.float64]) -> float:
    """MonoScore: mean cosine of pairs, weighted by activations scaled to [0, 1], (examples,); alike if these are."""
    lowest, highest = min(strengths, default=0.0), max(strengths, default=0.0)
    differ = highest - lowest > _ALIKE * highest
    weight = [(value - lowest) / (highest - lowest) if differ else 1.0 for value in strengths.tolist()]
    pairs = list(combinations(range(len(weight)), 2))
    total = sum(weight[i] * weight[j] for i, j in pairs)
    if not total > 0:
        return math.nan
    return float(sum(weight[i] * weight[j] * (1 - distances[i, j]) for i, j in pairs) / total)

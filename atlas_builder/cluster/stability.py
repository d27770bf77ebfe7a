"""Stability of a unit's behaviours and similarity of its examples, from distances and labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster.background import Similarities
from atlas_builder.cluster.clustering import Distances, Labels, cluster, main_behaviours
from atlas_builder.config import ClusterSettings

_SHARE = 0.5  # of the examples in a sample
_NORMAL_90 = 1.6448536269514722  # the 95 % quantile of the normal distribution
_ROUNDING = 1e-5
"""Share of the highest activation within which activations are equal; what is less, another order of sums makes."""
_NORMAL_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


class Interval(NamedTuple):
    """Ends of a 95 % interval."""

    low: float
    high: float


class StabilityMeasures(NamedTuple):
    """How far a unit's behaviours can be relied on; NaN where it cannot be estimated."""

    effective_low: float
    """Lower end of `effective_interval`."""
    effective_high: float
    """Upper end of `effective_interval`."""
    stability: float
    """Mean over the clustered examples of the `stability` of their behaviours."""
    mono_score: float
    """The unit's `mono_score`."""
    main_low: float
    """Lower end of `main_interval`."""
    main_high: float
    """Upper end of `main_interval`."""
    main_half: float
    """Mean number of main behaviours in half-samples."""


def stability_measures(
    distances: Distances,
    labels: Labels,
    values: NDArray[np.float32],
    settings: ClusterSettings,
    seed: int = 0,
    similarities: Similarities | None = None,
    halves: Sequence[HalfSample] | None = None,
) -> tuple[StabilityMeasures, NDArray[np.float64]]:
    """The measures of a unit, and the stability of each of its behaviours, (clusters,).

    `distances` are those of neuron embeddings, `similarities` what was clustered if it is something else,
    `halves` its half-samples where they are known.
    """
    sizes = np.bincount(labels[labels >= 0])
    if halves is None:
        halves = half_samples(similarities or Similarities(distances, np.inf), settings, seed)
    stabilities = stability_in(halves, labels)
    known = ~np.isnan(stabilities)
    mean = float(stabilities[known] @ sizes[known] / sizes[known].sum()) if known.any() else float("nan")
    measures = StabilityMeasures(
        *effective_interval(sizes),
        mean,
        mono_score(distances, values),
        *main_interval(main_behaviours(labels), halves),
        float(np.mean(_main_in(halves))) if halves else float("nan"),
    )
    return measures, stabilities


class HalfSample(NamedTuple):
    """Half of a unit's examples, clustered again."""

    examples: NDArray[np.int64]
    """Which examples are in the sample, ascending: (sample,)."""
    labels: Labels
    """Their clusters, −1 for unclustered: (sample,)."""


def half_samples(similarities: Similarities, settings: ClusterSettings, seed: int = 0) -> list[HalfSample]:
    """`settings.resamples` random halves of the examples, drawn without replacement, each clustered again.

    Similarities are taken as they are: they do not depend on which examples are in the sample.
    Samples depend on the number of examples and `seed` only.
    """
    examples = len(similarities.distances)
    halves = []
    for sample in _samples(examples, round(_SHARE * examples), settings.resamples, seed):
        part = similarities.part(sample)
        halves.append(HalfSample(sample, cluster(part.distances, settings, part.dimensions)))
    return halves


@lru_cache(maxsize=64)
def _samples(examples: int, size: int, number: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Random samples of numbered examples, ascending: (number, size)."""
    chance = np.random.default_rng([seed, examples])
    return tuple(np.sort(chance.permutation(examples)[:size]) for _ in range(number))


def stability(distances: Distances, labels: Labels, settings: ClusterSettings, seed: int = 0) -> NDArray[np.float64]:
    """How well each cluster is recovered when half of the examples are clustered again: (clusters,).

    `stability_in` the `half_samples` of these distances.
    """
    return stability_in(half_samples(Similarities(distances, np.inf), settings, seed), labels)


def stability_in(halves: Sequence[HalfSample], labels: Labels) -> NDArray[np.float64]:
    """How well each cluster is recovered in half-samples: (clusters,).

    The mean over samples of the largest Jaccard index |A ∩ B| / |A ∪ B| between the members A of
    the cluster that are in the sample and any cluster B of the sample (Hennig 2007, subset scheme:
    an example drawn twice would be a cluster of its own). Samples with fewer than two members do
    not count; NaN where none has two. From about 0.75 on a cluster counts as stable, below 0.5 as
    dissolved.
    """
    count = int(labels.max(initial=-1)) + 1
    if not halves or not count:
        return np.full(count, np.nan)
    member = labels[[half.examples for half in halves]] + 1  # (halves, sample), 0 for unclustered
    again = np.stack([half.labels for half in halves]) + 1
    shape = len(halves), count + 1, int(again.max(initial=0)) + 1
    pairs = np.ravel_multi_index((np.arange(len(halves))[:, None], member, again), shape).ravel()
    both = np.bincount(pairs, minlength=np.prod(shape)).reshape(shape)
    size, common = both.sum(axis=2)[:, 1:], both[:, 1:, 1:]  # (halves, clusters), (halves, clusters, new clusters)
    union = size[:, :, None] + both.sum(axis=1)[:, None, 1:] - common
    best = (common / np.maximum(union, 1)).max(axis=2, initial=0)
    counted = size >= 2
    with np.errstate(invalid="ignore"):
        return np.asarray((best * counted).sum(axis=0) / counted.sum(axis=0))


def main_interval(number: int, halves: Sequence[HalfSample]) -> Interval:
    """A 90 % interval for the number of main behaviours, as far as the choice of examples moves it.

    number ± 1.645 s, rounded to whole numbers and never below 0, s the standard deviation of the
    number over half-samples: half of the examples, drawn without replacement, move a mean as much as
    the whole would move from sample to sample (Politis, Romano & Wolf 1999). The number of a second
    sample has an error of its own, so it lies outside more often. NaN with fewer than two half-samples.
    """
    if len(halves) < 2:
        return Interval(np.nan, np.nan)
    reach = np.floor(_NORMAL_90 * np.std(_main_in(halves), ddof=1) + 0.5)
    return Interval(max(0.0, float(number - reach)), float(number + reach))


def _main_in(halves: Sequence[HalfSample]) -> list[int]:
    return [main_behaviours(half.labels) for half in halves]


def effective_interval(sizes: NDArray[np.int64]) -> Interval:
    """A 95 % interval for the effective number of behaviours, from the sizes of the clusters: (clusters,).

    exp(H ± 1.96 √V), with H = −Σ p ln p + (k − 1) / 2n the entropy corrected for its bias
    (Miller 1955) and V = (Σ p ln² p − (Σ p ln p)²) / n + (k − 1) / 2n² its variance
    (Hutcheson 1970), p the shares, k clusters, n clustered examples; never below 1. It
    covers how far another sample of examples may move the number, given the clusters;
    behaviours that no example shows are not included. NaN without a cluster.
    """
    count, clustered = len(sizes), int(sizes.sum())
    if not count:
        return Interval(np.nan, np.nan)
    shares = sizes / clustered
    logs = np.log(shares)
    entropy = -float(shares @ logs)
    variance = (float(shares @ logs**2) - entropy**2) / clustered + (count - 1) / (2 * clustered**2)
    centre = entropy + (count - 1) / (2 * clustered)
    reach = _NORMAL_95 * np.sqrt(max(0.0, variance))
    return Interval(float(np.exp(max(0.0, centre - reach))), float(np.exp(max(0.0, centre + reach))))


def mono_score(distances: Distances, values: NDArray[np.float32]) -> float:
    """Mean similarity of examples, weighted by activation (MonoScore, arXiv 2504.02821, on neuron embeddings).

    Σ_{i<j} ã_i ã_j cos_ij / Σ_{i<j} ã_i ã_j, ã the activations, (examples,), min–max-scaled
    over the examples, cos the cosine 1 − d. Where all activations are equal, but for
    rounding, all weights are; NaN for fewer than two examples of a positive weight.
    """
    strength = np.abs(values).astype(np.float64)
    spread = np.ptp(strength) if len(strength) else 0.0
    alike = spread <= _ROUNDING * strength.max(initial=0.0)
    weight = np.ones(len(strength)) if alike else (strength - strength.min()) / spread
    # Over pairs rather than as (Σ ã)² − Σ ã², which cancels where one example outweighs all others.
    pairs = weight @ (1 - np.eye(len(weight))) @ weight
    if not pairs > 0:
        return float("nan")
    return float(1 - weight @ distances.astype(np.float64) @ weight / pairs)

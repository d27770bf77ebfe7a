"""The diversity of a unit's behaviours on an equal footing: at one sample coverage, with what was not seen.

The more examples are read, the more behaviours are seen, as species are in a sample of individuals. So
units, layers and models are compared as communities of species are: not at equal numbers of examples
but where the samples cover an equal share of what there is (Chao & Jost 2012). Everything is computed
from frequency counts f, f[k] the number of groups of k examples: behaviours, and each unclustered
example as a group of its own. The formulas hold for a random sample of examples, not for the highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

STANDARD_COVERAGE = 0.5
"""The sample coverage at which units are compared.

A compromise, by what was seen: of 180 neurons of SmolLM2 135M, 100 examples each, four in five have a
number at 0.5 and three in five at 0.7, the most diverse left out. Lower, ever more units have the number 1:
of layers 1 to 3 of the demo's model a third at 0.5, a half at 0.4, three quarters at 0.3.
"""
LEAST_EXAMPLES = 10
"""Fewest examples for an estimate: the estimators are for large samples."""
_LEAST_GROUP = 2  # largest `min_size` with which an unclustered example is a group of one
_ROUNDING = 1e-9
"""What a coverage may lack: where half of the examples are groups of one, half is approached and never passed."""
_REACH = 2  # of extrapolation, in numbers of examples (Chao et al. 2014)
_NORMAL_90 = 1.6448536269514722  # the 95 % quantile of the normal distribution
_NORMAL_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution

Labels = NDArray[np.int32]
Counts = NDArray[np.int64]


class DiversityMeasures(NamedTuple):
    """A unit's behaviours at equal sample coverage, and those not seen; NaN where it cannot be estimated.

    NaN with fewer than ten examples, where these are no random sample, and with `min_size` above 2,
    which hides what is seen twice.
    """

    sample_coverage: float
    """`sample_coverage` of the examples."""
    standard_behaviours: float
    """`effective_number` at `STANDARD_COVERAGE`."""
    standard_low: float
    """Lower end of its `standard_interval`."""
    standard_high: float
    """Upper end of its `standard_interval`."""
    richness: float
    """`chao1`: the least number of behaviours of any size, those not seen included."""
    richness_low: float
    """Lower end of its 95 % interval."""
    richness_high: float
    """Upper end of its 95 % interval."""


_UNKNOWN = DiversityMeasures(*[np.nan] * len(DiversityMeasures._fields))


def diversity_measures(
    labels: Labels, halves: Sequence[Labels], *, min_size: int = 2, random: bool = True
) -> DiversityMeasures:
    """The measures of a unit from the labels of its examples, −1 for unclustered, and those in half-samples.

    `min_size` is the fewest examples of a cluster, `random` whether the examples are a random sample.
    """
    if not random or min_size > _LEAST_GROUP or len(labels) < LEAST_EXAMPLES:
        return _UNKNOWN
    counts = frequency_counts(labels)
    number = effective_number(counts, STANDARD_COVERAGE)
    # As far as the curve of the whole sample goes: at their own reach, halves of diverse units would be left out.
    again = [effective_number(frequency_counts(half), STANDARD_COVERAGE, _REACH * len(labels)) for half in halves]
    return DiversityMeasures(sample_coverage(counts), number, *standard_interval(number, again), *chao1(counts))


@njit(nogil=True, cache=True)
def frequency_counts(labels: Labels) -> Counts:
    """How many groups have 0, 1, 2, … examples, each unclustered example a group of one: (examples + 1,)."""
    sizes = np.zeros(len(labels), np.int64)
    counts = np.zeros(len(labels) + 1, np.int64)
    for label in labels:
        if label < 0:
            counts[1] += 1
        else:
            sizes[label] += 1
    for size in sizes:
        counts[size] += 1
    counts[0] = 0
    return counts


@njit(nogil=True, cache=True)
def sample_coverage(counts: Counts) -> float:
    """The share of all that the unit responds to which is of a kind that its examples show.

    1 − (f₁ / n) A (Chao & Jost 2012, equation 4a), `_unseen` for A; NaN without an example.
    """
    examples = len(counts) - 1
    return float(1 - counts[1] / examples * _unseen(counts)) if examples else np.nan


@njit(nogil=True, cache=True)
def _unseen(counts: Counts) -> float:
    """The probability that one more example, of a group seen once at most, is of one not seen.

    A = (n − 1) f₁ / ((n − 1) f₁ + 2 f₂), and without a pair (n − 1) (f₁ − 1) / ((n − 1) (f₁ − 1) + 2).
    """
    examples, ones = len(counts) - 1, counts[1]
    twos = counts[2] if examples > 1 else 0
    if not ones:
        return 0.0
    unseen = (examples - 1) * (ones if twos else ones - 1)
    return float(unseen / (unseen + 2 * max(twos, 1)))


@njit(nogil=True, cache=True)
def effective_number(counts: Counts, coverage: float, most: int = 0) -> float:
    """The effective number of groups, exp of the entropy of their sizes, in samples of a coverage.

    Where the examples cover more, that of smaller samples drawn from them, between the two sizes
    that come nearest (rarefaction); else that of larger ones, up to `most` examples, by default
    twice as many (extrapolation; Chao et al. 2014). 1 where one example already covers as much. NaN
    where `most` do not, or with fewer than two examples.
    """
    examples = len(counts) - 1
    if examples < 2:
        return np.nan
    sizes = np.flatnonzero(counts)
    groups = counts[sizes]
    logs = np.zeros(examples + 1)  # of factorials
    for number in range(2, examples + 1):
        logs[number] = logs[number - 1] + math.log(number)
    covered = sample_coverage(counts)
    if covered < coverage - _ROUNDING:
        rate = _unseen(counts)
        more = math.log((1 - coverage) * examples / counts[1]) / math.log(rate) - 1
        if examples + more > (most or _REACH * examples):
            return np.nan
        weight = more / (examples + more)
        return math.exp(
            (1 - weight) * _entropy(examples, sizes, groups, logs) + weight * _whole_entropy(counts, 1 - rate)
        )
    low, high = 0, examples  # the first covers less, the second enough
    while high - low > 1:
        middle = (low + high) // 2
        if _covered(middle, sizes, groups, logs) < coverage - _ROUNDING:
            low = middle
        else:
            high = middle
    if high == 1:
        return 1.0
    under = _covered(low, sizes, groups, logs)
    over = covered if high == examples else _covered(high, sizes, groups, logs)
    weight = min(1.0, (coverage - under) / (over - under))
    fewer, enough = _entropy(low, sizes, groups, logs), _entropy(high, sizes, groups, logs)
    return float((1 - weight) * math.exp(fewer) + weight * math.exp(enough))


@njit(nogil=True, cache=True)
def _covered(drawn: int, sizes: Counts, groups: Counts, logs: NDArray[np.float64]) -> float:
    """The coverage to expect of `drawn` of the n examples, fewer than all: 1 − Σ (x / n) C(n − x, m) / C(n − 1, m).

    `groups` of each of the `sizes` x; `logs` are of factorials.
    """
    examples = len(logs) - 1
    missed = 0.0
    for place in range(len(sizes)):
        size, number = sizes[place], groups[place]
        left = examples - size
        if left >= drawn:
            log = logs[left] - logs[left - drawn] - logs[examples - 1] + logs[examples - 1 - drawn]
            missed += number * size / examples * math.exp(log)
    return float(1 - missed)


@njit(nogil=True, cache=True)
def _entropy(drawn: int, sizes: Counts, groups: Counts, logs: NDArray[np.float64]) -> float:
    """The entropy of the sizes of groups to expect among m `drawn` examples.

    −Σ F(k) (k / m) ln(k / m), F(k) = Σ C(x, k) C(n − x, m − k) / C(n, m) the expected number of groups of k
    (Chao et al. 2014).
    """
    examples = len(logs) - 1
    total = logs[examples] - logs[drawn] - logs[examples - drawn]
    entropy = 0.0
    for place in range(len(sizes)):
        size, number = sizes[place], groups[place]
        left = examples - size
        for members in range(max(1, drawn - left), min(size, drawn) + 1):
            log = logs[size] - logs[members] - logs[size - members] - total
            log += logs[left] - logs[drawn - members] - logs[left - drawn + members]
            share = members / drawn
            entropy -= number * math.exp(log) * share * math.log(share)
    return entropy


@njit(nogil=True, cache=True)
def _whole_entropy(counts: Counts, seen: float) -> float:
    """The entropy of all that the examples are a sample of (Chao, Wang & Jost 2013, equation 6).

    Σ (x / n) (ψ(n) − ψ(x)) + (f₁ / n) (1 − A)^(1 − n) (−ln A − Σ_{r < n} (1 − A)^r / r), A = `seen`. Where the
    examples cover less than a share c, A is at most about c / (1 − c) n, so that little cancels.
    """
    examples = len(counts) - 1
    entropy = harmonic = 0.0  # ψ(n) − ψ(x) is Σ 1 / k over x ≤ k < n
    for size in range(examples - 1, 0, -1):
        harmonic += 1 / size
        entropy += counts[size] * size / examples * harmonic
    rest, power = -math.log(seen), 1.0
    for place in range(1, examples):
        power *= 1 - seen
        rest -= power / place
    return float(entropy + counts[1] / examples * rest / power)


class Richness(NamedTuple):
    """A number of groups, those not seen included, and the ends of its 95 % interval."""

    number: float
    low: float
    high: float


def chao1(counts: Counts) -> Richness:
    """The least number of groups that these frequencies let expect, and its 95 % interval.

    S + a f₁² / 2 f₂ or, without a group of two, S + a f₁ (f₁ − 1) / 2, S the groups seen and
    a = (n − 1) / n (Chao 1984); its variance and log-normal interval, which begins above S, are those of
    Chao (1987). The interval is NaN where nothing is seen once only; all are where no two examples
    are of one group. Unclustered examples that are of a known behaviour make it too high.
    """
    examples, seen = len(counts) - 1, int(counts.sum())
    if examples < 2 or seen == examples:
        return Richness(np.nan, np.nan, np.nan)
    ones, twos = int(counts[1]), int(counts[2])
    share = (examples - 1) / examples
    if twos:
        ratio = ones / twos
        unseen = share * ones * ratio / 2
        variance = twos * (share * ratio**2 / 2 + share**2 * ratio**3 + share**2 * ratio**4 / 4)
    else:
        unseen = share * ones * (ones - 1) / 2
        variance = share * ones * (ones - 1) / 2 + share**2 * ones * (2 * ones - 1) ** 2 / 4
        variance -= share**2 * ones**4 / (4 * (seen + unseen))
    if not unseen:
        return Richness(seen, np.nan, np.nan)
    factor = math.exp(_NORMAL_95 * math.sqrt(math.log(1 + variance / unseen**2)))
    return Richness(seen + unseen, seen + unseen / factor, seen + unseen * factor)


class StandardInterval(NamedTuple):
    """Ends of a 90 % interval."""

    low: float
    high: float


def standard_interval(number: float, again: Sequence[float]) -> StandardInterval:
    """A 90 % interval of the effective number at a coverage, from that of half-samples.

    number ± 1.645 s, never below 1, s the standard deviation over half-samples that reach the
    coverage: drawn without replacement, they move a number as much as the whole would move from
    sample to sample (Politis, Romano & Wolf 1999). NaN with fewer than two of them.
    """
    known = np.asarray(again, np.float64)
    known = known[~np.isnan(known)]
    if len(known) < 2 or np.isnan(number):
        return StandardInterval(np.nan, np.nan)
    reach = _NORMAL_90 * float(known.std(ddof=1))
    return StandardInterval(max(1.0, number - reach), number + reach)

"""Diversity at equal coverage: against enumeration, on communities that are known, and where there is little to see."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atlas_builder.cluster.diversity import (
    STANDARD_COVERAGE,
    DiversityMeasures,
    chao1,
    diversity_measures,
    effective_number,
    frequency_counts,
    sample_coverage,
    standard_interval,
)
from atlas_builder.records.measures import MEASURES
from atlas_builder.verify.diversity import diversity_numbers

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=14)


def labels_of(groups: NDArray[np.integer] | list[int]) -> NDArray[np.int32]:
    """Labels of examples from the group of each: those alone in theirs are unclustered."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    number = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)
    return np.asarray(number[group], np.int32)


def of_sizes(*sizes: int) -> NDArray[np.int32]:
    return labels_of(np.repeat(np.arange(len(sizes)), sizes))


def counts_of(*sizes: int) -> NDArray[np.int64]:
    return np.asarray(frequency_counts(of_sizes(*sizes)))


def test_frequencies_count_unclustered_examples_as_groups_of_one() -> None:
    assert counts_of(3, 1, 2, 1, 3).tolist() == [0, 2, 1, 2, *[0] * 7]
    assert frequency_counts(np.zeros(0, np.int32)).tolist() == [0]


def test_coverage_by_hand() -> None:
    # n = 10, two of one, one of two: 1 − (2 / 10) · 9 · 2 / (9 · 2 + 2 · 1).
    assert sample_coverage(counts_of(6, 2, 1, 1)) == pytest.approx(1 - 0.2 * 18 / 20)
    # No group of two: 1 − (3 / 10) · 9 · 2 / (9 · 2 + 2).
    assert sample_coverage(counts_of(7, 1, 1, 1)) == pytest.approx(1 - 0.3 * 18 / 20)
    assert sample_coverage(counts_of(7, 3)) == 1


def _expected(sizes: tuple[int, ...], drawn: int) -> tuple[Fraction, float]:
    """Mean coverage and the entropy of the mean frequencies over all subsets of so many examples."""
    owners = [group for group, size in enumerate(sizes) for _ in range(size)]
    subsets = [Counter(subset) for subset in combinations(owners, drawn)]
    share = Fraction(0)
    for subset in subsets:  # the share of the examples left whose group is among those drawn
        left = [size - subset[group] for group, size in enumerate(sizes) if subset[group]]
        share += Fraction(sum(left), len(owners) - drawn)
    frequency = Counter(count for subset in subsets for count in subset.values())
    entropy = -sum(times / len(subsets) * k / drawn * math.log(k / drawn) for k, times in frequency.items())
    return share / len(subsets), entropy


@pytest.mark.parametrize("sizes", [(5, 3, 2, 1), (4, 4, 1, 1), (6, 2, 2), (3, 2, 2, 1, 1), (9, 1), (2, 2, 2, 2, 2)])
def test_rarefaction_is_the_mean_over_all_subsets(sizes: tuple[int, ...]) -> None:
    examples = sum(sizes)
    points = [_expected(sizes, drawn) for drawn in range(1, examples)]
    for (under, fewer), (over, enough) in pairwise(points):
        for part in (0.25, 1.0):
            target = float(under + Fraction(part) * (over - under))
            if over > under:
                wanted = (1 - part) * math.exp(fewer) + part * math.exp(enough)
                assert effective_number(counts_of(*sizes), target) == pytest.approx(wanted)


def test_one_example_may_cover_enough() -> None:
    assert effective_number(counts_of(15, 5), 0.5) == 1
    assert effective_number(counts_of(20), 0.5) == 1


def test_extrapolation_begins_where_the_examples_end_and_stops_at_twice_as_many() -> None:
    counts = counts_of(12, 8, 3, 2, *[1] * 15)
    covered = sample_coverage(counts)
    seen = effective_number(counts, covered)
    assert seen == pytest.approx(math.exp(-sum(s / 40 * math.log(s / 40) for s in (12, 8, 3, 2, *[1] * 15))))
    numbers = [effective_number(counts, covered + more) for more in (1e-6, 0.02, 0.05, 0.1)]
    assert numbers == sorted(numbers)
    assert numbers[0] == pytest.approx(seen, rel=1e-3)
    assert math.isnan(effective_number(counts, 0.99))
    assert not math.isnan(effective_number(counts, 0.99, 100_000))


def test_half_of_the_examples_alone_is_decided_without_rounding() -> None:
    """Coverage approaches one half from below, and reaches it only where no more of the others is missed."""
    counts = counts_of(25, *[1] * 25)
    near = [effective_number(counts, 0.5 - shift) for shift in (0, 1e-13, -1e-13)]
    assert near == pytest.approx([near[0]] * 3, rel=1e-6)
    assert 1 < near[0] < 10


@given(SIZES)
@settings(deadline=None, max_examples=60)
def test_verify_finds_the_same(sizes: list[int]) -> None:
    """Exact fractions against logarithms of factorials."""
    labels = of_sizes(*sizes)
    half = labels[::2].copy()
    found = diversity_measures(labels, [half, half])
    clusters = [np.flatnonzero(labels == number).tolist() for number in range(labels.max() + 1)]
    again = [np.flatnonzero(half == number).tolist() for number in range(labels.max() + 1)]
    again = [members for members in again if members]
    wanted = diversity_numbers(len(labels), clusters, [(len(half), again)] * 2, known=True)
    for name, value in found._asdict().items():
        assert value == pytest.approx(wanted[name], rel=1e-9, nan_ok=True), name


@given(SIZES)
@settings(deadline=None)
def test_what_always_holds(sizes: list[int]) -> None:
    shuffled = list(sizes)
    np.random.default_rng(len(sizes)).shuffle(shuffled)
    counts = counts_of(*sizes)
    assert counts_of(*shuffled).tolist() == counts.tolist()
    assert 0 <= sample_coverage(counts) <= 1
    numbers = [effective_number(counts, coverage) for coverage in (0.2, 0.5, 0.8)]
    known = [number for number in numbers if not math.isnan(number)]
    assert known == sorted(known)
    if sample_coverage(counts) >= 0.8 and sum(sizes) > 1:
        assert 1 <= numbers[-1] <= len(sizes) + 1e-9
    richness = chao1(counts)
    if not math.isnan(richness.number):
        assert richness.number >= len(sizes)
    if not math.isnan(richness.low):
        assert len(sizes) <= richness.low <= richness.number <= richness.high


def test_richness_by_hand() -> None:
    # 6 groups, f₁ = 3, f₂ = 2, n = 20: 6 + (19 / 20) · 9 / 4.
    richness = chao1(counts_of(9, 4, 2, 2, 1, 1, 1))
    assert richness.number == pytest.approx(7 + 0.95 * 9 / 4)
    unseen, ratio = 0.95 * 9 / 4, 1.5
    variance = 2 * (0.95 * ratio**2 / 2 + 0.95**2 * ratio**3 + 0.95**2 * ratio**4 / 4)
    factor = math.exp(1.959964 * math.sqrt(math.log(1 + variance / unseen**2)))
    assert richness[1:] == pytest.approx((7 + unseen / factor, 7 + unseen * factor))
    assert chao1(counts_of(17, 1, 1, 1)).number == pytest.approx(4 + 0.95 * 3)
    for sizes in ((12, 8), (19, 1)):  # nothing that is not seen is expected
        found = chao1(counts_of(*sizes))
        assert found.number == 2
        assert np.isnan(found[1:]).all()
    assert np.isnan(chao1(counts_of(*[1] * 30))).all()


def test_the_standard_deviation_of_halves_makes_the_interval() -> None:
    low, high = standard_interval(3.0, [2.0, 3.0, 4.0, math.nan])
    assert (low, high) == pytest.approx((3 - 1.6449, 3 + 1.6449), abs=1e-4)
    assert standard_interval(1.2, [1.0, 3.0]).low == 1
    assert np.isnan(standard_interval(3.0, [2.0, math.nan])).all()
    assert np.isnan(standard_interval(math.nan, [2.0, 3.0])).all()


COMMUNITIES = {
    "geometric": 0.85 ** np.arange(60),
    "equal": np.ones(20),
    "log-normal": np.exp(np.random.default_rng(0).normal(0, 1.5, 100)),
}


@pytest.mark.parametrize("community", COMMUNITIES)
def test_fifty_and_a_hundred_examples_of_one_community_tell_the_same(community: str) -> None:
    """While the effective number of what is seen grows, and the richness expected is at most the true one."""
    shares = COMMUNITIES[community] / COMMUNITIES[community].sum()
    chance = np.random.default_rng(1)
    drawn = {
        examples: [counts_of_draw(chance.choice(len(shares), examples, p=shares)) for _ in range(150)]
        for examples in (50, 100, 3000)
    }
    numbers = {n: np.array([effective_number(c, STANDARD_COVERAGE) for c in drawn[n]]) for n in drawn}
    truth = numbers[3000].mean()
    for examples in (50, 100):
        known = numbers[examples][~np.isnan(numbers[examples])]
        assert len(known) > 140
        assert known.mean() == pytest.approx(truth, rel=0.08)
    assert numbers[100].std() < numbers[50].std()
    least = [chao1(counts).number for counts in drawn[100]]
    assert np.mean(least) < 1.1 * len(shares)


def counts_of_draw(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.asarray(frequency_counts(labels_of(groups)))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    shares = COMMUNITIES["geometric"] / COMMUNITIES["geometric"].sum()
    chance = np.random.default_rng(2)
    truth = effective_number(counts_of_draw(chance.choice(60, 100_000, p=shares)), STANDARD_COVERAGE)
    holds = 0
    for _ in range(200):
        drawn = chance.choice(60, 100, p=shares)
        found = diversity_measures(labels_of(drawn), [labels_of(chance.permutation(drawn)[:50]) for _ in range(10)])
        holds += found.standard_low <= truth <= found.standard_high
    assert 0.84 <= holds / 200 <= 0.97


@pytest.mark.parametrize("examples", [0, 1, 2, 9])
def test_too_few_examples_have_no_estimate(examples: int) -> None:
    assert np.isnan(diversity_measures(np.zeros(examples, np.int32), [])).all()
    assert np.isnan(diversity_measures(np.full(examples, -1, np.int32), [])).all()
    assert np.isnan(effective_number(frequency_counts(np.zeros(min(examples, 1), np.int32)), 0.5))


def test_one_group_and_none_are_defined() -> None:
    halves = [np.zeros(50, np.int32)] * 10
    one = diversity_measures(np.zeros(100, np.int32), halves)
    assert one[:5] == (1, 1, 1, 1, 1)
    assert np.isnan(one[5:]).all()
    none = diversity_measures(np.full(100, -1, np.int32), [np.full(50, -1, np.int32)] * 10)
    assert 0 < none.sample_coverage < 0.001
    assert np.isnan(none[1:]).all()


def test_no_estimate_from_the_highest_or_where_pairs_are_hidden() -> None:
    labels = of_sizes(10, 5, 2, 1)
    assert not np.isnan(diversity_measures(labels, [])[:2]).any()
    assert np.isnan(diversity_measures(labels, [], random=False)).all()
    assert np.isnan(diversity_measures(labels, [], min_size=3)).all()
    assert np.isnan(diversity_measures(labels, [])[2:4]).all()


def test_the_title_names_the_coverage() -> None:
    title = next(measure.title for measure in MEASURES if measure.name == "standard_behaviours")
    assert f"{STANDARD_COVERAGE:.0%}".replace("%", " %") in title
    assert {measure.name for measure in MEASURES} >= set(DiversityMeasures._fields)

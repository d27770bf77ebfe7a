"""Percentiles and equal bins of a histogram, against the formula in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.errors import SiteError
from atlas_builder.export.distribution import Distribution

Histogram = tuple[list[float], list[int], float, float]


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    """Edges that rise, counts without empty ends, and extremes within the outermost bins, on either side of zero."""
    steps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    first = draw(st.integers(-200, 100))
    edges = [step / 8 for step in accumulate(steps, initial=first)]
    counts = draw(st.lists(st.integers(0, 50), min_size=len(steps), max_size=len(steps)))
    counts[0] += 1
    counts[-1] += 1
    low = draw(st.floats(edges[0], edges[1]))
    high = draw(st.floats(max(low, edges[-2]), edges[-1]))
    return edges, counts, low, high


def below(histogram: Histogram, value: Fraction) -> Fraction:
    """F of the formula; of a bin without width, all tokens lie below what is above it."""
    edges, counts, low, high = histogram
    moved = [Fraction(low), *(Fraction(min(max(edge, low), high)) for edge in edges[1:-1]), Fraction(high)]
    total = Fraction(0)
    for count, (start, end) in zip(counts, pairwise(moved), strict=True):
        if value >= end:
            total += count if value > start or start == end else 0
        elif value > start:
            total += count * (value - start) / (end - start)
    return total


@settings(deadline=None)
@given(histograms())
def test_a_percentile_is_the_least_value_with_so_many_tokens_below(histogram: Histogram) -> None:
    edges, counts, low, high = histogram
    total = sum(counts)
    found = Distribution(edges, counts, low, high).percentiles()
    assert len(found) == 100
    assert found == sorted(found)
    assert found[-1] == high
    little = Fraction(high - low) / 10**9 + Fraction(1, 10**9)
    for part in (1, 2, 10, 50, 90, 99, 100):
        value = found[part - 1]
        assert low <= value <= high
        rank = Fraction(part * total, 100)
        assert below(histogram, Fraction(value) + little) >= rank or value == high
        assert below(histogram, Fraction(value) - little) < rank or value == low


@settings(deadline=None)
@given(histograms(), st.integers(1, 40))
def test_equal_bins_have_the_tokens_between_their_edges(histogram: Histogram, number: int) -> None:
    edges, counts, low, high = histogram
    found = Distribution(edges, counts, low, high).bars(number)
    assert len(found) == number
    assert sum(found) == sum(counts)
    assert min(found) >= 0
    width = (Fraction(high) - Fraction(low)) / number
    if not width:
        return
    seen = 0
    for place, count in enumerate(found[:-1], 1):
        seen += count
        cut = Fraction(low) + width * place
        # A cut that rounding moved past an edge may take what lies at it: half a token of rounding, and a little.
        assert below(histogram, cut - width / 10**6) - 1 <= seen <= below(histogram, cut + width / 10**6) + 1


def test_bins_that_fit_are_kept_as_they_are() -> None:
    spread = Distribution([0, 1, 2, 3, 4], [4, 0, 3, 1], 0, 4)
    assert spread.bars(4) == [4, 0, 3, 1]
    assert spread.percentiles(8) == [0.25, 0.5, 0.75, 1.0, 2 + 1 / 3, 2 + 2 / 3, 3.0, 4.0]


def test_a_unit_that_is_always_the_same_and_one_without_tokens_have_a_distribution() -> None:
    still = Distribution([-0.5, 0.5], [7], 0, 0)
    assert still.percentiles() == [0] * 100
    assert still.bars(4) == [7, 0, 0, 0]
    none = Distribution([], [], 0, 0)
    assert none.percentiles() == [0] * 100
    assert none.bars(4) == [0] * 4


@pytest.mark.parametrize(
    "damaged",
    [([0, 1], [1, 2], 0, 1), ([1, 0], [1], 0, 1), ([0, 1], [-1], 0, 1), ([0, 1], [1], 1, 0), ([0.0], [], 0, 1)],
)
def test_what_is_no_histogram_is_refused(damaged: tuple[list[float], list[int], float, float]) -> None:
    with pytest.raises(SiteError):
        Distribution(*damaged)

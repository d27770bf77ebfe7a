"""How examples are selected, context by context, against the whole list of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atlas_builder.collect import candidates, selection
from atlas_builder.collect.candidates import Pool
from atlas_builder.collect.histogram import LOWEST, PEAK_BINS, counts_above
from atlas_builder.collect.sampling import stream
from atlas_builder.collect.selection import SelectedExamples, SelectionRule
from atlas_builder.collect.statistics import count_peaks, empty_tally, no_counts
from atlas_builder.config import ExampleSettings
from tests.support import reference

LAYER, UNIT = 3, 1  # of two units with two signs
COLUMN = 2 * UNIT + 1

# Few different values, so that many are equal and lie on a border, and a few far apart.
tied = st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, 4.0, 5.0, 10.0])
fine = st.floats(2.0**-20, 100, width=32)
keys_of_a_column = st.lists(tied, max_size=60) | st.lists(tied | fine, max_size=60) | st.lists(fine, max_size=200)
rules = st.builds(
    reference.Rule,
    policy=st.sampled_from(["threshold", "robust", "robust", "top"]),
    per_unit=st.integers(8, 20),
    threshold=st.sampled_from([0.25, 0.75, 1.0]),
    share=st.sampled_from([0.2, 0.5, 0.7, 1.0]),
    least=st.integers(1, 8),
    weakest=st.sampled_from([0.0, 0.1, 0.2]),
    seed=st.integers(0, 2**40),
)


class Column:
    """The negative side of a unit, shown its contexts one by one, in a pool that is soon full."""

    def __init__(self, rule: reference.Rule) -> None:
        settings = ExampleSettings(**vars(rule))
        self.rule: SelectionRule = selection.selection_rule(settings, 2, 2, stream(rule.seed, LAYER))
        self.pool: Pool = candidates.empty_pool(4, rule.per_unit + 1)
        self.bounds: list[float] = []
        self.maxima: list[float] = []

    def show(self, context: int, key: float) -> None:
        if key >= self.rule.bound[COLUMN]:
            selection.raise_highest(self.rule, COLUMN, np.float32(key))
            offer = (COLUMN, np.float32(key), context, 0, 0)
            if not selection.consider(self.rule, self.pool, *offer):
                self.pool = candidates.widened(self.pool, 2 * self.pool.value.shape[1])
                selection.consider(self.rule, self.pool, *offer)
                selection.consider(self.rule, self.pool, *offer)  # a batch is shown again
        self.bounds.append(float(self.rule.bound[COLUMN]))
        self.maxima.append(float(selection.robust_maxima(self.rule)[COLUMN]))

    def merge(self, other: Column) -> None:
        selection.merge(self.rule, other.rule)
        union = candidates.joined(candidates.candidates(self.pool), candidates.candidates(other.pool))
        self.pool = candidates.filled(4, self.pool.value.shape[1], union)

    def selected(self) -> SelectedExamples:
        return selection.select(self.rule, self.pool)


def chosen(selected: SelectedExamples) -> list[int]:
    assert (selected.examples.column == COLUMN).all()
    return selected.examples.context.tolist()


def select(keys: list[float], rule: reference.Rule) -> list[int]:
    """What is selected, and the slow way too."""
    column = Column(rule)
    for context, key in enumerate(keys):
        column.show(context, key)
    found = chosen(column.selected())
    assert found == reference.select(keys, rule, LAYER, UNIT, -1)
    return found


@settings(deadline=None)
@given(keys_of_a_column, rules, st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_order_of_contexts_shards_and_full_pools_leave_no_trace(
    keys: list[float], rule: reference.Rule, chance: Any, shards: int
) -> None:
    order = list(range(len(keys)))
    chance.shuffle(order)
    parts = [Column(rule) for _ in range(shards)]
    for place, context in enumerate(order):
        parts[place % shards].show(context, keys[context])
    for other in parts[1:]:
        parts[0].merge(other)
    selected = parts[0].selected()
    wanted = reference.select(keys, rule, LAYER, UNIT, -1) if keys else []
    assert chosen(selected) == wanted
    if rule.policy == "robust":
        assert selected.robust[COLUMN] == reference.robust_maximum(keys)
    near = sum(key >= reference.borders(keys, rule)[0] for key in keys if key > 0) if keys else 0
    if rule.policy != "top":
        assert min(selected.qualify[COLUMN], rule.per_unit) == min(near, rule.per_unit)


@settings(deadline=None)
@given(keys_of_a_column, rules)
def test_robust_maximum_and_bound_never_decrease(keys: list[float], rule: reference.Rule) -> None:
    column = Column(rule)
    for context, key in enumerate(keys):
        column.show(context, key)
        if rule.policy == "robust":
            assert column.maxima[-1] == reference.robust_maximum(keys[: context + 1])
    assert column.maxima == sorted(column.maxima)
    assert column.bounds == sorted(column.bounds)


ROBUST = reference.Rule("robust", per_unit=20, share=0.5, least=10, weakest=0.2)


def drawn(low: float, high: float, count: int) -> list[float]:
    return np.random.default_rng(0).uniform(low, high, count).astype(np.float32).tolist()


def test_an_outlier_does_not_leave_a_unit_with_one_example() -> None:
    keys = [*drawn(0.8, 1, 300), 10.0]
    assert len(select(keys, replace(ROBUST, policy="threshold"))) == 1
    # R is about 1.9: those above 0.95 qualify, the outlier as one of them.
    found = select(keys, ROBUST)
    assert len(found) == 20
    border = 0.5 * reference.robust_maximum(keys)
    assert all(keys[context] >= border for context in found)


def test_where_few_contexts_qualify_the_highest_are_taken_without_the_weakest() -> None:
    keys = [*[10.0] * 5, *drawn(2, 3, 50), *drawn(0, 1, 50)]  # R is about 6.5
    assert sorted(keys[context] for context in select(keys, ROBUST)) == sorted(sorted(keys, reverse=True)[:10])
    keys = [*[10.0] * 5, *drawn(0, 1, 50)]  # R is about 5.5, its fifth above all others
    assert select(keys, ROBUST) == [0, 1, 2, 3, 4]
    assert select([0.0, 3.0, 0.0], ROBUST) == [1]
    assert select([0.0, 0.0], ROBUST) == []


def test_of_equals_those_that_come_first_fill_up() -> None:
    keys = [4.0, *[1.0] * 30, 4.0, 4.0]  # R is 1.9: three qualify
    assert select(keys, replace(ROBUST, share=0.6)) == [0, 31, 32, 1, 2, 3, 4, 5, 6, 7]
    assert len(select([2.5] * 7, ROBUST)) == 7
    assert len(set(select([2.5] * 70, ROBUST))) == 20  # a sample of all


def peaks_of(values: list[float]) -> NDArray[np.uint32]:
    """The histogram of contexts of one unit with these peaks, and their opposites on the other side."""
    tally, counts = empty_tally(1, 2), no_counts()
    for value in values:
        counts.high[0], counts.low[0] = value, -value
        count_peaks(1, 0, 2, counts, tally)
    np.testing.assert_array_equal(tally.peaks[0], tally.peaks[1])
    return tally.peaks[:1]


def test_contexts_that_reach_a_threshold_are_counted_by_the_bin() -> None:
    peaks = peaks_of([0.0, -1.0, 2.0**-149, 2.0**LOWEST, 1.0, 1.1, 1.25, 1.3, 1.9, 1e6])
    assert peaks.shape == (1, PEAK_BINS)
    assert peaks.sum() == 8  # those above zero
    for threshold, count in ((0, 8), (2.0**LOWEST, 7), (1.0, 6), (1.125, 5), (1.25, 4), (1.5, 2), (2.0, 1), (1e9, 0)):
        assert counts_above(peaks, np.array([threshold]))[0] == count


@settings(deadline=None)
@given(st.lists(fine, min_size=1, max_size=300), st.floats(2.0**-10, 200))
def test_the_count_is_off_by_less_than_the_contexts_of_a_bin(values: list[float], threshold: float) -> None:
    (count,) = counts_above(peaks_of(values), np.array([threshold]))
    assert sum(value >= threshold * 1.25 for value in values) <= count
    assert count <= sum(value >= threshold / 1.25 for value in values)

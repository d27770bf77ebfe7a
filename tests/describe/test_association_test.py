from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from atlas_builder.describe.association_test import (
    LEAST_CONTEXTS,
    NAMED_P,
    AssociationScores,
    association_test,
)
from tests.support.associations import clustered_draws, shifted_by_contexts


def slow_effect(values: list[float], side: list[int], having: list[bool]) -> float:
    """The effect by its definition: over all pairs of rows of one side, one with the attribute and one without."""
    wins, pairs = 0.0, 0
    for one, first, with_it in zip(values, side, having, strict=True):
        for other, second, without in zip(values, side, having, strict=True):
            if with_it and not without and first == second and not math.isnan(one) and not math.isnan(other):
                wins += (one > other) + (one == other) / 2
                pairs += 1
    return wins / pairs - 0.5 if pairs else math.nan


def slow_test(values: Any, side: Any, context: Any, attributes: Any) -> tuple[list[float], list[float]]:
    """Effects and p by the definition, from every shift by whole contexts, row by row."""
    rows = sorted((row for row in range(len(values)) if not math.isnan(values[row])), key=lambda row: context[row])
    values, side, context = (np.asarray(column)[rows].tolist() for column in (values, side, context))
    columns = [[bool(attributes[row][place]) for row in rows] for place in range(len(attributes[0]))]
    effects = [slow_effect(values, side, column) for column in columns]
    tested = []
    for column, effect in zip(columns, effects, strict=True):
        some = {where for where, has in zip(context, column, strict=True) if has}
        without = {where for where, has in zip(context, column, strict=True) if not has}
        tested.append(min(len(some), len(without)) >= LEAST_CONTEXTS and not math.isnan(effect))

    every = sorted(set(context))
    scores = []
    for shift in range(max(1, len(every))):
        sources = [source_of(row, shift, every, side, context) for row in range(len(values))]
        scores.append([slow_score(values, side, [column[row] for row in sources]) for column in columns])
    deviation = [math.sqrt(sum(row[place] ** 2 for row in scores) / len(scores)) for place in range(len(columns))]
    size = [
        [abs(one) / of if of and is_tested else 0.0 for one, of, is_tested in zip(row, deviation, tested, strict=True)]
        for row in scores
    ]
    p = [
        sum(max(row) >= size[0][place] - 1e-12 for row in size) / len(size) if tested[place] else math.nan
        for place in range(len(tested))
    ]
    return effects, p


def source_of(row: int, shift: int, every: list[int], side: list[int], context: list[int]) -> int:
    """The row whose attributes a row gets when contexts are shifted."""
    own = {where: [n for n in range(len(side)) if (context[n], side[n]) == (where, side[row])] for where in every}
    at = (every.index(context[row]) + shift) % len(every)
    while not own[every[at]]:
        at = (at + 1) % len(every)
    return own[every[at]][own[context[row]].index(row) % len(own[every[at]])]


def slow_score(values: list[float], side: list[int], having: list[bool]) -> float:
    """Of all rows with the attribute, the rows of their side that are lower, less those that are higher."""
    of_row = [
        sum((one > other) - (one < other) for other, second in zip(values, side, strict=True) if first == second)
        for one, first in zip(values, side, strict=True)
    ]
    return float(sum(score for score, with_it in zip(of_row, having, strict=True) if with_it))


@st.composite
def small_units(draw: st.DrawFn) -> tuple[list[float], list[int], list[int], list[list[bool]]]:
    """Few different values, so that many tie; some contexts of several rows, both sides or one."""
    rows = draw(st.integers(1, 24))
    value = st.sampled_from([0.0, 1.0, 1.5, 2.0, -3.0, math.inf, math.nan])
    return (
        draw(st.lists(value, min_size=rows, max_size=rows)),
        draw(st.lists(st.integers(0, draw(st.integers(0, 1))), min_size=rows, max_size=rows)),
        draw(st.lists(st.integers(-2, 16), min_size=rows, max_size=rows)),
        draw(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=rows, max_size=rows)),
    )


@settings(max_examples=60, deadline=None)
@given(unit=small_units())
def test_effects_and_p_are_those_of_the_definition_ties_included(unit: Any) -> None:
    scores = association_test(*unit, rolls=1000)
    effect, p = slow_test(*unit) if not all(map(math.isnan, unit[0])) else ([math.nan] * 2, [math.nan] * 2)
    np.testing.assert_allclose(scores.effect, effect, atol=1e-12)
    np.testing.assert_allclose(scores.p, p, atol=1e-12)
    assert (scores.tested == ~np.isnan(p)).all()


def test_p_is_that_of_the_definition_where_attributes_are_tested() -> None:
    drawn = np.random.default_rng(3)
    values, side, context = drawn.integers(0, 6, 60), drawn.integers(0, 2, 60), drawn.integers(0, 20, 60)
    unit = (values, side, context, drawn.random((60, 2)) < 0.5)
    scores = association_test(*unit, rolls=1000)
    assert scores.tested.all()
    np.testing.assert_allclose(scores.p, slow_test(*unit)[1], atol=1e-12)


def test_on_one_side_the_effect_is_that_of_mann_and_whitney() -> None:
    drawn = np.random.default_rng(0)
    values, having = drawn.integers(0, 30, 300), drawn.random(300) < 0.3
    effect = association_test(values, np.ones(300), np.arange(300), having[:, None]).effect[0]
    u = mannwhitneyu(values[having], values[~having]).statistic
    assert effect == pytest.approx(u / having.sum() / (~having).sum() - 0.5)


def test_what_goes_with_the_side_alone_has_no_effect() -> None:
    side = np.repeat([0, 1], 100)
    values = np.concatenate([np.tile(np.arange(50), 2), 100 + np.tile(np.arange(50), 2)])
    rarely, often = np.tile([False] * 5 + [True] * 5, 10), np.tile([True] * 5 + [False] * 5, 10)
    mostly_there = np.concatenate([rarely & (np.arange(100) % 3 == 0), often | (np.arange(100) % 3 == 0)])
    together = association_test(values, side, np.arange(200), np.stack([side == 1, mostly_there], 1))
    alone = association_test(values, np.zeros(200), np.arange(200), np.stack([side == 1, mostly_there], 1))
    assert np.isnan(together.effect[0])
    assert np.isnan(together.p[0])
    assert not together.tested[0]
    assert abs(together.effect[1]) < 0.1 < alone.effect[1]
    assert alone.effect[0] == 0.5


@pytest.mark.parametrize("having", [np.zeros(40, bool), np.ones(40, bool), np.arange(40) < LEAST_CONTEXTS - 1])
def test_an_attribute_of_no_all_or_few_contexts_is_not_tested(having: np.ndarray) -> None:
    for column in (having, ~having):
        scores = association_test(np.arange(40.0), np.zeros(40), np.arange(40), column[:, None])
        assert not scores.tested.any()
        assert np.isnan(scores.p).all()
        assert not len(scores.named())


def test_without_rows_nothing_is_tested() -> None:
    for values in ([], [math.nan]):
        rows = len(values)
        scores = association_test(values, np.zeros(rows), np.zeros(rows), np.ones((rows, 3)))
        assert np.isnan(scores.effect).all()
        assert np.isnan(scores.p).all()
        assert not scores.tested.any()
    none = association_test([1.0, 2.0], [0, 1], [0, 1], np.zeros((2, 0)))
    assert none.effect.shape == none.p.shape == none.tested.shape == (0,)


def test_rows_without_a_value_count_for_nothing() -> None:
    values, side, context, attributes = clustered_draws(np.random.default_rng(0), per_band=20, attributes=30)
    whole = association_test(values, side, context, attributes)
    more = np.concatenate([values, np.full(50, np.nan)])
    with_nan = association_test(
        more,
        np.concatenate([side, np.arange(50) % 2]),
        np.concatenate([context, np.arange(50)]),
        np.concatenate([attributes, np.ones((50, 30), bool)]),
    )
    equal(whole, with_nan)


def test_rows_come_in_any_order() -> None:
    drawn = np.random.default_rng(0)
    values, side, context, attributes = clustered_draws(drawn, per_band=30, attributes=30)
    position = drawn.permutation(len(values))
    scores = association_test(values, side, context, attributes, position=position)
    order = drawn.permutation(len(values))
    mixed = (array[order] for array in (values, side, context, attributes))
    equal(scores, association_test(*mixed, position=position[order]))


def test_values_of_one_size_are_associated_with_nothing() -> None:
    having = np.arange(100) % 3 == 0
    scores = association_test(np.ones(100), np.zeros(100), np.arange(100), having[:, None])
    assert scores.tested[0]
    assert scores.effect[0] == 0
    assert scores.p[0] == 1


def test_the_seed_alone_decides_which_shifts_are_taken() -> None:
    values, side, context, attributes = clustered_draws(np.random.default_rng(0), attributes=40)
    first, again, other = (association_test(values, side, context, attributes, seed=seed) for seed in (5, 5, 6))
    equal(first, again)
    assert (first.effect == other.effect)[first.tested].all()
    assert (first.p != other.p)[first.tested].any()


@pytest.mark.parametrize("lacking", ["side", "context", "position", "attributes"])
def test_shapes_that_do_not_fit_are_named(lacking: str) -> None:
    arrays: dict[str, Any] = {"side": [0, 1], "context": [0, 1], "position": [0, 1], "attributes": [[0], [1]]}
    with pytest.raises(ValueError, match=f"^{lacking} must be of .*\\.$"):
        association_test([1.0, 2.0], **{**arrays, lacking: [0]})


def test_a_side_other_than_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match="side must be 0 or 1"):
        association_test([1.0], [2], [0], [[1]])


def test_many_rows_take_the_same_p_as_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, side, context, attributes = clustered_draws(np.random.default_rng(0), attributes=40)
    whole = association_test(values, side, context, attributes)
    monkeypatch.setattr("atlas_builder.describe.association_test._AT_ONCE", 3000)
    equal(whole, association_test(values, side, context, attributes))


def test_a_planted_association_is_found() -> None:
    found = 0
    for unit in range(60):
        values, side, context, attributes = clustered_draws(np.random.default_rng(unit), attributes=100, effect=0.2)
        scores = association_test(values, side, context, attributes, seed=unit)
        found += 0 in scores.named()
    assert found >= 57


def test_attributes_shifted_by_contexts_are_rarely_reported_and_a_plain_test_would_report_them() -> None:
    reported = plain = 0
    for unit in range(60):
        drawn = np.random.default_rng(unit)
        values, side, context, attributes = clustered_draws(drawn, attributes=100)
        attributes = shifted_by_contexts(drawn, context, attributes)
        scores = association_test(values, side, context, attributes, seed=unit)
        reported += len(scores.named()) > 0
        plain += bool((plain_p(scores, attributes)[scores.tested] * scores.tested.sum() <= NAMED_P).any())
    assert reported < 3
    assert plain >= 10


@pytest.mark.parametrize(("sides", "uneven"), [(2, False), (1, True), (2, True)])
def test_sides_that_drift_alike_and_contexts_of_many_rows_are_no_association(sides: int, uneven: bool) -> None:
    reported = 0
    for unit in range(30):
        draws = clustered_draws(np.random.default_rng(unit), attributes=100, effect=0.2, sides=sides, uneven=uneven)
        named = association_test(*draws, seed=unit).named()
        reported += len(set(named.tolist()) - {0}) > 0
    assert reported < 3


def plain_p(scores: AssociationScores, attributes: np.ndarray) -> np.ndarray:
    """p of Mann and Whitney's test on rows of one side, as if they were independent: (attributes,)."""
    rows, having = len(attributes), attributes.sum(axis=0)
    deviation = np.sqrt((rows + 1) / 12 / np.maximum(1, having * (rows - having)))
    return np.array([math.erfc(abs(z) / math.sqrt(2)) for z in scores.effect / deviation])


def equal(first: AssociationScores, second: AssociationScores) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)

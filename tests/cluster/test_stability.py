from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.cluster.clustering import cluster
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.stability import effective_interval, mono_score, stability, stability_measures
from atlas_builder.config import ClusterSettings
from atlas_builder.verify.measures import weighted_similarity
from tests.support.planted import Plant, plant

PAPER = ClusterSettings(method="agglomerative")
METHODS: list[Any] = ["linkage", "hdbscan", "agglomerative", "components"]


def _planted(seed: int) -> np.ndarray:
    """Distances between the examples of a unit of three behaviours."""
    unit = plant(Plant(3), seed)
    return cosine_distances(neuron_embeddings(unit.inputs, unit.read))


# The effective number of behaviours.


def test_the_interval_of_a_case_worked_by_hand() -> None:
    # H = 0.897946 + 2 / 200, V = (1.121621 − 0.806307) / 100 + 2 / 20000, 1.959964 √V = 0.111789.
    low, high = effective_interval(np.array([60, 30, 10]))
    assert low == pytest.approx(np.exp(0.907946 - 0.111789), rel=1e-5)
    assert high == pytest.approx(np.exp(0.907946 + 0.111789), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_interval_of_a_single_behaviour_is_one(size: int) -> None:
    assert effective_interval(np.array([size])) == (1, 1)


def test_no_behaviour_has_no_interval() -> None:
    assert np.isnan(effective_interval(np.zeros(0, np.int64))).all()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_an_interval_begins_at_one_or_above_and_ends_behind_its_start(sizes: list[int]) -> None:
    low, high = effective_interval(np.array(sizes))
    assert 1 <= low <= high


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.6, 0.3, 0.1], [0.2] * 5])
def test_nine_of_ten_intervals_at_least_hold_the_true_number(shares: list[float]) -> None:
    true = np.exp(-sum(share * np.log(share) for share in shares))
    draws = np.random.default_rng(0).multinomial(100, shares, 500)
    intervals = [effective_interval(sizes[sizes > 0]) for sizes in draws]
    assert np.mean([low <= true <= high for low, high in intervals]) >= 0.9
    assert np.median([high - low for low, high in intervals]) < 0.35 * true  # nor does it hold everything


# How alike the examples are.

_strengths = st.lists(st.integers(-32, 32), min_size=0, max_size=9)


def _weights(values: Sequence[float]) -> list[float]:
    strength = [abs(value) for value in values]
    low, high = min(strength, default=0), max(strength, default=0)
    return [(value - low) / (high - low) if high > low else 1.0 for value in strength]


@settings(deadline=None)
@given(_strengths, st.integers(0, 999))
def test_the_mono_score_is_that_of_every_pair(values: list[int], seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(len(values), 5)).astype(np.float32)
    distances = cosine_distances(embeddings)
    above = below = 0.0
    weights = _weights(values)
    for i, j in itertools.combinations(range(len(values)), 2):
        above += weights[i] * weights[j] * (1 - float(distances[i, j]))
        below += weights[i] * weights[j]
    expected = above / below if below else np.nan
    assert mono_score(distances, np.array(values, np.float32)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(_strengths, st.integers(0, 999))
def test_the_mono_score_can_be_read_off_the_sum_of_the_embeddings(values: list[int], seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(len(values), 5))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    weights = np.array(_weights(values))
    square = float((weights**2 * (embeddings**2).sum(axis=1)).sum())
    pairs = float(weights.sum() ** 2 - (weights**2).sum())
    expected = (np.linalg.norm(weights @ embeddings) ** 2 - square) / pairs if pairs > 0 else np.nan
    found = mono_score(cosine_distances(embeddings.astype(np.float32)), np.array(values, np.float32))
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_equal_activations_count_alike() -> None:
    distances = np.array([[0, 0.2, 0.4], [0.2, 0, 0.9], [0.4, 0.9, 0]], dtype=np.float32)
    assert mono_score(distances, np.full(3, 7, np.float32)) == pytest.approx(0.5)
    assert mono_score(distances, np.array([-7, 7, 7], np.float32)) == pytest.approx(0.5)
    assert mono_score(distances[:2, :2], np.array([7, 7], np.float32)) == pytest.approx(0.8)


@pytest.mark.parametrize("score", [mono_score, weighted_similarity])
def test_activations_that_differ_by_rounding_count_alike(score: Callable[..., float]) -> None:
    distances = np.array([[0, 0.2, 0.4], [0.2, 0, 0.9], [0.4, 0.9, 0]])
    values = np.nextafter(np.float32(7), np.array([8, 7, 7], np.float32))
    assert score(distances, values) == pytest.approx(0.5)
    assert score(distances, np.array([7.1, 7.0, 7.0])) != pytest.approx(0.5, nan_ok=True)


def test_fewer_than_two_examples_that_count_have_no_mono_score() -> None:
    assert np.isnan(mono_score(np.zeros((0, 0), np.float32), np.zeros(0, np.float32)))
    assert np.isnan(mono_score(np.zeros((1, 1), np.float32), np.ones(1, np.float32)))
    # The weakest counts for nothing, so two that differ are one.
    assert np.isnan(mono_score(np.array([[0, 0.2], [0.2, 0]], np.float32), np.array([1, 2], np.float32)))


# How stable behaviours are.


def _slow_stability(distances: np.ndarray, labels: np.ndarray, settings: ClusterSettings, seed: int) -> list[float]:
    chance = np.random.default_rng([seed, len(labels)])
    found: list[list[float]] = [[] for _ in range(int(labels.max(initial=-1)) + 1)]
    for _ in range(settings.resamples):
        sample = sorted(chance.permutation(len(labels))[: round(0.5 * len(labels))].tolist())
        again = cluster(distances[np.ix_(sample, sample)], settings)
        clusters = [{sample[i] for i in np.flatnonzero(again == label)} for label in range(int(again.max()) + 1)]
        for label, scores in enumerate(found):
            members = {example for example in sample if labels[example] == label}
            if len(members) >= 2:
                scores.append(max((len(members & other) / len(members | other) for other in clusters), default=0))
    return [sum(scores) / len(scores) if scores else np.nan for scores in found]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(1, 4), st.integers(0, 999))
def test_stability_is_that_of_sets_compared_one_by_one(method: Any, examples: int, most: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    directions = 2 * chance.normal(size=(most, 6))
    owners = chance.integers(most, size=examples)
    distances = cosine_distances((directions[owners] + chance.normal(size=(examples, 6))).astype(np.float32))
    chosen = ClusterSettings(method=method, resamples=4)
    own = cluster(distances, chosen)
    given_by_hand = np.where(chance.random(examples) < 0.2, -1, owners).astype(np.int32)
    for labels in (own, given_by_hand):
        found = stability(distances, labels, chosen, seed)
        np.testing.assert_allclose(found, _slow_stability(distances, labels, chosen, seed), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_behaviours_that_are_far_apart_are_stable(method: Any) -> None:
    for seed in range(3):
        distances = _planted(seed)
        labels = cluster(distances, ClusterSettings(method=method))
        stable = stability(distances, labels, ClusterSettings(method=method))
        assert len(stable) == 3
        assert (stable > 0.9).all()


def test_halves_of_one_behaviour_are_not_stable() -> None:
    for seed in range(3):
        distances = _planted(seed)
        labels = cluster(distances, ClusterSettings())
        torn = np.random.default_rng(seed).permutation(np.flatnonzero(labels == 0))
        labels[torn[: len(torn) // 2]] = 3
        stable = stability(distances, labels, ClusterSettings())
        assert (stable[[0, 3]] < 0.75).all()
        assert (stable[[1, 2]] > 0.9).all()


def test_stability_is_the_same_each_time_and_differs_a_little_with_other_draws() -> None:
    unit = plant(Plant(3, noise=1.0), 0)
    distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
    labels = cluster(distances, PAPER)
    once, again, other = (
        stability(distances, labels, ClusterSettings(method="agglomerative"), seed) for seed in (0, 0, 1)
    )
    assert once.tobytes() == again.tobytes()
    assert once.tobytes() != other.tobytes()


def test_nothing_is_said_of_stability_where_nothing_was_clustered_again() -> None:
    distances = _planted(0)
    labels = cluster(distances, ClusterSettings())
    found = stability(distances, labels, ClusterSettings(resamples=0))
    assert found.shape == (3,)
    assert np.isnan(found).all()
    measures, _ = stability_measures(distances, labels, np.ones(len(labels), np.float32), ClusterSettings(resamples=0))
    assert np.isnan(measures.stability)
    assert measures.effective_high > measures.effective_low > 1


def test_a_unit_without_behaviours_has_no_stability() -> None:
    assert stability(np.zeros((0, 0), np.float32), np.zeros(0, np.int32), ClusterSettings()).shape == (0,)
    assert stability(np.ones((5, 5), np.float32), np.full(5, -1, np.int32), ClusterSettings()).shape == (0,)


def test_a_unit_is_as_stable_as_its_examples_behaviours_are_on_average() -> None:
    unit = plant(Plant(3, noise=1.0), 0)
    distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
    labels = cluster(distances, PAPER)
    measures, stable = stability_measures(
        distances, labels, np.ones(len(labels), np.float32), ClusterSettings(method="agglomerative")
    )
    each = [stable[label] for label in labels if label >= 0 and not np.isnan(stable[label])]
    assert measures.stability == pytest.approx(np.mean(each))
    assert measures.stability != pytest.approx(np.nanmean(stable))  # large behaviours count more


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["identical", "zero", "apart", "nan"])
@pytest.mark.parametrize("values", ["equal", "rising", "zero"])
@pytest.mark.parametrize("examples", [0, 1, 2, 3, 6])
def test_few_or_odd_examples_are_measured_without_a_warning(method: Any, kind: str, values: str, examples: int) -> None:
    inputs = {
        "identical": np.ones((examples, 8)),
        "zero": np.zeros((examples, 8)),
        "apart": np.eye(8)[:examples],
        "nan": np.full((examples, 8), np.nan),
    }[kind].astype(np.float32)
    strength = {"equal": np.ones(examples), "rising": np.arange(examples), "zero": np.zeros(examples)}[values]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distances = cosine_distances(neuron_embeddings(inputs, np.ones((1, 8), np.float32)))
        labels = cluster(distances, ClusterSettings(method=method))
        measures, stable = stability_measures(
            distances, labels, strength.astype(np.float32), ClusterSettings(method=method)
        )
    behaviours = labels.max(initial=-1) + 1
    assert len(stable) == behaviours
    assert np.isnan(measures.effective_low) == np.isnan(measures.effective_high) == (behaviours == 0)
    if kind == "identical" and examples >= 4:  # a half of fewer may hold a single one
        assert measures.stability == 1
        assert measures.mono_score == pytest.approx(1)
    if kind != "identical":
        assert np.isnan(measures.mono_score) or measures.mono_score == pytest.approx(0)


def test_one_example_that_outweighs_all_others_leaves_the_score_a_cosine() -> None:
    distances = np.array([[0, 2, 1], [2, 0, 1], [1, 1, 0]], np.float32)
    assert mono_score(distances, np.array([1, 3.2e-16, 0], np.float32)) == pytest.approx(-1)

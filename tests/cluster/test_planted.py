"""The goals that the defaults of `clusters` are chosen by, on units whose behaviours are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atlas_builder.cluster.clustering import cluster
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.config import ClusterSettings
from tests.support.planted import Plant, Score, plant, score

UNITS = 20


def scores(what: Plant, settings: ClusterSettings) -> list[Score]:
    found = []
    for seed in range(UNITS):
        unit = plant(what, seed)
        distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
        found.append(score(unit.truth, cluster(distances, settings)))
    return found


METHODS: list[Any] = ["agglomerative", "hdbscan"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("behaviours", "examples"), [(1, 20), (1, 100), (2, 100), (3, 20), (5, 100), (5, 200)])
def test_behaviours_that_do_not_overlap_are_found_at_moderate_noise(
    method: Any, behaviours: int, examples: int
) -> None:
    found = scores(Plant(behaviours, examples), ClusterSettings(method=method))
    assert np.mean([each.agreement for each in found]) >= 0.95
    assert np.mean([each.right_number for each in found]) >= 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("behaviours", "examples"), [(2, 100), (5, 100), (3, 500)])
def test_a_behaviour_of_one_example_in_fifty_is_found(method: Any, behaviours: int, examples: int) -> None:
    found = scores(Plant(behaviours, examples, rare=True), ClusterSettings(method=method))
    assert np.mean([each.rare_found for each in found]) >= 0.9


def test_a_noisy_single_behaviour_stays_one() -> None:
    for method in METHODS:
        found = scores(Plant(1, noise=0.8), ClusterSettings(method=method))
        assert np.mean([each.right_number for each in found]) >= 0.95
        assert np.mean([each.noise for each in found]) < 0.05


def test_unrelated_examples_make_no_behaviour() -> None:
    found = scores(Plant(3, background=0.1), ClusterSettings())
    assert np.mean([each.right_number for each in found]) >= 0.9


def test_the_plant_is_what_it_says() -> None:
    unit = plant(Plant(3, 1000, noise=0.6, overlap=0.25), 0)
    distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
    same = unit.truth[:, None] == unit.truth
    within = distances[same & ~np.eye(len(same), dtype=bool)].mean()
    assert within == pytest.approx(1 - 1 / (1 + 0.6**2), abs=0.03)
    assert 1 - distances[~same].mean() == pytest.approx(0.25 / (1 + 0.6**2), abs=0.05)
    assert np.bincount(plant(Plant(2, rare=True), 0).truth).tolist() == [98, 2]


def test_a_score_worked_by_hand() -> None:
    truth = np.array([0, 0, 1, 1, -1])
    assert score(truth, np.array([0, 0, 1, 1, 2], dtype=np.int32)) == Score(1.0, False, True, 0.0)
    assert score(truth, np.array([0, 0, 1, 1, -1], dtype=np.int32)) == Score(1.0, True, True, 0.0)
    lost = score(truth, np.array([0, 0, -1, -1, -1], dtype=np.int32))
    assert (lost.right_number, lost.rare_found, lost.noise) == (False, False, 0.5)

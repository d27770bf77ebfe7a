"""The goals that methods and defaults of `clusters` are chosen by, on units whose behaviours are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.config import ClusterSettings
from tests.support.planted import Kept, Plant, Score, TokenLikeness, kept, plant, score

LINKAGE = ClusterSettings(method="linkage")
CUT = ClusterSettings(method="agglomerative", cut=0.55)
HDBSCAN = ClusterSettings(method="hdbscan")


def scores(what: Plant, *methods: ClusterSettings, units: int = 5) -> list[tuple[str, list[Score]]]:
    planted = [plant(what, seed) for seed in range(units)]
    return [(each.method, [score(unit.truth, unit.labels(each)) for unit in planted]) for each in methods]


def agreement(found: Sequence[Score]) -> float:
    return float(np.mean([each.agreement for each in found]))


def exact(found: Sequence[Score]) -> float:
    return float(np.mean([each.right_number for each in found]))


@pytest.mark.parametrize(("behaviours", "examples"), [(1, 20), (1, 100), (2, 100), (3, 20), (5, 100), (5, 200)])
def test_behaviours_that_do_not_overlap_are_found_at_moderate_noise(behaviours: int, examples: int) -> None:
    for method, found in scores(Plant(behaviours, examples), LINKAGE, CUT, HDBSCAN):
        assert agreement(found) >= 0.98, method
        assert exact(found) >= 0.95, method


@pytest.mark.parametrize(("behaviours", "examples"), [(2, 100), (5, 100), (3, 500)])
def test_a_behaviour_of_one_example_in_fifty_is_found(behaviours: int, examples: int) -> None:
    for method, found in scores(Plant(behaviours, examples, rare=True), LINKAGE, CUT, HDBSCAN, units=3):
        assert all(each.rare_found for each in found), method


def test_a_noisy_single_behaviour_stays_one() -> None:
    for method, found in scores(Plant(1, noise=0.8), LINKAGE, CUT, HDBSCAN):
        assert exact(found) >= 0.95, method
        assert np.mean([each.noise for each in found]) < 0.05, method


@pytest.mark.parametrize(
    "what", [Plant(1, noise=1.0), Plant(3, noise=1.0), Plant(3, overlap=0.25), Plant(3, overlap=0.5)], ids=str
)
def test_linkage_neither_breaks_what_is_noisy_nor_joins_what_overlaps(what: Plant) -> None:
    [(_, found)] = scores(what, LINKAGE, units=8)
    assert agreement(found) >= 0.98
    assert exact(found) >= 0.95


@pytest.mark.parametrize("behaviours", [1, 2, 3, 4, 5])
def test_linkage_finds_behaviours_whose_examples_are_farther_apart_than_the_cut(behaviours: int) -> None:
    loose = Plant(behaviours, noise=1.106, noisiest=1.527)
    (_, found), (_, by_cut) = scores(loose, LINKAGE, CUT, units=12 if behaviours == 1 else 5)
    assert agreement(found) >= 0.9
    assert exact(by_cut) < 0.5


@pytest.mark.parametrize("behaviours", [1, 2, 3, 4, 5])
def test_linkage_and_hdbscan_do_not_see_what_all_inputs_have_in_common(behaviours: int) -> None:
    for method, found in scores(Plant(behaviours, common=5.0), LINKAGE, HDBSCAN, units=3):
        assert agreement(found) >= 0.98, method


@pytest.mark.parametrize(("share", "least"), [(0.1, 0.95), (0.3, 0.75)])
def test_unrelated_examples_make_no_behaviour(share: float, least: float) -> None:
    [(_, found)] = scores(Plant(3, unrelated=share), LINKAGE, units=12)
    assert agreement(found) >= 0.98
    assert exact(found) >= least


def test_few_unrelated_examples_make_no_behaviour_by_the_cut() -> None:
    [(_, found)] = scores(Plant(3, unrelated=0.1), CUT)
    assert exact(found) >= 0.9


@pytest.mark.parametrize("what", [Plant(3), Plant(2, rare=True), Plant(3, unrelated=0.3), Plant(4, noise=1.3)], ids=str)
def test_a_constant_vector_in_all_inputs_changes_no_label(what: Plant) -> None:
    for seed in range(3):
        unit = plant(what, seed)
        chance = np.random.default_rng(seed)
        constant = (chance.normal(size=what.width) * unit.inputs.std() * 10.0**seed).astype(np.float32)
        moved = replace(unit, inputs=unit.inputs + constant, background=unit.background + constant)
        assert (moved.labels(LINKAGE) == unit.labels(LINKAGE)).all(), seed


def test_the_plant_is_what_it_says() -> None:
    unit = plant(Plant(3, 1000, noise=0.6, overlap=0.25), 0)
    distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
    same = unit.truth[:, None] == unit.truth
    within = distances[same & ~np.eye(len(same), dtype=bool)].mean()
    assert within == pytest.approx(1 - 1 / (1 + 0.6**2), abs=0.03)
    assert 1 - distances[~same].mean() == pytest.approx(0.25 / (1 + 0.6**2), abs=0.05)
    assert np.bincount(plant(Plant(2, rare=True), 0).truth).tolist() == [98, 2]


def test_loose_behaviours_have_the_distances_that_they_are_to_have() -> None:
    unit = plant(Plant(5, 1000, noise=1.106, noisiest=1.527), 1)
    distances = cosine_distances(neuron_embeddings(unit.inputs, unit.read))
    within = [distances[np.ix_(unit.truth == each, unit.truth == each)].mean() for each in range(5)]
    assert 0.53 < min(within) < max(within) < 0.72
    assert max(within) - min(within) > 0.02


def test_the_background_is_unrelated_and_shares_what_is_common() -> None:
    for what in (Plant(3), Plant(3, unrelated=0.3)):
        unit = plant(what, 0)
        across = cosine_distances(neuron_embeddings(np.concatenate([unit.inputs, unit.background]), unit.read))
        assert 1 - across[: what.examples, what.examples :].mean() == pytest.approx(0, abs=0.05)
        drive = unit.background @ unit.read[0]
        fires = float((drive > np.quantile(unit.inputs @ unit.read[0], 0.1)).mean())
        assert fires > 0.5 if what.unrelated else fires < 0.05
    plain, moved = plant(Plant(3), 0), plant(Plant(3, common=5.0), 0)
    common = moved.background - plain.background
    assert np.allclose(common, common[0], atol=1e-5)
    assert np.linalg.norm(common[0]) == pytest.approx(5 * np.sqrt(plain.inputs.var(axis=0).sum()), rel=1e-3)
    assert np.allclose(moved.inputs - plain.inputs, common[0], atol=1e-5)


def test_a_score_worked_by_hand() -> None:
    truth = np.array([0, 0, 1, 1, -1])
    assert score(truth, np.array([0, 0, 1, 1, 2], dtype=np.int32)) == Score(1.0, False, True, 0.0)
    assert score(truth, np.array([0, 0, 1, 1, -1], dtype=np.int32)) == Score(1.0, True, True, 0.0)
    lost = score(truth, np.array([0, 0, -1, -1, -1], dtype=np.int32))
    assert (lost.right_number, lost.rare_found, lost.noise) == (False, False, 0.5)


def test_kept_pairs_worked_by_hand() -> None:
    embeddings = np.array([[1, 0], [0.8, 0.6], [0, 2]], dtype=np.float32)  # cosines 0.8, 0 and 0.6
    likeness = TokenLikeness.of(embeddings, np.array([0, 1, 2]))
    assert likeness.median == pytest.approx(0.6)
    tokens = np.array([0, 0, 0, 2, 1])
    # One of three pairs of token 0 is together; of its three pairs with token 2, and that of 2 with 1, one is together.
    assert kept(tokens, np.array([0, 0, 1, 1, -1], dtype=np.int32), likeness) == Kept(1 / 3, 0.75)
    alone = kept(tokens, np.full(5, -1, dtype=np.int32), likeness)
    assert (alone.together, alone.apart) == (0.0, 1.0)

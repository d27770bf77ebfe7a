from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atlas_builder.link.exact_knn import Floats, Neighbours, directions
from atlas_builder.link.tsne import NEIGHBOURS, narrowed, places
from tests.link.test_link import Made

CLUSTERS, EACH = 6, 40


def near(vectors: np.ndarray, count: int = NEIGHBOURS) -> Neighbours:
    """The nearest of each, from all distances."""
    apart = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :count].astype(np.int32)


@pytest.fixture(scope="module")
def planted() -> Floats:
    """Clusters of directions, one after the other, each wider than the map's neighbours are many."""
    chance = np.random.default_rng(0)
    centres = np.repeat(chance.normal(size=(CLUSTERS, 160)), EACH, axis=0)
    return directions((centres + 0.7 * chance.normal(size=centres.shape)).astype(np.float32))


@pytest.fixture(scope="module")
def placed(planted: Floats) -> Floats:
    return places(planted, near(planted))


def test_planted_clusters_lie_apart(placed: Floats) -> None:
    cluster = np.repeat(np.arange(CLUSTERS), EACH)
    assert (cluster[near(placed, 10)] == cluster[:, None]).all()


def test_those_that_are_near_stay_near(planted: Floats, placed: Floats) -> None:
    kept = [len(set(a) & set(b)) / 10 for a, b in zip(near(planted, 10), near(placed, 10), strict=True)]
    assert np.mean(kept) > 0.4  # by chance 0.04, within a cluster 0.26


def test_the_map_fills_the_width_of_the_unit_square(placed: Floats) -> None:
    assert placed.dtype == np.float32
    assert placed.min(axis=0)[0] == 0
    assert placed.max(axis=0)[0] == 1
    assert placed.min(axis=0)[1] >= 0
    assert placed.min(axis=0)[1] + placed.max(axis=0)[1] == pytest.approx(1, abs=1e-6)


def test_the_same_input_has_the_same_places(planted: Floats, placed: Floats) -> None:
    assert (places(planted, near(planted)) == placed).all()


def test_narrowing_keeps_directions_and_who_is_near(planted: Floats) -> None:
    narrow = narrowed(planted)
    assert narrow.shape == (len(planted), 128)
    assert np.linalg.norm(narrow, axis=1) == pytest.approx(1, abs=1e-5)
    kept = [len(set(a) & set(b)) / 10 for a, b in zip(near(planted, 10), near(narrow, 10), strict=True)]
    assert np.mean(kept) > 0.9
    assert (narrowed(planted[:, :100]) == directions(planted[:, :100])).all()


def nobody(count: int) -> Neighbours:
    return np.full((count, NEIGHBOURS), -1, dtype=np.int32)


def test_nothing_has_no_place() -> None:
    assert places(np.zeros((0, 4), np.float32), nobody(0)).shape == (0, 2)
    assert narrowed(np.zeros((0, 300), np.float32)).shape == (0, 128)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_equal_ones_are_in_the_middle(count: int) -> None:
    vectors = directions(np.full((count, 3), 0.1, dtype=np.float32))
    assert (places(vectors, nobody(count)) == 0.5).all()


def test_two_lie_at_the_ends_of_a_line() -> None:
    found = places(np.eye(2, dtype=np.float32), nobody(2))
    assert sorted(found[:, 0]) == [0, 1]
    assert (found[:, 1] == 0.5).all()


def test_few_lie_as_they_do_along_their_main_axes() -> None:
    square = np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0], [0, 0, 0]], dtype=np.float32)
    found = places(square * [3, 1, 1], nobody(5)).astype(np.float64)
    assert np.sort(found, axis=0) == pytest.approx(
        np.array([[0, 1 / 3], [0, 1 / 3], [0.5, 0.5], [1, 2 / 3], [1, 2 / 3]]), abs=1e-6
    )


def test_vectors_of_one_number_lie_on_a_line() -> None:
    found = places(np.array([[1], [-1], [1]], dtype=np.float32), nobody(3))
    assert (found[:, 1] == 0.5).all()
    assert found[0, 0] == found[2, 0] != found[1, 0]


def test_copies_of_two_directions_are_two_heaps() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 50, axis=0)
    found = places(vectors, near(vectors))
    assert np.isfinite(found).all()
    assert (near(found, 10) < 50).all(axis=1).tolist() == [True] * 50 + [False] * 50


def test_the_stage_places_every_behaviour_but_those_of_no_direction(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", [40, 0, 50], width=140)
    made.inputs[0][3] = 0
    # Inputs lie on disk in the order of their rows.
    layer = tmp_path / "made" / "L1"
    inputs = np.fromfile(layer / "inputs.f32", np.float32).reshape(-1, 140)
    inputs[np.load(tmp_path / "made" / "L1.behaviours.npy")["row"][3]] = 0
    inputs.tofile(layer / "inputs.f32")
    found = made.links(map=True).map
    assert found.shape == (90, 2)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [3]


def test_the_map_may_be_left_out(tmp_path: Path) -> None:
    assert np.isnan(Made(tmp_path / "made", [9, 9]).links().map).all()


@pytest.mark.parametrize("counts", [[0], [1], [2], [5]])
def test_tiny_atlases_have_a_map(tmp_path: Path, counts: list[int]) -> None:
    found = Made(tmp_path / "made", counts, seed=1).links(map=True).map
    assert found.shape == (sum(counts), 2)
    assert ((found >= 0) & (found <= 1)).all()

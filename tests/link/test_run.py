from __future__ import annotations

import itertools
import math
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.link import run
from atlas_builder.link.exact_knn import Nearest, Points, directions, merge_nearest, nearest, none_yet
from atlas_builder.link.run import threshold
from tests.support.links import Made, make_points


def draw_points(chance: np.random.Generator, total: int, layers: int, width: int = 3) -> Points:
    """Few whole numbers, so that equal and zero vectors come up."""
    vectors = chance.integers(-1, 3, (total, width)).astype(np.float32)
    return make_points(vectors, np.sort(chance.integers(0, 3 * layers, total)), layers)


def cosine(this: np.ndarray, that: np.ndarray) -> float:
    """Of two directions, without rounding on the way."""
    return float(np.float32(min(1, max(-1, math.fsum(float(x) * float(y) for x, y in zip(this, that, strict=True))))))


def layer_of(points: Points, number: int) -> int:
    return int(points.unit[number]) // 3


def slow_nearest(points: Points, row: int, count: int, least: np.ndarray) -> list[tuple[float, int]]:
    """Falling cosine, rising number."""
    found = []
    for other in range(len(points.unit)):
        near = cosine(points.vectors[row], points.vectors[other])
        alive = points.vectors[row].any() and points.vectors[other].any()
        if alive and points.unit[row] != points.unit[other] and near >= least[layer_of(points, other)]:
            found.append((-near, other))
    return [(-value, other) for value, other in sorted(found)[:count]]


def slow_threshold(points: Points, a: int, b: int) -> float:
    """The lowest of the cosines at or above the quantile."""
    found = sorted(
        cosine(points.vectors[i], points.vectors[j])
        for i, j in itertools.combinations(range(len(points.unit)), 2)
        if (layer_of(points, i), layer_of(points, j)) == (a, b) and points.unit[i] != points.unit[j]
    )
    return found[math.ceil((len(found) - 1) * (1 - 1 / 1000))] if found else math.inf


def all_nearest(
    points: Points, count: int, least: np.ndarray, size: int, at_once: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of all points, in ranges of one size, first each with itself, merged in another order than theirs."""
    total = len(points.unit)
    ranges = [slice(first, min(first + size, total)) for first in range(0, total, size)]
    best = none_yet(total, count)
    bounds = None
    for rows, columns in [*zip(ranges, ranges, strict=True), *reversed(list(itertools.combinations(ranges, 2)))]:
        if rows != columns and bounds is None and count:
            bounds = best.cosines[:, -1].copy()
        sides = nearest(points, rows, columns, count, least, at_once, bounds)
        for part, side in list(zip((rows, columns), sides, strict=True))[: 1 if rows == columns else 2]:
            merge_nearest(Nearest(best.numbers[part], best.cosines[part]), side)
    return best.numbers, best.cosines


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(0, 6),
    st.floats(-1, 1),
    st.integers(1, 3),
    st.integers(1, 15),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 10_000),
)
def test_neighbours_are_those_of_every_pair(
    total: int, count: int, lowest: float, layers: int, size: int, at_once: tuple[int, int], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    points = draw_points(chance, total, layers)
    least = np.minimum(1, lowest + chance.random((layers, layers)))
    least = np.minimum(least, least.T)
    neighbours, similarities = all_nearest(points, count, least, size, at_once)
    assert neighbours.shape == similarities.shape == (total, count)
    for row in range(total):
        wanted = slow_nearest(points, row, count, least[layer_of(points, row)])
        assert neighbours[row][: len(wanted)].tolist() == [other for _, other in wanted]
        assert (neighbours[row][len(wanted) :] == -1).all()
        assert np.isneginf(similarities[row][len(wanted) :]).all()
        assert similarities[row][: len(wanted)].tolist() == [value for value, _ in wanted]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 31, 32, 33, 70]),
    st.integers(1, 40),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 10_000),
)
def test_neighbours_of_wide_vectors_in_blocks_of_every_size(
    width: int, size: int, at_once: tuple[int, int], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(40, width)).astype(np.float32)
    vectors[20:] = vectors[chance.integers(0, 20, 20)]  # ties, far from each other
    points = make_points(vectors, np.sort(chance.integers(0, 3, 40)), 1)
    neighbours, similarities = all_nearest(points, 5, np.array([[-1.0]]), size, at_once)
    for row in range(40):
        wanted = slow_nearest(points, row, 5, np.array([-1.0]))
        assert list(zip(similarities[row].tolist(), neighbours[row].tolist(), strict=True))[: len(wanted)] == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 3), st.integers(0, 10_000))
def test_a_threshold_is_what_one_in_a_thousand_pairs_reaches(total: int, layers: int, seed: int) -> None:
    points = draw_points(np.random.default_rng(seed), total, layers, width=6)
    for a, b in itertools.combinations_with_replacement(range(layers), 2):
        assert threshold(points, a, b, [0, a, b]) == slow_threshold(points, a, b)


def test_a_threshold_of_many_pairs_is_drawn_and_near_that_of_all() -> None:
    chance = np.random.default_rng(0)
    points = make_points(chance.normal(size=(400, 8)).astype(np.float32), np.sort(chance.integers(0, 6, 400)), 2)
    for a, b in ((0, 0), (0, 1), (1, 1)):
        whole = threshold(points, a, b, [0, a, b])
        with patch("atlas_builder.link.run._PAIRS_DRAWN", 5000):
            drawn = threshold(points, a, b, [0, a, b])
            assert threshold(points, a, b, [0, a, b]) == drawn
            assert threshold(points, a, b, [1, a, b]) != drawn
        assert drawn == pytest.approx(whole, abs=0.1)


def test_a_zero_vector_is_like_nothing() -> None:
    points = make_points(np.array([[0, 0], [1, 0], [2, 0]], dtype=np.float32), np.arange(3), 1)
    for least in (0.5, 0.0, -1.0):
        neighbours, _ = all_nearest(points, 2, np.array([[least]]), 3, (2, 2))
        assert neighbours.tolist() == [[-1, -1], [2, -1], [1, -1]]


def test_very_long_and_very_short_vectors_have_a_direction() -> None:
    assert directions(np.array([[3e30, 4e30], [3e-30, 4e-30]], dtype=np.float32)) == pytest.approx(
        np.array([[0.6, 0.8]] * 2), abs=1e-6
    )


def slow_wiring(made: Made, address: np.ndarray, this: int, that: int) -> float:
    """Between two behaviours, the largest part in absolute value."""
    (first, early, _), (second, late, _) = sorted(address[[this, that]].tolist())
    if first == second:
        return math.nan
    writes = made.writes[made.layers.index(first)][early].astype(np.float64)
    found = []
    for part in made.reads[made.layers.index(second)].astype(np.float64):
        reads = part[late]
        length = np.linalg.norm(writes) * np.linalg.norm(reads)
        if length:
            found.append(float(writes @ reads / length))
    return max(found, key=abs, default=math.nan)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("wanted", ["auto", 0.4, -1.0, 0.9, 0])
def test_the_stage_is_what_loops_over_all_pairs_find(tmp_path: Path, parts: int, wanted: Any) -> None:
    made = Made(tmp_path / "made", [20, 0, 31, 17], parts=parts)
    made.writes[2][1] = 0
    made.save_weights()
    links, points = made.links(threshold=wanted, neighbours=7), made.points()
    assert links.thresholds.shape == (4, 4)
    for a, b in itertools.combinations_with_replacement(range(4), 2):
        least = slow_threshold(points, a, b) if wanted == "auto" else wanted
        assert links.thresholds[a, b] == links.thresholds[b, a] == least
    across = 0
    for row in range(len(points.unit)):
        near = slow_nearest(points, row, 7, links.thresholds[layer_of(points, row)])
        assert links.neighbours[row][: len(near)].tolist() == [other for _, other in near]
        assert links.similarities[row][: len(near)].tolist() == [value for value, _ in near]
        assert (links.neighbours[row][len(near) :] == -1).all()
        assert np.isnan(links.weight_cosine[row][len(near) :]).all()
        wired = [slow_wiring(made, links.address, row, other) for _, other in near]
        assert links.weight_cosine[row][: len(near)] == pytest.approx(wired, abs=1e-6, nan_ok=True)
        across += int(np.isfinite(wired).sum())
    assert across > 0
    assert links.weight_cosine.dtype == links.similarities.dtype == np.float32


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 2), st.integers(0, 10_000))
def test_the_wiring_is_that_of_each_link(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], parts: int, seed: int
) -> None:
    made = Made(tmp_path_factory.mktemp("wiring") / "made", counts, seed, parts)
    links = made.links(threshold=-1.0, neighbours=4)
    for (row, rank), other in np.ndenumerate(links.neighbours):
        wired = slow_wiring(made, links.address, row, int(other)) if other >= 0 else math.nan
        assert links.weight_cosine[row, rank] == pytest.approx(wired, abs=1e-6, nan_ok=True)


def test_units_that_do_not_read_the_residual_stream_are_not_wired(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", [9, 9])
    made.writes = [np.ones((3, 8), dtype=np.float32)] * 2
    made.save_weights()
    links = made.links(threshold=-1.0)
    assert (links.neighbours >= 0).any()
    assert np.isnan(links.weight_cosine).all()


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 8, 9, 16])
def test_blocks_change_nothing(tmp_path: Path, size: int) -> None:
    made = Made(tmp_path / "made", [8, 4, 9], width=40)
    made.links()
    whole = made.contents()
    for least, most in ((size, 100), (1, size)):
        with patch.object(run, "ROWS_AT_ONCE", least), patch.object(run, "_LARGEST_RANGE", most):
            made.links()
        assert made.contents() == whole


def test_workers_change_nothing(tmp_path: Path, pool: Executor) -> None:
    made = Made(tmp_path / "made", [30, 40], width=40)
    made.links()
    alone = made.contents()
    with patch("atlas_builder.link.run.ROWS_AT_ONCE", 7), patch("atlas_builder.link.run._LARGEST_RANGE", 11):
        made.links(pool)
    assert made.contents() == alone


def test_pairs_drawn_do_not_depend_on_workers(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", [60, 50])
    with patch("atlas_builder.link.run._PAIRS_DRAWN", 300):
        made.links()
        alone = made.contents()
        with ThreadPoolExecutor(3) as threads:
            made.links(threads)
    assert made.contents() == alone


@pytest.mark.parametrize("wanted", ["auto", -1.0])
@pytest.mark.parametrize("counts", [[0], [0, 0], [1]])
def test_without_pairs_there_is_nothing(tmp_path: Path, counts: list[int], wanted: Any) -> None:
    links = Made(tmp_path / "made", counts).links(threshold=wanted)
    assert links.neighbours.shape == links.similarities.shape == links.weight_cosine.shape == (sum(counts), 20)
    assert links.address.shape == (sum(counts), 3)
    assert (links.neighbours == -1).all()
    assert np.isnan(links.similarities).all()
    assert np.isinf(links.thresholds).all() == (wanted == "auto")


def test_one_layer_has_links_within_it_and_no_wiring(tmp_path: Path) -> None:
    links = Made(tmp_path / "made", [40]).links(threshold=0.1)
    assert (links.neighbours[:, 0] >= 0).any()
    assert np.isnan(links.weight_cosine).all()
    assert links.first_of(1) == 0


def test_no_neighbours_may_be_wanted(tmp_path: Path) -> None:
    links = Made(tmp_path / "made", [9, 9]).links(neighbours=0)
    assert links.neighbours.shape == links.similarities.shape == links.weight_cosine.shape == (18, 0)


def test_an_approximate_search_misses_few_and_is_exact_in_what_it_finds(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", [400, 300, 500], width=24)
    exact = made.links(neighbours=5)
    wanted, cosines = exact.neighbours.copy(), exact.similarities.copy()
    found = made.links(neighbours=5, approximate_above=1199)
    again = made.links(neighbours=5, approximate_above=1200)
    assert (again.neighbours == wanted).all()
    hits = total = 0
    for row in range(1200):
        known = dict(zip(wanted[row].tolist(), cosines[row].tolist(), strict=True))
        listed = found.neighbours[row][found.neighbours[row] >= 0].tolist()
        similar = found.similarities[row][: len(listed)].tolist()
        assert similar == sorted(similar, reverse=True)
        for other, value in zip(listed, similar, strict=True):
            assert value == known.get(other, value)
            assert value >= found.thresholds[layer_of(made.points(), row), layer_of(made.points(), other)]
        hits += len(set(listed) & set(known) - {-1})
        total += len(set(known) - {-1})
    assert hits / total > 0.6


def test_with_every_list_looked_through_the_search_is_exact(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", [40, 0, 31])
    made.links(neighbours=7)
    exact = made.contents()
    with (
        patch("atlas_builder.link.approximate_knn._LOOKED_THROUGH", 1),
        patch("atlas_builder.link.approximate_knn._OF_ONE_UNIT", 71),
    ):
        made.links(neighbours=7, approximate_above=1)
    assert made.contents() == exact

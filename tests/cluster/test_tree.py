from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from atlas_builder.cluster.clustering import average_linkage
from atlas_builder.cluster.tree import average_tree


def _random_distances(seed: int, count: int, ties: bool) -> np.ndarray:
    """(count, count), symmetric; with ties, of few values."""
    chance = np.random.default_rng(seed)
    pairs = chance.integers(0, 5, count * (count - 1) // 2) / 4 if ties else chance.random(count * (count - 1) // 2)
    return np.asarray(squareform(pairs, checks=False))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.booleans())
def test_the_tree_is_scipys_to_the_last_bit(seed: int, count: int, ties: bool) -> None:
    distances = _random_distances(seed, count, ties)
    expected = hierarchy.linkage(squareform(distances, checks=False), "average")
    joins, heights = average_tree(distances)
    np.testing.assert_array_equal(joins, expected[:, :2])
    np.testing.assert_array_equal(heights, expected[:, 2])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.booleans(), st.sampled_from([0.2, 0.5, 0.625]))
def test_a_cut_tree_has_scipys_clusters(seed: int, count: int, ties: bool, cut: float) -> None:
    distances = _random_distances(seed, count, ties).astype(np.float32)
    tree = hierarchy.linkage(squareform(distances.astype(np.float64), checks=False), "average")
    expected = hierarchy.fcluster(tree, cut, "distance")
    found = average_linkage(distances, cut)
    assert sorted(set(found.tolist())) == list(range(found.max() + 1))
    np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)


def test_distances_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        average_tree(np.array([[0, np.nan], [np.nan, 0]], dtype=np.float32))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings, principal_coordinates
from tests.support import reference

vectors = arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.floats(-9, 9, width=16))


def test_a_plain_embedding_sums_to_the_pre_activation_less_the_bias() -> None:
    inputs = np.array([[1, 2, 3], [0, -1, 1]], dtype=np.float32)
    weights = np.array([[2, 0, -1]], dtype=np.float32)
    found = neuron_embeddings(inputs, weights)
    np.testing.assert_array_equal(found, [[2, 0, -3], [0, 0, -1]])
    np.testing.assert_array_equal(found.sum(axis=1), inputs @ weights[0])


def test_a_gated_embedding_joins_both_parts() -> None:
    inputs = np.array([[1, 2]], dtype=np.float32)
    weights = np.array([[3, 4], [5, 6]], dtype=np.float32)
    np.testing.assert_array_equal(neuron_embeddings(inputs, weights), [[3, 8, 5, 12]])


@settings(max_examples=100, deadline=None)
@given(vectors)
def test_distances_are_those_of_every_pair(embeddings: np.ndarray) -> None:
    found = cosine_distances(embeddings)
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    assert (found >= 0).all()
    assert (found <= 2).all()
    for i in range(len(embeddings)):
        for j in range(len(embeddings)):
            if i != j:
                assert found[i, j] == pytest.approx(reference.distance(embeddings[i], embeddings[j]), abs=1e-5)


def test_a_zero_embedding_is_like_nothing() -> None:
    found = cosine_distances(np.array([[0, 0], [0, 0], [1, 1]], dtype=np.float32))
    np.testing.assert_array_equal(found, 1 - np.eye(3))


def test_the_plane_of_examples_is_that_of_a_principal_component_analysis() -> None:
    embeddings = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32) + np.arange(7, dtype=np.float32)
    points, share = principal_coordinates(cosine_distances(embeddings))
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    centred = (directions - directions.mean(axis=0)).astype(np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * singular[:2]
    signs = np.sign((expected * points).sum(axis=0))
    np.testing.assert_allclose(points, expected * signs, atol=1e-5)
    assert share == pytest.approx((singular[:2] ** 2).sum() / (singular**2).sum(), abs=1e-5)
    assert (points[np.abs(points).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_examples_that_are_all_alike_lie_in_one_place(rows: int) -> None:
    points, share = principal_coordinates(cosine_distances(np.ones((rows, 3), dtype=np.float32)))
    assert points.tolist() == [[0.0, 0.0]] * rows
    assert np.isnan(share)


def test_two_behaviours_lie_apart_in_the_plane() -> None:
    distances = np.full((6, 6), 0.9, dtype=np.float32)
    for behaviour in (slice(0, 4), slice(4, 6)):
        distances[behaviour, behaviour] = 0.1
    np.fill_diagonal(distances, 0)
    first = principal_coordinates(distances).points[:, 0]
    assert abs(first[:4].mean() - first[4:].mean()) > 0.5
    assert np.ptp(first[:4]) < 0.1

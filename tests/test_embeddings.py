from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atlas_builder.embeddings import cosine_distances, neuron_embeddings
from tests import reference

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

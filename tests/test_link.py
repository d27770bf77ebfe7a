from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.link import directions, nearest


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(0, 6), st.floats(-0.5, 0.9), st.integers(0, 10_000))
def test_neighbours_are_those_of_every_pair(total: int, count: int, threshold: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = directions(chance.normal(size=(total, 3)).astype(np.float32))
    group = chance.integers(0, 5, total)
    for rows in (slice(0, total), slice(total // 2, total)):
        neighbours, similarities = nearest(vectors, group, rows, count, threshold)
        cosine = vectors[rows] @ vectors.T
        for place, row in enumerate(range(total)[rows]):
            wanted = sorted(
                (-cosine[place, other], other)
                for other in range(total)
                if group[other] != group[row] and cosine[place, other] >= threshold
            )[:count]
            assert neighbours[place][: len(wanted)].tolist() == [other for _, other in wanted]
            assert (neighbours[place][len(wanted) :] == -1).all()
            assert np.isnan(similarities[place][len(wanted) :]).all()
            assert similarities[place][: len(wanted)].tolist() == [-value for value, _ in wanted]


def test_a_zero_vector_is_like_nothing() -> None:
    vectors = directions(np.array([[0, 0], [1, 0], [2, 0]], dtype=np.float32))
    neighbours, _ = nearest(vectors, np.arange(3), slice(0, 3), 2, 0.5)
    assert neighbours.tolist() == [[-1, -1], [2, -1], [1, -1]]

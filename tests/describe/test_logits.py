"""Effects on the logits, against a full sort and by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.describe.logits import logit_effects, strongest


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 12), st.integers(0, 999), st.booleans())
def test_the_strongest_effects_are_those_of_a_full_sort(
    units: int, vocabulary: int, count: int, seed: int, ties: bool
) -> None:
    effects = np.random.default_rng(seed).normal(size=(units, vocabulary)).astype(np.float32)
    effects = np.round(effects) if ties else effects
    found = strongest(effects, count)
    for unit in range(units):
        ranked = sorted(range(vocabulary), key=lambda token: (-effects[unit, token], token))[:count]
        assert found.positive[unit].tolist() == ranked
        ranked = sorted(range(vocabulary), key=lambda token: (effects[unit, token], token))[:count]
        assert found.negative[unit].tolist() == ranked
        assert found.negative_values[unit].tolist() == effects[unit, ranked].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 999))
def test_of_the_tokens_named_the_strongest_are_those_of_a_stable_sort_nan_last(
    vocabulary: int, count: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    effects = chance.integers(-3, 4, (3, vocabulary)).astype(np.float32)
    effects[chance.random(effects.shape) < 0.2] = np.nan
    named = np.flatnonzero(chance.random(vocabulary) < 0.7).astype(np.int32)
    found = strongest(effects, count, named)
    for tokens, values, keys in (
        (found.positive, found.positive_values, -effects[:, named]),
        (found.negative, found.negative_values, effects[:, named]),
    ):
        ranked = named[np.argsort(keys, axis=1, kind="stable")[:, :count]]
        np.testing.assert_array_equal(tokens, ranked)
        np.testing.assert_array_equal(values, np.take_along_axis(effects, ranked, axis=1))


def test_effects_leave_out_what_no_probability_depends_on() -> None:
    write = np.array([[1.0, 2.0]], dtype=np.float32)
    unembedding = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(logit_effects(write, unembedding), [[-2.0, -1.0, 3.0]])
    np.testing.assert_allclose(logit_effects(write, unembedding + 5), [[-2.0, -1.0, 3.0]])

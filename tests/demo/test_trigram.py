"""The baseline of the demo model is a true probability model, and no straw man."""

from __future__ import annotations

import numpy as np

from atlas_builder.demo.trigram import Trigram


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    chance = np.random.default_rng(0)
    tokens = chance.integers(0, 7, 400)
    found = Trigram(tokens, 7)
    for a, b in [(0, 1), (3, 3), (6, 0)]:
        total = 0.0
        for c in range(7):
            # The loss of one predicted token is its negative log-probability.
            total += np.exp(-found.loss(np.array([a, b, c])))
        assert abs(total - 1) < 1e-9


def test_what_always_follows_is_learnt_and_a_uniform_text_is_not() -> None:
    cycle = np.tile(np.arange(5), 200)
    assert Trigram(cycle, 5).loss(cycle) < 0.05
    noise = np.random.default_rng(0).integers(0, 16, 20_000)
    assert abs(Trigram(noise, 16).loss(np.random.default_rng(1).integers(0, 16, 5_000)) - np.log(16)) < 0.2

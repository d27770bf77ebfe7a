from __future__ import annotations

import random
from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.collect.selection import Pool, candidate_type, priority
from tests import reference

Policy = Literal["threshold", "top"]


class _Offered:
    """A pool, and a collector's way with it: lift the bound by the maxima seen, then offer what reaches it."""

    def __init__(self, units: int, policy: Policy, per_unit: int, threshold: float, seed: int) -> None:
        self.pool = Pool(5, units, policy=policy, per_unit=per_unit, threshold=threshold, seed=seed, window=1)
        self._highest = np.full(units, -np.inf, dtype=np.float32)

    def offer(self, keys: np.ndarray, contexts: list[int]) -> None:
        np.maximum(self._highest, keys[contexts].max(axis=0), out=self._highest)
        self.pool.raise_bound(self._highest)
        row, unit = np.nonzero(keys[contexts] >= self.pool.bound)
        found = np.zeros(len(row), dtype=candidate_type(1))
        found["unit"], found["context"] = unit, np.asarray(contexts)[row]
        found["value"] = keys[found["context"], unit]
        if self.pool.add(found):
            self.pool.compact()


# Few distinct values, so that ties are common; zero and below must never be chosen.
keys = st.integers(1, 60).flatmap(
    lambda contexts: st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.74, 0.75, 0.76, 0.9, 1.0, 3.0]), min_size=3, max_size=3),
        min_size=contexts,
        max_size=contexts,
    )
)


@settings(max_examples=200, deadline=None)
@given(
    keys,
    st.sampled_from(["threshold", "top"]),
    st.integers(1, 6),
    st.sampled_from([0.25, 0.75, 1.0]),
    st.integers(0, 2**40),
    st.randoms(use_true_random=False),
    st.integers(1, 9),
    st.booleans(),
)
def test_the_choice_is_that_of_a_list_kept_whole_whatever_the_order_and_the_batches(
    keys: list[list[float]], policy: Policy, per_unit: int, threshold: float, seed: int, chance: random.Random,
    batch: int, compact_often: bool,
) -> None:  # fmt: skip
    values = np.array(keys, dtype=np.float32)
    order = list(range(len(values)))
    chance.shuffle(order)
    pool = _Offered(3, policy, per_unit, threshold, seed)
    for start in range(0, len(order), batch):
        pool.offer(values, order[start : start + batch])
        if compact_often:
            pool.pool.compact()
    chosen = pool.pool.select()
    for unit in range(3):
        wanted = reference.select(values[:, unit].tolist(), policy, per_unit, threshold, seed, 5, unit)
        assert chosen["context"][chosen["unit"] == unit].tolist() == wanted


def test_the_random_number_of_a_context_is_the_documented_one() -> None:
    units, contexts = np.array([0, 7, 3071], np.int32), np.array([0, 99, 2**31 - 1], np.int32)
    found = priority(12345, 11, units, contexts)
    assert found.tolist() == [
        reference.priority(12345, 11, int(unit), int(context)) for unit, context in zip(units, contexts, strict=True)
    ]


def test_a_sample_is_uniform() -> None:
    """Each of 40 equal contexts is among the 10 drawn for about a quarter of 2,000 units."""
    drawn = np.zeros(40)
    values = np.ones((40, 2000), dtype=np.float32)
    pool = _Offered(2000, "threshold", 10, 0.75, 1)
    for context in range(40):
        pool.offer(values, [context])
    np.add.at(drawn, pool.pool.select()["context"], 1)
    assert abs(drawn - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_memory_grows_slower_than_the_corpus() -> None:
    """With every context near the maximum, a pool keeps about k · (1 + ln(n / k)) of n."""
    chance = np.random.default_rng(0)
    values = (0.8 + 0.2 * chance.random((20_000, 1))).astype(np.float32)
    pool = _Offered(1, "threshold", 20, 0.75, 1)
    for start in range(0, len(values), 100):
        pool.offer(values, list(range(start, start + 100)))
    pool.pool.compact()
    assert len(pool.pool.kept) < 3 * 20 * (1 + np.log(20_000 / 20))

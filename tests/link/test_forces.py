from __future__ import annotations

import numpy as np
import pytest

from atlas_builder.link.forces import Repulsion, attraction


@pytest.mark.parametrize(("count", "width"), [(2, 1.0), (400, 0.5), (400, 8.0), (900, 30.0)])
def test_repulsion_is_near_the_sum_over_all_pairs(count: int, width: float) -> None:
    places = np.random.default_rng(0).normal(size=(count, 2)) * width
    apart = places[:, None] - places
    near = 1 / (1 + (apart**2).sum(axis=2))
    np.fill_diagonal(near, 0)
    wanted = -(apart * near[..., None] ** 2).sum(axis=1) / near.sum()
    errors = Repulsion().of(places) - wanted
    assert np.sqrt((errors**2).mean()) < 0.12 * np.sqrt((wanted**2).mean())


def test_repulsion_of_a_step_does_not_depend_on_those_before() -> None:
    chance = np.random.default_rng(0)
    places = chance.normal(size=(50, 2)) * 5
    used = Repulsion()
    used.of(chance.normal(size=(60, 2)) * 40)
    assert (used.of(places) == Repulsion().of(places)).all()


def test_attraction_is_the_sum_over_those_that_are_joined() -> None:
    places = np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    starts, others = np.array([0, 2, 3, 4]), np.array([1, 2, 0, 0])
    wanted = np.array([[-3 / 26 - 1 / 2, -4 / 26], [3 / 26, 4 / 26], [1 / 2, 0]])
    assert attraction(places, starts, others) == pytest.approx(wanted)

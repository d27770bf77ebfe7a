"""Figures say what the numbers say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.rounding import percent
from atlas_builder.site import figures
from atlas_builder.site.unit_side import UnitSide


def _dots(svg: str, colour: str) -> list[tuple[int, int]]:
    """The dots of a colour, by walking its path."""
    match = re.search(rf'<path class={colour} d="([^"]*)"', svg)
    if not match:
        return []
    x = y = 0
    found = []
    for step in re.findall(r"m(-?\d+) ?(-?\d+)z", match[1]):
        x, y = x + int(step[0]), y + int(step[1])
        found.append((x, y))
    return found


def test_the_plane_holds_every_example_at_its_place_in_its_colour() -> None:
    points = (np.random.default_rng(0).normal(size=(40, 2)) * [2, 1]).astype(np.float32)
    labels = np.repeat(np.array([0, 1, 2], dtype=np.int32), [4, 30, 6])
    svg = figures.plane(points, labels, ["c0", "c1", "c2"])
    assert "40 examples in 2 behaviours" in svg
    places = []
    for number, count in ((0, 4), (1, 30), (2, 6)):
        dots = _dots(svg, f"c{number}")
        assert len(dots) == count
        # One scale for both axes, upwards as in mathematics.
        own = points[labels == number]
        places += list(zip(sorted(dots), own[np.lexsort((-own[:, 1], own[:, 0]))].tolist(), strict=True))
    (x0, y0), (a0, b0) = places[0]
    scale = float(np.median([(x - x0) / (a - a0) for (x, _), (a, _) in places[1:] if abs(a - a0) > 1]))
    for (x, y), (a, b) in places:
        assert x - x0 == pytest.approx((a - a0) * scale, abs=2)
        assert y - y0 == pytest.approx(-(b - b0) * scale, abs=2)
        assert 0 <= x <= 160
        assert 0 <= y <= 115


def _one_by_one(points: list[tuple[int, int]]) -> str:
    """The path of some dots, a step at a time: up and down by turns in columns three units wide."""
    path, last = "", None
    for x, y in sorted(points, key=lambda place: (place[0] // 3, place[1] * (-1) ** (place[0] // 3), place[0])):
        if (x, y) == last:
            continue
        step_x, step_y = (x, y) if last is None else (x - last[0], y - last[1])
        path += f"m{step_x} {step_y}z" if step_y >= 0 else f"m{step_x}{step_y}z"
        last = (x, y)
    return path


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_examples_in_one_place_are_one_dot_and_dots_are_steps_from_each_other(rows: list[tuple[int, int, int]]) -> None:
    # On a grid of 48 by 33 all points lie in the same places as on the page, upside down.
    rows = [*rows, (0, 0, 0), (0, 3, 3)]
    points = np.array([(48 * x, 33 * y) for _, x, y in rows], dtype=np.float32)
    labels = np.array([label for label, _, _ in rows], dtype=np.int32)
    svg = figures.plane(points, labels, [f"c{number}" for number in range(6)])
    places = np.rint((points - [72, 49.5]) + [80, 57.5]).astype(int).tolist()
    for label in {label for label, _, _ in rows}:
        own = [(x, 115 - y) for (x, y), (of, _, _) in zip(places, rows, strict=True) if of == label]
        assert f'<path class=c{label} d="{_one_by_one(own)}"/>' in svg


def test_a_histogram_is_as_high_as_the_logarithm_of_its_counts() -> None:
    svg = figures.histogram([-1, 0, 1, 2, 3], [1000, 0, 10, 1], threshold=2.5)
    path = re.search(r'class=bars d="([^"]*)"', svg)
    assert path
    steps = [(int(up), int(wide)) for up, wide in re.findall(r"v(-?\d+)h(\d+)", path[1])]  # no two alike in a row
    assert [wide for _, wide in steps] == [80, 80, 80, 80]
    highest = np.log10(1001)
    heights = [round(np.log10(count + 1) / highest * 78) for count in (1000, 0, 10, 1)]
    assert np.cumsum([-up for up, _ in steps]).tolist() == heights
    assert path[1].startswith("M0-12v")
    assert path[1].endswith("V-12z")
    assert 'd="M280-92v80"' in svg


def test_bars_of_one_height_are_one_step() -> None:
    assert 'd="M0-12h80v-78h160v78h80V-12z"' in figures.histogram([0, 1, 2, 3, 4], [0, 5, 5, 0])


def test_shares_fill_the_bar() -> None:
    parts = re.findall(r'class=(\w+) d="M(\d+) 4h(\d+)"', figures.shares([("c1", 0.5), ("c2", 0.25), ("c0", 0.25)]))
    assert parts == [("c1", "0", "298"), ("c2", "300", "148"), ("c0", "450", "148")]


def test_boxes_draw_the_quantiles_of_a_layer() -> None:
    values = [1 + number / 100 for number in range(401)]  # 1 to 5
    svg = figures.boxes(
        [figures.Row("Layer <0>", "L0/index.html", values), figures.Row("Layer 1", "L1/index.html", [])], "Number"
    )
    assert "Layer &lt;0&gt;: median 3, half of the units between 2 and 4, 90 % between 1.2 and 4.8" in svg
    ticks = {int(text): float(x) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>(\d)</text>', svg)}
    box = re.search(r'class="box" d="M([\d.]+) \d+H([\d.]+)"', svg)
    assert box
    assert [float(box[1]), float(box[2])] == pytest.approx([ticks[2], ticks[4]], abs=0.2)


def test_a_distribution_counts_every_value_and_marks_the_middle() -> None:
    svg = figures.distribution([0.0, 1.0, 1.0, 2.0, 10.0], lambda value: f"{value:g}")
    assert "5 units from 0 to 10, median 1" in svg
    assert 'class="rule" d="M20 2V54"' in svg
    assert figures.distribution([0.0, 0.0], str, logarithmic=True) == ""
    assert '<text x="0" y="68">&lt;1%</text>' in figures.distribution([0.001, 0.1, 0.3], percent)


@given(least=st.floats(-100, 100), span=st.floats(1e-3, 1e3))
def test_ticks_are_a_few_round_numbers_that_hold_all_values(least: float, span: float) -> None:
    ticks = figures._ticks(least, least + span)
    assert ticks[0] <= least + 1e-6 * span
    assert ticks[-1] >= least + span - 1e-6 * span
    assert 2 <= len(ticks) <= 12
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert f"{steps[0]:.0e}"[0] in "125"


def test_the_bar_of_a_unit_has_the_share_of_unclustered_examples_where_none_of_them_is_shown() -> None:
    def side(noise_fraction: float) -> UnitSide:
        behaviour = {"id": 1, "coverage": 0.4}
        return UnitSide(
            1, [behaviour], [], {"main_behaviours": 1, "noise_fraction": noise_fraction}, ["c0", "c1"], None
        )

    assert side(0.5).bar.count("c0") == 1
    assert side(0.0).bar.count("c0") == 0

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas_builder.describe import run
from atlas_builder.describe.novelty import Novelty, novelty, reads_like

BANDS = 4


def slow_novelty(top: list[int], band: list[int]) -> tuple[float, float]:
    """Share of novel tokens and p, by the definition and with exact fractions."""
    counts = Counter(top)
    novel = sum(token not in counts for token in band)
    lone = sum(count for count in counts.values() if count == 1)
    drawn, most = len(band), len(top)
    marked = novel + lone
    ways = math.comb(drawn + most, drawn)
    tail = sum(
        math.comb(marked, x) * math.comb(drawn + most - marked, drawn - x)
        for x in range(novel, min(marked, drawn) + 1)
        if drawn - x <= drawn + most - marked
    )
    return novel / drawn, float(Fraction(tail, ways))


def compare(units: list[list[list[int]]]) -> Novelty:
    """Novelty of units given as bands of tokens, shuffled as little as the collector does."""
    rows = [
        (unit, band, token) for unit, bands in enumerate(units) for band, tokens in enumerate(bands) for token in tokens
    ]
    unit, band, token = np.array(rows, np.int64).reshape(-1, 3).T
    return novelty(unit.astype(np.int32), band.astype(np.int16), token, len(units), BANDS)


tokens = st.lists(st.integers(0, 6), max_size=16)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(tokens, min_size=BANDS, max_size=BANDS), min_size=1, max_size=4))
def test_novelty_is_what_the_definition_says(units: list[list[list[int]]]) -> None:
    found = compare(units)
    for unit, bands in enumerate(units):
        for band, drawn in enumerate(bands):
            assert found.drawn[unit, band] == len(drawn)
            if not drawn or not bands[-1]:
                assert np.isnan(found.share[unit, band])
                continue
            if band == BANDS - 1:
                assert np.isnan(found.chance[unit, band])
                continue
            share, chance = slow_novelty(bands[-1], drawn)
            assert found.share[unit, band] == pytest.approx(share)
            assert found.chance[unit, band] == pytest.approx(chance)


def test_bands_alike_are_rarely_called_different_and_bands_unlike_nearly_always_are() -> None:
    """Planted: tokens of all bands from one long-tailed distribution, or the middle's from another."""
    chance = np.random.default_rng(0)

    def draw(first: int) -> list[int]:
        return [first + int(more) for more in chance.geometric(0.25, 15)]

    alike = compare([[draw(0) for _ in range(BANDS)] for _ in range(2000)]).middle_differs()
    unlike = compare([[draw(0), draw(100), draw(0), draw(0)] for _ in range(500)]).middle_differs()
    assert alike.mean() < 0.005
    assert unlike.mean() > 0.95


def test_the_lowest_band_alone_flags_nothing() -> None:
    assert not compare([[[9] * 16, [1] * 16, [1] * 16, [1] * 16]]).middle_differs()[0]
    assert compare([[[1] * 16, [9] * 16, [1] * 16, [1] * 16]]).middle_differs()[0]


def test_tokens_that_read_alike_are_one_whatever_their_case_and_space() -> None:
    numbers = reads_like([" The", "the", "THE ", "a", " ", "\n", "  ", "a"])
    assert len({numbers[0], numbers[1], numbers[2]}) == 1
    assert numbers[3] == numbers[7]
    assert len({numbers[4], numbers[5], numbers[6], numbers[0]}) == 4


def test_tokens_that_are_parts_of_one_character_read_alike() -> None:
    texts_read = ["<0xE7>", "<0x8C>", "<0xAB>", "a", "\u732b"]
    bands = np.array(
        [(0, 0, 0, 3), (0, 1, 0, 1), (0, 2, 0, 2)], [(n, np.int32) for n in ("unit", "band", "context", "position")]
    )
    contexts = SimpleNamespace(starts=np.array([0, 4]))
    collected: Any = SimpleNamespace(contexts=contexts, reads=np.array([4, 4, 4, 3]), texts_read=texts_read)
    layer: Any = SimpleNamespace(units=1, band_edges=np.zeros((1, 4)))
    assert run._novelty(collected, layer, bands).share.tolist() == [[1, 0, 1]]

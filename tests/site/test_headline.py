"""A unit in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from atlas_builder.site.headline import headline


def _record(positive: tuple[int, int], negative: tuple[int, int] | None = None) -> dict[str, Any]:
    def side(main: int, rare: int) -> dict[str, int]:
        return {"examples": 100, "main_behaviours": main, "behaviours": main + rare}

    sides = None if negative is None else {"polysemanticity": side(*negative)}
    return {"polysemanticity": side(*positive), "negative": sides}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (_record((1, 0)), "does one thing"),
        (_record((3, 1)), "does three different things and one rare one"),
        (_record((0, 2)), "does two rare things"),
        (_record((0, 0)), "has no behaviour that its examples share"),
        (_record((0, 0), (0, 0)), "has no behaviour that its examples share"),
        (_record((1, 0), (2, 0)), "does one thing with positive and two different things with negative activations"),
        (
            _record((0, 0), (2, 0)),
            "does two different things with negative activations and shows no behaviour with positive ones",
        ),
        (_record((1, 1), (0, 0)), (
            "does one thing and one rare one with positive activations and shows no behaviour with negative ones"
        )),
    ],
)  # fmt: skip
def test_a_unit_in_a_sentence(record: dict[str, Any], sentence: str) -> None:
    assert headline(record) == sentence


def test_a_unit_that_never_fires_is_said_to_be_silent() -> None:
    record = _record((0, 0))
    record["polysemanticity"]["examples"] = 0
    assert headline(record) == "never fires on this corpus"

"""What pages say of a text that shows too little."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.site.evidence import ENOUGH, caution, counted_examples, is_scarce, scarcity
from atlas_builder.site.summary import Summary


def _units(*numbers: int) -> list[Summary]:
    return [Summary(0, unit, [], {"qualifying_contexts": number}) for unit, number in enumerate(numbers)]


def _side(number: int | None, examples: int = 100) -> dict[str, Any]:
    return {"qualifying_contexts": number, "examples": examples}


def test_a_unit_of_few_contexts_says_how_few() -> None:
    assert caution(_side(12), "robust") == "but only 12 contexts come near the maximum: too few to be sure"
    assert caution(_side(1), "threshold") == "but only 1 context comes near the maximum: too few to be sure"
    assert caution(_side(7), "top") == "but only 7 contexts are active: too few to be sure"


@pytest.mark.parametrize("number", [None, 0, ENOUGH, 5000])
def test_a_unit_of_enough_contexts_or_none_needs_no_caution(number: int | None) -> None:
    assert not is_scarce(_side(number))
    assert caution(_side(number), "robust") == ""


def test_what_a_number_rests_on_is_said() -> None:
    assert counted_examples(_side(1340), "robust") == "100 of 1,340 contexts that come near the maximum"
    assert counted_examples(_side(37), "robust") == "100 examples, of which 37 come near the maximum"
    assert counted_examples(_side(None, examples=1), "robust") == "1 example"
    assert counted_examples(_side(1, examples=1), "top") == "1 of 1 context that is active"


def test_a_text_that_shows_little_of_most_units_is_said_to() -> None:
    sentence = scarcity(_units(21, 22, 23, 300, 0), 9_400, "neuron", "robust")
    assert sentence is not None
    assert sentence.startswith("9,400 tokens show too little of most neurons: for 75% of those that fire, fewer than")
    assert sentence.endswith("About 200,000 tokens would do.")


def test_a_text_that_shows_enough_is_not() -> None:
    assert scarcity(_units(21, 60, 70), 9_400, "neuron", "robust") is None
    assert scarcity(_units(0, 0), 9_400, "neuron", "robust") is None
    assert scarcity([], 9_400, "neuron", "robust") is None


@given(st.lists(st.integers(1, 49), min_size=1), st.integers(1, 10**9))
def test_more_text_is_wanted_than_there_was(numbers: list[int], tokens: int) -> None:
    sentence = scarcity(_units(*numbers), tokens, "latent", "robust")
    assert sentence is not None
    wanted = int(sentence.split("About ")[1].split(" ")[0].replace(",", ""))
    assert wanted > tokens
    assert str(wanted).rstrip("0") in {"1", "2", "5"}

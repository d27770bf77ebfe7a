"""Whether a text shows enough of the units for their behaviours to be those of another text too, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlas_builder.rounding import percent
from atlas_builder.site.summary import Summary

ENOUGH = 50
"""Contexts that qualify for a unit's examples, from which on its behaviours are relied on.

Between two halves of a text (`tests/benchmarks/halves.py`, SmolLM2 135M) nine in ten large
behaviours recur where the median neuron has about as many, and eight in ten where it has 20.
"""
_ROOT = 3
"""Such contexts grow as the cube root of the text: there, 21 of 9,400 tokens and 58 of 150,000."""


def is_scarce(side: dict[str, Any]) -> bool:
    """Whether too few contexts qualify to rely on what is said of a side, given its measures; not if it never fires."""
    number = side.get("qualifying_contexts")
    return number is not None and 0 < number < ENOUGH


def caution(side: dict[str, Any], policy: str) -> str:
    """How few contexts what is said of a side rests on, as the end of a sentence; empty where they are enough."""
    if not is_scarce(side):
        return ""
    number: int = side["qualifying_contexts"]
    return f"but only {number} context{'s' * (number != 1)} {_qualify(policy, number)}: too few to be sure"


def counted_examples(side: dict[str, Any], policy: str) -> str:
    """The examples that a side's behaviours are seen in, and the contexts that they are of."""
    examples, number = side["examples"], side.get("qualifying_contexts")
    if number is None or number < examples:
        few = "" if number is None else f", of which {number} come{'s' * (number == 1)} near the maximum"
        return f"{examples:,} example{'s' * (examples != 1)}{few}"
    return f"{examples:,} of {number:,} context{'s' * (number != 1)} that {_qualify(policy, number)}"


def _qualify(policy: str, number: int) -> str:
    plural = number != 1
    if policy == "top":
        return "are active" if plural else "is active"
    return f"come{'s' * (not plural)} near the maximum"


def scarcity(units: Sequence[Summary], tokens: int, noun: str, policy: str) -> str | None:
    """What to say of a text of some tokens that shows too little of half of its units or more, else None.

    Positive activations count, of units that fire.
    """
    firing = [unit.measures for unit in units if unit.measures.get("qualifying_contexts")]
    share = sum(map(is_scarce, firing)) / max(1, len(firing))
    if share < 0.5:
        return None
    median = float(np.median([measures["qualifying_contexts"] for measures in firing]))
    wanted = _round_up(tokens * (ENOUGH / median) ** _ROOT)
    return (
        f"{tokens:,} tokens show too little of most {noun}s: for {percent(share)} of those that fire, fewer than "
        f"{ENOUGH} contexts {_qualify(policy, ENOUGH)}, and another text may well show other behaviours. "
        f"About {wanted:,} tokens would do."
    )


def _round_up(number: float) -> int:
    """To the next of 1, 2, 5, 10, 20, 50, …"""
    power = int(10 ** math.floor(math.log10(number)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= number)

"""How many things a unit does, in words, and what the number rests on."""

from __future__ import annotations

from typing import Any

from atlas_builder.records.schema import Record
from atlas_builder.site.evidence import counted_examples


def measures_by_sign(record: Record) -> dict[int, dict[str, Any]]:
    """The measures of each side, by its sign."""
    positive, negative = record["polysemanticity"], record["negative"]
    return {1: positive} if negative is None else {1: positive, -1: negative["polysemanticity"]}


def headline(record: Record) -> str:
    """What a unit does, as the end of a sentence."""
    measures = measures_by_sign(record)
    if not any(side["examples"] for side in measures.values()):
        return "never fires on this corpus"
    if not any(side["behaviours"] for side in measures.values()):
        return "has no behaviour that its examples share"
    if len(measures) == 1:
        return f"does {_things(measures[1])}"
    shown = {_SIGNS[sign]: _things(side) for sign, side in measures.items() if side["behaviours"]}
    if len(shown) == 1:
        ((sign, things),) = shown.items()
        (other,) = set(_SIGNS.values()) - {sign}
        return f"does {things} with {sign} activations and shows no behaviour with {other} ones"
    return f"does {shown['positive']} with positive and {shown['negative']} with negative activations"


_SIGNS = {1: "positive", -1: "negative"}


def _things(side: dict[str, Any]) -> str:
    """How many things a unit does: main behaviours, and rare ones beside them."""
    main, rare = side["main_behaviours"], side["behaviours"] - side["main_behaviours"]
    number = _COUNT.get(main, str(main))
    things = number if not main else "one thing" if main == 1 else f"{number} different things"
    few = _COUNT.get(rare, str(rare))
    if not rare:
        return things
    return f"{things} and {few} rare one{'s' * (rare != 1)}" if main else f"{few} rare thing{'s' * (rare != 1)}"


def reliability(record: Record, policy: str) -> list[str]:
    """What the number of each side's main behaviours rests on, a sentence a side; `policy` selected the examples."""
    sentences = []
    for sign, side in measures_by_sign(record).items():
        number, low, high, half = (side[name] for name in ("main_behaviours", "main_low", "main_high", "main_half"))
        if low is None or not side["behaviours"]:
            continue
        which = "negative activations: " if sign < 0 else ""
        sentence = (
            f"{which}{number} main behaviour{'s' * (number != 1)}, 90 % interval {low:g} to {high:g}; "
            f"{side['behaviours']} in all seen in {counted_examples(side, policy)}."
        )
        if not low <= half <= high:
            sentence += f" The number depends on how many examples are read: half of them show {half:.2g}."
        sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


_COUNT = dict(enumerate(["nothing", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]))

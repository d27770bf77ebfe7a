"""The associations of a record: whether they agree with the settings, and with what it takes to be named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from atlas_builder.describe.association_test import LEAST_EFFECT, NAMED_P
from atlas_builder.records.schema import Record
from atlas_builder.site.hosting.checks.measures import CLOSE

_MOST = 5  # kept of a unit
_ROLLS = range(99, 201)  # shifts with which a p of at most NAMED_P is possible


def association_problems(record: Record, facts: Mapping[str, Any]) -> Iterator[str]:
    """What does not agree in a record's associations; none where there are none and the settings ask for none."""
    associations, settings = record.get("associations"), facts["configuration"]
    if (associations is not None) != _are_measured(settings):
        yield "it has associations that the settings do not ask for, or lacks those that they do"
    if associations is None:
        return
    found = associations["found"]
    if len(found) != min(associations["named"], _MOST) or associations["named"] > associations["tested"]:
        yield "its associations are not as many as it says, or more than were tested"
    if associations["draws"] > _most_draws(settings):
        yield "its associations rest on more tokens than are drawn"
    if not record["bands"] and associations["draws"]:
        yield "it has associations, but no activation range"
    if any(abs(one["effect"]) < abs(other["effect"]) for one, other in itertools.pairwise(found)):
        yield "its associations are not in order of their effects"
    names = [tuple(one.get(part) for part in ("token", "field", "value")) for one in found]
    if len(set(names)) != len(names):
        yield "an association is listed twice"
    for name, one in zip(names, found, strict=True):
        yield from _of_one(name, one)


def _are_measured(settings: Mapping[str, Any]) -> bool:
    """As `Configuration.names_associations`; earlier versions lack these settings."""
    asked = settings["describe"].get("associations")
    named = settings["units"]["kind"] == "logits" if asked is None else asked
    return bool(named and settings["examples"].get("association_draws"))


def _most_draws(settings: Mapping[str, Any]) -> int:
    examples = settings["examples"]
    is_output = settings["units"]["kind"] == "logits"
    bands = 2 * (len(examples["own_bands"]) - 1) if is_output else len(examples["bands"]) - 1
    return int(bands * examples["association_draws"])


def _of_one(name: tuple[str | None, ...], one: Mapping[str, Any]) -> Iterator[str]:
    token, field, value = name
    if (token is None) == (field is None) or (field is None) != (value is None):
        yield "an association is neither of a token nor of a field and its value, or of both"
        return
    what = f"the association with {token if field is None else f'{field} {value}'!r}"
    effect, p = one["effect"], one["p"]
    if not (abs(effect) >= LEAST_EFFECT * (1 - CLOSE) and p <= NAMED_P * (1 + CLOSE)):
        yield f"{what} is not strong or sure enough to be named"
    elif not any(_is_whole(p * (rolls + 1)) for rolls in _ROLLS):
        yield f"the p-value of {what} is no share of shifts"
    if one["top"] is None or one["middle"] is None or effect * (one["top"] - one["middle"]) < 0:
        yield f"the effect of {what} has not the sign of its shares"


def _is_whole(number: float) -> bool:
    return round(number) >= 1 and abs(number - round(number)) <= 2 * CLOSE * number

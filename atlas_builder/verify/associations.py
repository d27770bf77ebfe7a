"""Associations, from their definition: tokens drawn again, pairs counted, attributes shifted by whole contexts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.draws import DrawnToken, drawn_tokens
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.unit import UnitCase

_SHIFTS = 200
_LEAST_CONTEXTS = 10
_LARGEST_P, _LEAST_EFFECT = 0.01, 0.05
_MOST = 5
_EFFECT_SLACK = 1e-4  # activations that are nearly equal may change places in another run
_NEAR = 0.05  # where tokens are drawn otherwise
_NEARLY = 1e-4  # relative: and so statistics of shifts

Name = str | tuple[str, str]
"""A token as it reads, or a field of documents and its value."""
Bools = NDArray[np.bool_]


class FoundAssociation(NamedTuple):
    """An attribute that was tested."""

    effect: float
    p: tuple[float, float]
    """The least and the largest that another run may find."""
    shares: dict[str, float]
    """Of tokens drawn, by part of the range."""
    spellings: set[str]
    """Of a token, those that are most frequent."""

    def is_named(self, slack: float) -> bool:
        """Whether it is to be named, surely where the effect needs some `slack`, perhaps where that is negative."""
        agrees = self.effect * (self.shares["top"] - self.shares["middle"]) > 0
        return agrees and abs(self.effect) >= _LEAST_EFFECT + slack and self.p[slack > 0] <= _LARGEST_P


def check_association_lists(case: UnitCase) -> None:
    """Report what is wrong with a record whatever tokens were drawn."""
    claimed, what = case.record.get("associations"), f"{case.name}: associations"
    if (claimed is not None) != case.config.names_associations:
        case.report.wrong(f"{what} are {'not ' * (claimed is None)}published, against the settings")
    if claimed is None:
        return
    names = [_name_of(one) for one in claimed["found"]]
    if len(set(names)) != len(names) or len(names) != min(claimed["named"], _MOST):
        case.report.wrong(f"{what}: they are not as many as they should be, or one is listed twice")
    effects = [abs(one["effect"]) for one in claimed["found"]]
    if effects != sorted(effects, reverse=True):
        case.report.wrong(f"{what}: they are not in order of their effects")


def check_associations(case: UnitCase, places: NDArray[np.int64], values: NDArray[np.float64]) -> VerificationReport:
    """Compare what a record has, with activations `values` at all `places`: (tokens,) and (tokens, 2)."""
    report, claimed = VerificationReport(), case.record["associations"]
    drawn = drawn_tokens(case, places, values)
    compared = [token for token in drawn if token.part != "below"]
    what = f"{case.name}: associations"
    report.compare("associations", f"{what}, tokens drawn", claimed["draws"], len(compared), 0.0)
    found = _tested(case, drawn) if {token.part for token in compared} == {"middle", "top"} else {}
    report.compare("associations", f"{what}, number tested", claimed["tested"], len(found), 0.0)
    surely, perhaps = (sum(one.is_named(way * _EFFECT_SLACK) for one in found.values()) for way in (1, -1))
    report.count("associations")
    if not surely <= claimed["named"] <= perhaps:
        report.wrong(f"{what}: {claimed['named']} are named, but {surely} to {perhaps} were found")
    _check_listed(report, what, claimed, found)
    return report


def check_nearly(case: UnitCase, places: NDArray[np.int64], values: NDArray[np.float64]) -> VerificationReport:
    """Compare effects and shares of what a record lists, coarsely: another run may draw some other tokens."""
    report, found = VerificationReport(), _tested(case, drawn_tokens(case, places, values))
    for one in case.record["associations"]["found"]:
        name, what = _name_of(one), f"{case.name}: associations"
        its = found.get(name)
        if its is None:
            report.wrong(f"{what}: {name!r} is named, but was not tested")
            continue
        for part, value in {"effect": its.effect, **its.shares}.items():
            report.compare("associations, nearly", f"{what}, {part} of {name!r}", one[part], value, _NEAR)
    return report


def _check_listed(
    report: VerificationReport, what: str, claimed: dict[str, Any], found: dict[Name, FoundAssociation]
) -> None:
    listed: dict[Name, dict[str, Any]] = {_name_of(one): one for one in claimed["found"]}
    for name, one in listed.items():
        its = found.get(name)
        if its is None or not its.is_named(-_EFFECT_SLACK):
            report.wrong(f"{what}: {name!r} is named, but was not found")
            continue
        if "token" in one and one["token"] not in its.spellings:
            report.wrong(f"{what}: {one['token']!r} is not the most frequent spelling")
        report.compare("associations", f"{what}, the effect of {name!r}", one["effect"], its.effect, _EFFECT_SLACK)
        report.compare("associations", f"{what}, p of {name!r}", one["p"], min(max(one["p"], its.p[0]), its.p[1]), 0.0)
        for part, share in its.shares.items():
            report.compare("associations", f"{what}, share of {name!r}, {part}", one[part], share, 0.0)
    last = abs(claimed["found"][-1]["effect"]) if len(listed) == _MOST else 0.0
    for name, its in found.items():
        if name not in listed and its.is_named(_EFFECT_SLACK) and abs(its.effect) > last + _EFFECT_SLACK:
            report.wrong(f"{what}: {name!r} was found, of effect {its.effect:.4g}, but is not listed")


def _name_of(one: dict[str, Any]) -> Name:
    return _reading(one["token"]) if "token" in one else (one["field"], one["value"])


def _reading(text: str) -> str:
    return text.strip().casefold() or text


def _tested(case: UnitCase, drawn: Sequence[DrawnToken]) -> dict[Name, FoundAssociation]:
    """All attributes that are tested, by name."""
    rows = sorted(drawn, key=lambda token: (token.side, token.context, token.position))
    having: dict[Name, set[int]] = defaultdict(set)
    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    for place, row in enumerate(rows):
        first = max(0, row.position - case.config.examples.window[0])
        around = slice(first, row.position + 1)
        special = case.text.special_in(row.context)[around]
        reads = zip(case.text.read(row.context)[around], special, strict=True)
        texts = [case.texts_read[read] for read, left_out in reads if not left_out]
        for text in texts:
            having[_reading(text)].add(place)
            if row.part != "below":
                spelt[_reading(text)][text] += 1
        for field in case.text.fields_of(row.context):
            having[field].add(place)
    compared = np.array([row.part != "below" for row in rows])
    contexts = np.array([row.context for row in rows])
    names, columns = [], []
    for name, places in having.items():
        has = np.isin(np.arange(len(rows)), list(places))
        of_both = [len(set(contexts[compared & ways].tolist())) for ways in (has, ~has)]
        if min(of_both) >= _LEAST_CONTEXTS:
            names.append(name)
            columns.append(has)
    if not names:
        return {}
    table = np.stack(columns, axis=1)
    of_compared = [row for row in rows if row.part != "below"]
    effects, chances = _scores(of_compared, table[compared], [case.config.examples.seed, case.layer, case.unit])
    found = {}
    for place, name in enumerate(names):
        if np.isnan(effects[place]):
            continue  # all of each side have it, or lack it
        counts = spelt[name] if isinstance(name, str) else Counter[str]()
        shares = {part: _share(rows, table[:, place], part) for part in ("top", "middle", "below")}
        most = {text for text, count in counts.items() if count == max(counts.values())}
        low, high = chances[:, place].tolist()
        found[name] = FoundAssociation(float(effects[place]), (low, high), shares, most)
    return found


def _share(rows: Sequence[DrawnToken], has: Bools, part: str) -> float:
    of_part = [bool(one) for row, one in zip(rows, has, strict=True) if row.part == part]
    return sum(of_part) / len(of_part) if of_part else math.nan


def _scores(
    rows: Sequence[DrawnToken], table: Bools, seed: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Effects of attributes, (rows, attributes), and least and largest p, of rows by side, context and position."""
    values = np.array([row.value for row in rows])
    sides = np.array([row.side for row in rows])
    ends = [0, *(np.flatnonzero(np.diff(sides)) + 1).tolist(), len(rows)]
    parts = [slice(*pair) for pair in pairwise(ends)]
    # Of each row the rows of its side that it is more active than, those as active as it by half.
    wins = np.concatenate([_wins(values[part]) for part in parts])
    pairs = np.zeros(table.shape[1])
    counted = np.zeros(table.shape[1])
    for part in parts:
        has = table[part]
        having = has.sum(axis=0)
        pairs += having * (len(has) - having)
        counted += wins[part] @ has - having**2 / 2  # wins among those that have it are half of their pairs
    with np.errstate(invalid="ignore"):
        effects = counted / pairs - 0.5
    centred = np.concatenate([2 * wins[part] - (part.stop - part.start) for part in parts])
    contexts = sorted({row.context for row in rows})
    shifted = [table[_sources(rows, contexts, shift)] for shift in _shifts(len(contexts), seed)]
    every = np.abs(np.array([centred @ one for one in (table, *shifted)]))
    every[:, pairs == 0] = 0
    size = every / np.maximum(np.sqrt((every**2).mean(axis=0)), 1e-300)
    if not shifted:
        return effects, np.ones((2, len(effects)))
    largest = size[1:].max(axis=1)
    larger = [(largest[:, None] >= size[0] * (1 + way * _NEARLY)).sum(axis=0) for way in (1, -1)]
    return effects, (1 + np.array(larger)) / (1 + len(largest))


def _wins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    won, equal = (test(values[:, None], values).sum(axis=1, dtype=np.float64) for test in (np.greater, np.equal))
    return np.asarray(won + equal / 2)


def _shifts(contexts: int, seed: Sequence[int]) -> list[int]:
    """Numbers of contexts to shift by."""
    others, chance = contexts - 1, np.random.default_rng(seed)
    if others <= _SHIFTS:
        return list(range(1, contexts))
    return [1 + number for number in chance.choice(others, _SHIFTS, replace=False).tolist()]


def _sources(rows: Sequence[DrawnToken], contexts: Sequence[int], shift: int) -> list[int]:
    """The row whose attributes each row gets: that at its place in the context so many further on, of its side.

    Where its side has none there, the next context that has some counts; where it has fewer, they begin again.
    """
    of_side: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        of_side[row.side][row.context].append(place)
    sources = [0] * len(rows)
    for in_contexts in of_side.values():
        reached: dict[int, list[int]] = {}
        following = in_contexts[min(in_contexts)]  # round in a circle
        for context in reversed(contexts):
            following = reached[context] = in_contexts.get(context, following)
        for number, context in enumerate(contexts):
            givers = reached[contexts[(number + shift) % len(contexts)]]
            for place, taker in enumerate(in_contexts.get(context, ())):
                sources[taker] = givers[place % len(givers)]
    return sources

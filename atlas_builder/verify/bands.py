"""The bands of a unit's activation range: their edges, the tokens drawn from each, and what these tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.rerun.passes import Text
from atlas_builder.verify.chances import chances_of_tokens
from atlas_builder.verify.histograms import LOWEST, edges_of_bands
from atlas_builder.verify.own import OwnRange, ranges_of
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.shown import Key
from atlas_builder.verify.unit import UnitCase

_DRAWN = 4  # tokens drawn for one that is shown
_SIGNIFICANT = 0.001


class FoundBand(NamedTuple):
    """A band of the second run."""

    low: float
    high: float
    drawn: list[Key]
    """By chance."""
    share: float
    """Of tokens drawn that are novel; NaN where there is nothing to compare."""
    chance: float
    quantiles: list[float | None]
    side: str | None = None
    """Of output neurons."""
    positions: tuple[int, int] | None = None
    """The fewest and the most own positions of theirs."""


def bands_of(case: UnitCase, places: NDArray[np.int64], values: NDArray[np.float64]) -> list[FoundBand]:
    """The bands of activations `values`, (counted,); `places` are contexts and positions of these: (counted, 2)."""
    rule = case.config.examples
    if case.config.units.kind == "logits":
        return _of_sides(case, ranges_of(case, places, values, rule.per_band * _DRAWN))
    edges = edges_of_bands(np.sort(values), rule.bands)
    if edges is None:
        return []
    high_enough = np.flatnonzero(values >= LOWEST)
    chances = chances_of_tokens(rule.seed, case.layer, case.unit, *places[high_enough].T)
    order = high_enough[np.argsort(chances)]
    drawn = []
    for number, (low, high) in enumerate(pairwise(edges)):
        first = order[values[order] >= low][: rule.per_band * _DRAWN]
        below = values[first] <= high if number == len(edges) - 2 else values[first] < high
        drawn.append([Key(*place) for place in places[first[below]].tolist()])
    compared = _novelty([_readings(case.text, case.texts_read, band) for band in drawn])
    return [
        FoundBand(low, high, keys, *numbers, list(quantiles))
        for (low, high), keys, numbers, quantiles in zip(
            pairwise(edges), drawn, compared, pairwise(rule.bands), strict=True
        )
    ]


def _of_sides(case: UnitCase, ranges: Sequence[OwnRange]) -> list[FoundBand]:
    """The bands of an output neuron: those of each side are compared with the last of that side."""
    found = []
    for side, bands in groupby(ranges, lambda one: one.side):
        of_side = list(bands)
        compared = _novelty([_readings(case.text, case.texts_read, one.drawn) for one in of_side])
        found += [
            FoundBand(one.low, one.high, one.drawn, *numbers, one.quantiles, side, one.positions)
            for one, numbers in zip(of_side, compared, strict=True)
        ]
    return found


def bands_unsure(case: UnitCase) -> bool:
    """Whether activations are so near to an edge between bands that another run may see them in another band."""
    values = case.counted.astype(np.float64)
    if case.config.units.kind == "logits":
        return True  # their edges are activations themselves
    inner = [edge for edge in (edges_of_bands(np.sort(values), case.config.examples.bands) or ())[1:-1] if edge > 0]
    return any(bool((np.abs(values - edge) <= case.exactness * edge).any()) for edge in inner)


def _readings(text: Text, texts: list[str], keys: Sequence[Key]) -> list[str]:
    """The tokens as they read, case and space aside; a part of a character as that."""
    tokens = [texts[text.read(key.context)[key.position]] for key in keys]
    return [token.strip().casefold() or token for token in tokens]


def _novelty(bands: Sequence[Sequence[str]]) -> list[tuple[float, float]]:
    """Of each band the share of tokens that none of the last reads like, and how likely so many would be by chance.

    Of the last band, the share that no other of it reads like, without a chance: Fisher's exact test compares with it.
    """
    top = Counter(bands[-1])
    lone = sum(number == 1 for number in top.values())
    numbers = []
    for place, band in enumerate(bands):
        last = place == len(bands) - 1
        novel = lone if last else sum(word not in top for word in band)
        if not band or not top:
            numbers.append((math.nan, math.nan))
            continue
        every, fresh = len(band) + top.total(), novel + lone
        ways = sum(
            math.comb(fresh, hits) * math.comb(every - fresh, len(band) - hits)
            for hits in range(novel, min(fresh, len(band)) + 1)
        )
        chance = math.nan if last else float(Fraction(ways, math.comb(every, len(band))))
        numbers.append((novel / len(band), chance))
    return numbers


def check_bands(
    case: UnitCase, claimed: list[dict[str, Any]], found: list[FoundBand], first: int, shown: int
) -> VerificationReport:
    """Compare all bands; their examples are listed after the `first` other ones, at most `shown` of each."""
    report, name = VerificationReport(), case.name
    if len(claimed) != len(found):
        report.wrong(f"{name}: has {len(claimed)} bands, but {len(found)} were found")
        return report
    for number, (band, its) in enumerate(zip(claimed, found, strict=True), 1):
        what = f"{name}: band {number}"
        if band["quantiles"] != its.quantiles or band.get("side") != its.side:
            report.wrong(f"{what}: its quantiles or its side are not those of the configuration")
        for edge, value in zip(band["range"], (its.low, its.high), strict=True):
            report.compare("band edges", f"{what}, an edge", edge, value, case.exactness, max(abs(value), 1e-9))
        if its.positions is not None and not its.positions[0] <= band["positions"] <= its.positions[1]:
            report.wrong(f"{what}: has {band['positions']} positions, but {its.positions} were found")
        report.compare("bands", f"{what}: drawn", band["drawn"], len(its.drawn), 0.0)
        report.compare("bands", f"{what}: novelty", band["novelty"], its.share, 1e-9)
        report.compare("bands", f"{what}: p", band["p"], its.chance, 1e-7, abs(its.chance))
        examples = list(range(first, first + min(shown, len(its.drawn))))
        first += len(examples)
        if band["examples"] != examples:
            report.wrong(f"{what}: lists other examples than its own")
    inner = [its for its in found if its.side == "own"][:-1] if found and found[0].side else found[1:-1]
    differs = any(its.chance < _SIGNIFICANT for its in inner)
    report.count("bands")
    if case.record["middle_differs"] != differs:
        report.wrong(
            f"{name}: middle_differs is published as {case.record['middle_differs']}, but computed as {differs}"
        )
    return report

"""Output neurons: which tokens they are, and their range, apart by whether the token came next or another."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.rerun.passes import Reader, Text
from atlas_builder.verify.chances import chances_of_own, chances_of_tokens
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.shown import Key
from atlas_builder.verify.unit import UnitCase

_SAMPLED = 256  # own positions of a unit, of which bands are drawn


class OwnRange(NamedTuple):
    """A band of an output neuron, of own positions or others."""

    side: str
    quantiles: list[float | None]
    low: float
    high: float
    drawn: list[Key]
    """By chance."""
    positions: tuple[int, int] | None
    """The fewest and the most own positions that another run may count in it; None of others, which are estimated."""


def check_output_tokens(
    config: Configuration, tokens: list[int], reader: Reader, text: Text, report: VerificationReport
) -> None:
    """Compare the tokens of the atlas with those that its configuration asks for; a file of tokens is not read."""
    settings = config.units
    report.count("names")
    if settings.top is not None:
        every = (
            (number, token, place)
            for number, (_, _, ids) in enumerate(text.contexts)
            for place, token in enumerate(ids)
        )
        counts = Counter(token for number, token, place in every if not text.special_in(number)[place])
        wanted = sorted(counts, key=lambda token: (-counts[token], token))[: settings.top]
        if tokens != wanted:
            report.wrong("the tokens of the output neurons are not those that come most often in the text")
        return
    for name, token in zip(settings.tokens or (), tokens, strict=False):
        texts = reader.tokenizer(name, add_special_tokens=False)["input_ids"] if isinstance(name, str) else [name]
        if token not in texts and name != reader.token_texts[token]:
            report.wrong(f"token {token} of the output neurons is not {name!r}, as the configuration has it")


def ranges_of(case: UnitCase, places: NDArray[np.int64], values: NDArray[np.float64], keep: int) -> list[OwnRange]:
    """The bands of others and of own positions; none for a token that never comes next.

    `places` are contexts and positions of all tokens that count, (tokens, 2), `values` the activations there;
    at most `keep` are drawn from a band of own positions, and for others at or above its lower edge.
    """
    rule, following = case.config.examples, case.text.next_tokens
    token = int(case.record["token"]["id"])
    own = np.flatnonzero(following == token)
    others = np.flatnonzero((following != token) & (following >= 0))
    if not len(own):
        return []
    ordered = np.sort(values[own])
    edges = [-math.inf, *(own_edge(ordered, quantile, float(values.max())) for quantile in rule.own_bands)]
    quantiles: list[float | None] = [None, *rule.own_bands]
    others = others[np.argsort(chances_of_tokens(rule.seed, case.layer, case.unit, *places[others].T))]
    sampled = own[np.argsort(chances_of_own(rule.seed, case.layer, *places[own].T))][:_SAMPLED]
    found: list[OwnRange] = []
    for side, order in (("own", sampled), ("others", others)):
        for number, (low, high) in enumerate(pairwise(edges)):
            if side == "own" and not number:
                continue
            above = order[values[order] >= low]
            first = above[:keep] if side == "others" else above
            last = number == len(edges) - 2
            inside = first[(values[first] <= high) if last else (values[first] < high)][:keep]
            keys = [Key(*place) for place in places[inside].tolist()]
            lowest = float(values.min()) if math.isinf(low) else low
            near = case.tolerance * case.largest
            positions = None if side == "others" else _counted(ordered, low, high, near, last=last)
            found.append(OwnRange(side, quantiles[number : number + 2], lowest, high, keys, positions))
    return found


def own_edge(ordered: NDArray[np.float64], quantile: float, maximum: float) -> float:
    """The edge of a band at a quantile of own activations, given in rising order; that of 1 is the `maximum`.

    NaN where there is none.
    """
    if quantile >= 1 or not len(ordered):
        return maximum if len(ordered) else math.nan
    return float(ordered[min(math.ceil(Fraction(str(quantile)) * len(ordered)), len(ordered) - 1)])


def _counted(ordered: NDArray[np.float64], low: float, high: float, near: float, *, last: bool) -> tuple[int, int]:
    """The fewest and the most activations, in rising order, between two edges that may each lie `near` by."""
    counts = []
    for way in (near, -near):
        below = int(np.searchsorted(ordered, low + way))
        up_to = len(ordered) if last else int(np.searchsorted(ordered, high - way))
        counts.append(max(0, up_to - below))
    return counts[0], counts[1]

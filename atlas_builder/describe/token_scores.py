"""How well tokens predict where a unit fires, on held-out contexts.

Two measures of how far a unit can be described in words, which need no other model (Foote
et al. 2023, arXiv 2304.12918 and 2305.19911). A unit **fires** where its activation is at
least half of its maximum on the corpus. The **token look-up** predicts that it fires on the
key tokens of its examples. The **context patterns**, a simple relative of Neuron to Graph's
tries, predict that it fires where a whole pattern matches: the key token of an example and
those tokens before it whose masking removes more than three quarters of the activation. The
**graphs** are its tries (`token_graphs`).
Every tenth context is held out: patterns are learnt from the others and scored there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

WAYS = ("lookup", "context", "graph")
"""The predictors: token look-up, context patterns and token graphs, which are there where they were asked for."""
FIRES = 0.5
"""Share of its maximum from which a unit fires."""
HELD_OUT_EVERY = 10
"""One context of so many, the last, is held out."""
Numbers = NDArray[np.int64]


def is_held_out(contexts: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each of some contexts is held out, by its number."""
    return np.asarray(contexts % HELD_OUT_EVERY == HELD_OUT_EVERY - 1)


def held_out_contexts(contexts: int) -> Numbers:
    """The numbers of the held-out contexts of a corpus of so many, in rising order."""
    return np.flatnonzero(is_held_out(np.arange(contexts)))


def firing_threshold(maximum: NDArray[np.float64]) -> NDArray[np.float32]:
    """The least activation, in float32, at which units of these maxima fire: (units,); infinite where none does.

    An activation in float32 reaches it exactly where it reaches half of the maximum.
    """
    half = FIRES * maximum
    with np.errstate(over="ignore"):
        rounded = half.astype(np.float32)
    rounded = np.where(rounded < half, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return np.where(maximum > 0, rounded, np.float32(np.inf)).astype(np.float32)


COUNTS = np.dtype(
    [
        (name, "<i8")
        for name in (
            "positives",
            "lookup_predicted",
            "lookup_true_positives",
            "context_predicted",
            "context_true_positives",
            "graph_predicted",
            "graph_true_positives",
        )
    ]
)
"""Of a unit: held-out tokens on which it fires, and how many each way predicted, and predicted rightly."""
UNTRIED = -1
"""Stands in place of a number of predictions where there was nothing to learn them from."""


@dataclass(frozen=True)
class Patterns:
    """p patterns of the units of a layer: a key token, and tokens at distances before it."""

    unit: Numbers
    """(p,)"""
    key: Numbers
    """(p,)"""
    before: Numbers
    """The distance of each other token before the key token, 0 for none: (p, width)."""
    token: Numbers
    """The token there: (p, width)."""

    @classmethod
    def of(cls, patterns: Iterable[tuple[int, int, tuple[tuple[int, int], ...]]]) -> Patterns:
        """From unit, key token, and (distance before, token) of the others; duplicates count once."""
        rows = sorted(set(patterns))
        width = max((len(others) for _, _, others in rows), default=0)
        before, token = np.zeros((2, len(rows), width), np.int64)
        for row, (_, _, others) in enumerate(rows):
            for column, (place, other) in enumerate(others):
                before[row, column], token[row, column] = place, other
        unit, key = np.array([entry[:2] for entry in rows], np.int64).reshape(-1, 2).T
        return cls(unit, key, before, token)

    def met(
        self, tokens: Numbers, order: Numbers | None = None, counted: NDArray[np.bool_] | None = None
    ) -> tuple[Numbers, Numbers]:
        """Where in (contexts, context) tokens a whole pattern matches: place in the flat text and unit, none twice.

        `order` is that of the flat tokens by their ids, places of one id rising; it is found where it is not given.
        Key tokens are those alone that are `counted`, where it is given.
        """
        flat, context = tokens.ravel(), tokens.shape[1]
        order = np.argsort(flat, kind="stable") if order is None else order
        first, last = (np.searchsorted(flat, self.key, side, sorter=order) for side in ("left", "right"))
        counts = last - first
        pattern = np.repeat(np.arange(len(self.key)), counts)
        place = order[np.arange(len(pattern)) + np.repeat(first - (np.cumsum(counts) - counts), counts)]
        if counted is not None:
            may = counted.ravel()[place]
            pattern, place = pattern[may], place[may]
        for column in range(self.before.shape[1]):
            before, token = self.before[pattern, column], self.token[pattern, column]
            matches = (before == 0) | ((place % context >= before) & (flat[np.maximum(place - before, 0)] == token))
            pattern, place = pattern[matches], place[matches]
        units = int(self.unit.max(initial=0)) + 1
        pairs = np.unique(place * units + self.unit[pattern])
        return pairs // units, pairs % units


@dataclass(frozen=True)
class LookUp:
    """The token look-up of a layer's units: each key token of a unit once, by unit and token."""

    unit: Numbers
    """(p,)"""
    key: Numbers
    """(p,)"""

    @classmethod
    def of(cls, unit: NDArray[np.integer], key: NDArray[np.integer]) -> LookUp:
        """From the unit and the key token of each example; duplicates count once."""
        pairs = np.unique(_pairs(unit, key))
        return cls(pairs >> 32, pairs & 0xFFFFFFFF)

    def predicted(self, often: Numbers, units: int) -> Numbers:
        """On how many tokens each unit is predicted to fire, by how `often` each token is there: (units,)."""
        total: Numbers = np.bincount(self.unit, often[self.key], units).astype(np.int64)
        return total

    def predicts(self, unit: Numbers, token: Numbers) -> NDArray[np.bool_]:
        """Whether a unit is predicted to fire on a token, for some of both."""
        known, asked = _pairs(self.unit, self.key), _pairs(unit, token)
        return _is_among(asked, known)


def _pairs(unit: NDArray[np.integer], token: NDArray[np.integer]) -> Numbers:
    """One number for each pair of a unit and a token."""
    return unit.astype(np.int64) << 32 | token


def _is_among(asked: Numbers, known: Numbers) -> NDArray[np.bool_]:
    """Whether each number is among some that are known, in rising order."""
    if not len(known):
        return np.zeros(len(asked), np.bool_)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.asarray(known[place] == asked)


@dataclass(frozen=True)
class TextOrder:
    """The tokens of some contexts of one length, in order for the predictors of all layers."""

    tokens: Numbers
    """(contexts, context)"""
    counted: NDArray[np.bool_] | None = None
    """Whether each counts, (contexts, context); None where all do."""

    @cached_property
    def flat(self) -> Numbers:
        """The tokens in a row: (tokens,)."""
        return self.tokens.ravel()

    @cached_property
    def order(self) -> Numbers:
        """Their places by token, those of one token rising: (tokens,)."""
        return np.argsort(self.flat, kind="stable")

    @cached_property
    def often(self) -> Numbers:
        """How often each token is there and counts, up to the highest that does."""
        return np.bincount(self.flat if self.counted is None else self.flat[self.counted.ravel()])


class Predicts(Protocol):
    """What says where units fire."""

    def predicted(self, text: TextOrder) -> tuple[Numbers, Numbers]:
        """Places in the flat text and units that fire there: by place, then by unit, none twice."""


def count_predictions(
    counts: np.ndarray,
    look_up: LookUp,
    patterns: Patterns,
    text: TextOrder,
    place: Numbers,
    unit: Numbers,
    graphs: Predicts | None = None,
) -> None:
    """Add the `COUNTS` on a text, given the places in it and the units that fire there: by place, then by unit."""
    units = len(counts)
    counts["positives"] += np.bincount(unit, minlength=units)
    often = np.zeros(max(len(text.often), int(look_up.key.max(initial=-1)) + 1), np.int64)
    often[: len(text.often)] = text.often
    counts["lookup_predicted"] += look_up.predicted(often, units)
    right = look_up.predicts(unit, text.flat[place])
    counts["lookup_true_positives"] += np.bincount(unit[right], minlength=units)
    if len(patterns.key):
        _count(counts, "context", patterns.met(text.tokens, text.order, text.counted), place * units + unit)
    if graphs is not None:
        _count(counts, "graph", graphs.predicted(text), place * units + unit)


def _count(counts: np.ndarray, way: str, predicted: tuple[Numbers, Numbers], fires: Numbers) -> None:
    """Add one way's predictions; `fires` are those of place · units + unit that are true, rising."""
    units = len(counts)
    where, whose = predicted
    counts[f"{way}_predicted"] += np.bincount(whose, minlength=units)
    right = _is_among(where * units + whose, fires)
    counts[f"{way}_true_positives"] += np.bincount(whose[right], minlength=units)


class PredictorScores(NamedTuple):
    """Precision, recall and F1 of a predictor for each unit; NaN where it predicts nothing or the unit never fires."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def predictor_scores(counts: np.ndarray, way: str) -> PredictorScores:
    """From `COUNTS`: precision = true positives / predicted, recall = true positives / positives.

    F1 = 2 · true positives / (predicted + positives), where the unit fires.
    """
    positives, predicted, true_positives = (
        counts[name].astype(np.float64) for name in ("positives", f"{way}_predicted", f"{way}_true_positives")
    )
    predicted[predicted == UNTRIED] = np.nan
    true_positives[np.isnan(predicted)] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(positives > 0, 2 * true_positives / (predicted + positives), np.nan)
        return PredictorScores(true_positives / predicted, true_positives / positives, f1)

"""How well tokens predict where a unit fires, on held-out contexts.

Two measures of how far a unit can be described in words, which need no other model (Foote
et al. 2023, arXiv 2304.12918 and 2305.19911). A unit **fires** where its activation is at
least half of its maximum on the corpus. The **token look-up** predicts that it fires on the
key tokens of its examples. The **context patterns**, a simple relative of Neuron to Graph's
tries, predict that it fires where a whole pattern matches: the key token of an example and
those tokens before it whose masking removes more than three quarters of the activation.
Every tenth context is held out: patterns are learnt from the others and scored there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WAYS = ("lookup", "context")
"""The predictors: token look-up and context patterns."""
FIRES = 0.5
"""Share of its maximum from which a unit fires."""
HELD_OUT_EVERY = 10
"""One context of so many, the last, is held out."""
Numbers = NDArray[np.int64]

COUNTS = np.dtype(
    [
        (name, "<i8")
        for name in (
            "positives",
            "lookup_predicted",
            "lookup_true_positives",
            "context_predicted",
            "context_true_positives",
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

    def met(self, tokens: Numbers) -> tuple[Numbers, Numbers]:
        """Where in (contexts, context) tokens a whole pattern matches: place in the flat text and unit, none twice."""
        flat, context = tokens.ravel(), tokens.shape[1]
        order = np.argsort(flat, kind="stable")
        first, last = (np.searchsorted(flat, self.key, side, sorter=order) for side in ("left", "right"))
        counts = last - first
        pattern = np.repeat(np.arange(len(self.key)), counts)
        place = order[np.arange(len(pattern)) + np.repeat(first - (np.cumsum(counts) - counts), counts)]
        for column in range(self.before.shape[1]):
            before, token = self.before[pattern, column], self.token[pattern, column]
            matches = (before == 0) | ((place % context >= before) & (flat[np.maximum(place - before, 0)] == token))
            pattern, place = pattern[matches], place[matches]
        units = int(self.unit.max(initial=0)) + 1
        pairs = np.unique(place * units + self.unit[pattern])
        return pairs // units, pairs % units


def count_predictions(
    counts: np.ndarray, ways: tuple[Patterns, Patterns], text: Numbers, activations: NDArray[np.float32],
    maximum: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add the counts on (contexts, context) tokens; `activations` are (tokens, units)."""
    fires = (activations >= FIRES * maximum) & (maximum > 0)
    counts["positives"] += fires.sum(axis=0)
    for name, patterns in zip(WAYS, ways, strict=True):
        place, unit = patterns.met(text)
        counts[f"{name}_predicted"] += np.bincount(unit, minlength=len(counts))
        counts[f"{name}_true_positives"] += np.bincount(unit[fires[place, unit]], minlength=len(counts))


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

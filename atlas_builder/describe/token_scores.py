"""How well tokens foretell where a unit fires, on contexts that nothing was learnt from.

Two proxies for being told in words, which need no other model (Foote et al. 2023, arXiv
2304.12918 and 2305.19911). A unit **fires** where its activation is at least half of its
maximum on the corpus. The **token look-up** says that it fires on the key tokens of its
examples. The **context patterns**, a plain relative of Neuron to Graph's tries, say that it
fires where a whole pattern is met: the key token of an example and those of the tokens
before it without which more than three quarters of the activation are lost. Examples from
every tenth context are left out, and there both are tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WAYS = ("lookup", "context")
"""The ways to foretell."""
FIRES = 0.5
"""Share of its maximum from which a unit fires."""
HELD_OUT_EVERY = 10
"""Of so many contexts one, the last, is held out."""
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
"""Of a unit: held-out tokens on which it fires, and how often each way said so and was right."""
UNTRIED = -1
"""Stands for how often a way said something where there was nothing to learn it from."""


@dataclass(frozen=True)
class Patterns:
    """What is looked for, p patterns of the units of a layer: a key token and tokens at places before it."""

    unit: Numbers
    """(p,)"""
    key: Numbers
    """(p,)"""
    before: Numbers
    """How many tokens before the key token each other one stands, 0 for none: (p, most)."""
    token: Numbers
    """Which one stands there: (p, most)."""

    @classmethod
    def of(cls, found: Iterable[tuple[int, int, tuple[tuple[int, int], ...]]]) -> Patterns:
        """From unit, key token, and (place before, token) of the others; what is found twice counts once."""
        every = sorted(set(found))
        most = max((len(others) for _, _, others in every), default=0)
        before, token = np.zeros((2, len(every), most), np.int64)
        for row, (_, _, others) in enumerate(every):
            for column, (place, wanted) in enumerate(others):
                before[row, column], token[row, column] = place, wanted
        unit, key = np.array([entry[:2] for entry in every], np.int64).reshape(-1, 2).T
        return cls(unit, key, before, token)

    def met(self, tokens: Numbers) -> tuple[Numbers, Numbers]:
        """Where in (contexts, context) tokens a pattern is met whole: place in the flat text and unit, none twice."""
        flat, context = tokens.ravel(), tokens.shape[1]
        order = np.argsort(flat, kind="stable")
        first, last = (np.searchsorted(flat, self.key, side, sorter=order) for side in ("left", "right"))
        counts = last - first
        pattern = np.repeat(np.arange(len(self.key)), counts)
        place = order[np.arange(len(pattern)) + np.repeat(first - (np.cumsum(counts) - counts), counts)]
        for column in range(self.before.shape[1]):
            before, token = self.before[pattern, column], self.token[pattern, column]
            held = (before == 0) | ((place % context >= before) & (flat[np.maximum(place - before, 0)] == token))
            pattern, place = pattern[held], place[held]
        units = int(self.unit.max(initial=0)) + 1
        both = np.unique(place * units + self.unit[pattern])
        return both // units, both % units


def count_predictions(
    counts: np.ndarray, ways: tuple[Patterns, Patterns], text: Numbers, activations: NDArray[np.float32],
    maximum: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add what is seen on (contexts, context) tokens; `activations` are (tokens, units)."""
    fires = (activations >= FIRES * maximum) & (maximum > 0)
    counts["positives"] += fires.sum(axis=0)
    for name, patterns in zip(WAYS, ways, strict=True):
        place, unit = patterns.met(text)
        counts[f"{name}_predicted"] += np.bincount(unit, minlength=len(counts))
        counts[f"{name}_true_positives"] += np.bincount(unit[fires[place, unit]], minlength=len(counts))


class PredictorScores(NamedTuple):
    """How good a way to foretell is, of each unit: NaN where nothing was said or nothing fired."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def predictor_scores(counts: np.ndarray, way: str) -> PredictorScores:
    """Of `COUNTS`: precision right / said, recall right / fired, F1 = 2 right / (said + fired) where it fires."""
    positives, predicted, true_positives = (
        counts[name].astype(np.float64) for name in ("positives", f"{way}_predicted", f"{way}_true_positives")
    )
    predicted[predicted == UNTRIED] = np.nan
    true_positives[np.isnan(predicted)] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(positives > 0, 2 * true_positives / (predicted + positives), np.nan)
        return PredictorScores(true_positives / predicted, true_positives / positives, f1)

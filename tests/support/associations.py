"""Draws of a unit as text has them: several rows a context, attributes that go on over contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Draws = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


def clustered_draws(
    drawn: np.random.Generator,
    *,
    bands: int = 4,
    per_band: int = 256,
    attributes: int = 300,
    effect: float = 0.0,
    share: float = 0.3,
    run: int = 2,
    sides: int = 1,
    uneven: bool = False,
) -> Draws:
    """Values, sides, contexts in order, and attributes of a unit's rows; attribute 0 has the effect planted.

    Rows lie in at most half as many contexts as there are rows; where these are `uneven`, in some of them many.
    Values share a slow part, that drifts over contexts, and attributes are runs over contexts, 1, 2 or 4 on
    average, some rows aside, as words of a document and fields of documents are. Attribute 0 is of `share` of
    the rows, in runs of `run` contexts; of a row with it and one without, it has the higher value in
    half of all pairs and `effect` more.
    """
    rows = bands * per_band
    contexts = max(1, rows // 2)
    weight = drawn.lognormal(0, 1.2 * uneven, contexts)
    context = np.sort(drawn.choice(contexts, rows, p=weight / weight.sum()))
    side = drawn.integers(0, sides, rows)
    values = 0.7 * _smooth(drawn, contexts, 4)[context] + drawn.normal(size=rows)
    shares = drawn.uniform(0.02, 0.4, attributes)
    has = np.stack([_runs(drawn, contexts, one, drawn.choice([1, 2, 4]))[context] for one in shares], axis=1)
    has ^= drawn.random(has.shape) < 0.02
    if effect:
        # Where X and Y are normal, P(X > Y) = Phi(shift / sqrt 2).
        own = _runs(drawn, contexts, share, run)[context]
        has[:, 0] = own
        values = _ranks(values) + _shift(effect) * own
    return values, side, context, has


def shifted_by_contexts(
    drawn: np.random.Generator, context: NDArray[np.int64], has: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Attributes that begin at a random other context, and go on from the first row after the last."""
    begin = int(np.searchsorted(context, drawn.choice(np.unique(context)[1:])))
    return np.asarray(np.roll(has, -begin, axis=0))


def _smooth(drawn: np.random.Generator, contexts: int, width: int) -> NDArray[np.float64]:
    noise = np.convolve(drawn.normal(size=contexts + width - 1), np.ones(width), mode="valid")
    return np.asarray(noise / np.sqrt(width))


def _runs(drawn: np.random.Generator, contexts: int, share: float, length: int) -> NDArray[np.bool_]:
    """Contexts with an attribute: runs of about `length`, about `share` of all."""
    gap = max(1.0, length * (1 - share) / share)
    pairs = 1 + contexts // 2  # of a run and a gap, each at least one context long
    lengths = np.stack([drawn.geometric(1 / length, pairs), drawn.geometric(1 / gap, pairs)], axis=1)
    has = np.repeat(np.tile([True, False], pairs), lengths.reshape(-1))
    return np.roll(has, int(drawn.integers(len(has))))[:contexts]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal values in the same order."""
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def _shift(effect: float) -> float:
    """How far apart two normal distributions of deviation 1 are whose effect this is."""
    return float(np.sqrt(2) * norm.ppf(0.5 + effect))

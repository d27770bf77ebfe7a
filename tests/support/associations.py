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
    share: float = 0.2,
    sides: int = 1,
) -> Draws:
    """Values, sides, contexts in order, and attributes of a unit's rows; attribute 0 has the effect planted.

    Rows lie in at most half as many contexts as there are rows. Values share a slow part, that drifts
    over contexts, and attributes are runs over contexts of random length, some rows aside, as words of a
    document and fields of documents are. Attribute 0 is of `share` of the rows, and these are more likely
    among the high values by `effect`.
    """
    rows = bands * per_band
    contexts = max(1, rows // 2)
    context = np.sort(drawn.integers(0, contexts, rows))
    side = drawn.integers(0, sides, rows)
    values = 0.7 * _smooth(drawn, contexts, 4)[context] + drawn.normal(size=rows)
    shares = drawn.uniform(0.02, 0.4, attributes)
    has = np.stack([_runs(drawn, contexts, one)[context] for one in shares], axis=1)
    has ^= drawn.random(has.shape) < 0.02
    if effect:
        # Where X and Y are normal, P(X > Y) = Phi(shift / sqrt 2).
        own = _runs(drawn, contexts, share)[context]
        has[:, 0] = own
        values = _ranks(values) + _shift(effect) * own
    return values, side, context, has


def shifted_by_contexts(
    drawn: np.random.Generator, side: NDArray[np.int64], context: NDArray[np.int64], has: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Attributes of each side that begin at a random other context, and go on from the first row after the last."""
    shifted = has.copy()
    for which in np.unique(side):
        rows = np.flatnonzero(side == which)
        begin = int(np.searchsorted(context[rows], drawn.choice(np.unique(context[rows])[1:])))
        shifted[rows] = has[np.roll(rows, -begin)]
    return shifted


def _smooth(drawn: np.random.Generator, contexts: int, width: int) -> NDArray[np.float64]:
    noise = np.convolve(drawn.normal(size=contexts + width - 1), np.ones(width), mode="valid")
    return np.asarray(noise / np.sqrt(width))


def _runs(drawn: np.random.Generator, contexts: int, share: float, length: int = 4) -> NDArray[np.bool_]:
    """Contexts with an attribute: runs of about `length`, about `share` of all."""
    has = np.empty(contexts, bool)
    place, is_on = 0, bool(drawn.random() < share)
    while place < contexts:
        mean = length if is_on else length * (1 - share) / share
        end = place + int(drawn.geometric(min(1.0, 1 / mean)))
        has[place:end] = is_on
        place, is_on = end, not is_on
    return has


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal values in the same order."""
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def _shift(effect: float) -> float:
    """How far apart two normal distributions of deviation 1 are whose effect this is."""
    return float(np.sqrt(2) * norm.ppf(0.5 + effect))

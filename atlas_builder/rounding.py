"""Numbers as they are published: at most four significant digits, by one rule."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIGITS = 4
_TENS = np.array([float(f"1e{power}") for power in range(23)])  # the powers of ten that a double holds exactly


def significant(value: float, digits: int = DIGITS) -> float | None:
    """A number at `digits` significant digits; None where it is NaN, which JSON cannot hold."""
    return None if math.isnan(value) else float(f"{value:.{digits}g}")


def significant_all(values: ArrayLike) -> NDArray[np.float64]:
    """`significant` of each number of an array, to the last bit the same; NaN is kept."""
    exact = np.asarray(values, dtype=np.float64)
    size = np.abs(exact)
    within = (size > 1e-15) & (size < 1e15)
    places = DIGITS - 1 - np.floor(np.log10(size, out=np.zeros_like(size), where=within)).astype(np.intp)
    up, down = _TENS[np.maximum(places, 0)], _TENS[np.maximum(-places, 0)]  # one of the two is 1
    scaled = np.where(within, exact, 0.0) * up / down
    # A whole number times or over an exact power of ten: one operation, correctly rounded.
    rounded = np.where(within, np.rint(scaled) / up * down, exact)
    # `scaled` itself is rounded, so what lies near a tie between two takes more care.
    hard = (np.abs(scaled % 1 - 0.5) < 1e-9) | (np.isfinite(exact) & ~within & (size > 0))
    rounded[hard] = [significant(value) for value in exact[hard].tolist()]
    return rounded


def published_values(values: ArrayLike) -> list[Any]:
    """`significant` of each number of an array, as nested lists of its shape."""
    rounded = significant_all(values)
    values_or_none = rounded.astype(object)
    values_or_none[np.isnan(rounded)] = None
    nested: list[Any] = values_or_none.tolist()
    return nested


def to_grain(values: ArrayLike, grain: float) -> NDArray[np.float64]:
    """Values rounded to whole multiples of a power of ten, NaN kept."""
    exact = np.asarray(values, dtype=np.float64)
    digits = round(-math.log10(grain))
    if digits < 0:
        return np.rint(exact / 10.0**-digits) * 10.0**-digits + 0.0
    # Dividing by a power of ten is exact to the last bit, multiplying by its inverse is not.
    return np.rint(exact * 10.0**digits) / 10.0**digits + 0.0  # + 0.0 turns −0 into 0


def shortest(value: float) -> float:
    """A number in its shortest JSON form: whole ones without a point."""
    return int(value) if value.is_integer() else value


def grain_of(maximum: float) -> float:
    """The power of ten to which a unit's activations are published: three digits of its maximum."""
    return 10.0 ** (math.floor(math.log10(maximum)) - 2) if maximum > 0 else 1.0


def grain_of_bands(maximum: float, minimum: float) -> float:
    """As `grain_of`, by the minimum of a unit that is never active, which an output neuron's bands may show."""
    return grain_of(maximum if maximum > 0 else -minimum)


def percent(share: float | None) -> str:
    """A share as people read it: whole per cent, but never 0% or 100% of what is neither."""
    if share is None:
        return "–"
    if 0 < share <= 0.005:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.0%}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people, with a true minus; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}".replace("-", "−")


def aligned(value: float | None, digits: int = 3) -> str:
    """As `number`, with the zeros that a column of numbers has at its end."""
    return "–" if value is None else f"{value:#.{digits}g}".removesuffix(".").replace("-", "−")


def first_rank(quantile: float, count: int) -> int:
    """The first rank, from 0, of so many numbers that is not below a quantile; exact, so that a tenth of 30 is 3."""
    return math.ceil(Fraction(str(float(quantile))) * count)

"""Numbers as they are published: at most four significant digits, by one rule."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIGITS = 4


def significant(value: float, digits: int = DIGITS) -> float | None:
    """A number at `digits` significant digits; None where it is NaN, which JSON cannot hold."""
    return None if math.isnan(value) else float(f"{value:.{digits}g}")


def to_grain(values: ArrayLike, grain: float) -> NDArray[np.float64]:
    """Values rounded to whole multiples of a power of ten, NaN kept."""
    exact = np.asarray(values, dtype=np.float64)
    digits = round(-math.log10(grain))
    if digits < 0:
        return np.rint(exact / 10.0**-digits) * 10.0**-digits + 0.0
    # Dividing by a power of ten is right to the last bit where multiplying by its inverse is not.
    return np.rint(exact * 10.0**digits) / 10.0**digits + 0.0  # + 0.0 turns −0 into 0


def plain(value: float) -> float:
    """A number as JSON says it shortest: whole ones without a point."""
    return int(value) if value.is_integer() else value


def grain_of(maximum: float) -> float:
    """The power of ten to which a unit's activations are published: three digits of its maximum."""
    return 10.0 ** (math.floor(math.log10(maximum)) - 2) if maximum > 0 else 1.0

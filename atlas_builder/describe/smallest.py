"""The smallest of many numbers in each row, in one scan."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def smallest(
    values: NDArray[np.float32], columns: NDArray[np.int32], count: int, sign: np.float32
) -> NDArray[np.int32]:
    """The columns, of those given, of the smallest `sign` · value of each row, in rising order: (rows, count).

    Of equals the one that is given first comes first; what is not a number comes last, as in numpy.
    """
    found = np.empty((len(values), count), np.int32)
    keys = np.empty(count, np.float32)
    for row in range(len(values)):
        kept = 0
        for column in columns:
            key = sign * values[row, column]
            if kept == count and not (key < keys[count - 1] or (np.isnan(keys[count - 1]) and not np.isnan(key))):
                continue
            place = kept if kept < count else count - 1
            while place > 0 and (key < keys[place - 1] or (np.isnan(keys[place - 1]) and not np.isnan(key))):
                keys[place], found[row, place] = keys[place - 1], found[row, place - 1]
                place -= 1
            keys[place], found[row, place] = key, column
            kept = min(count, kept + 1)
    return found

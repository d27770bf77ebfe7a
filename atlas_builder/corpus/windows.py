"""Windows of a text's tokens around a key token, which end where characters do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Windows(NamedTuple):
    """Windows of a text's tokens, `first` to before `last`, around `key`, each in its context: (windows,) each."""

    first: Numbers
    last: Numbers
    key: Numbers
    start: Numbers
    """The first token of the context."""
    end: Numbers
    """The place behind its last token."""

    def whole(self, begins: NDArray[np.bool_] | None, most: tuple[int, int] | None = None) -> Windows:
        """Windows that end where characters do, given whether each token of the text begins one; None: all do.

        Each reaches out to the next border or, where that is beyond `most` tokens before and after
        its key token, draws back to the last.
        """
        if begins is None:
            return self
        first, last = self.first.copy(), self.last.copy()
        while (cut := (first > self.start) & ~begins[first]).any():
            first -= cut
        while (cut := (last < self.end) & ~begins[np.minimum(last, len(begins) - 1)]).any():
            last += cut
        if most is not None:
            beyond = first < self.key - most[0]
            first[beyond] = self.first[beyond]
            while (cut := beyond & (first < self.key) & ~begins[first]).any():
                first += cut
            beyond = last > self.key + most[1] + 1
            last[beyond] = self.last[beyond]
            while (cut := beyond & (last > self.key + 1) & ~begins[np.minimum(last, len(begins) - 1)]).any():
                last -= cut
        return self._replace(first=first, last=last)

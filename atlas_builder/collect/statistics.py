"""Running statistics of every unit of a layer, over every token of the corpus."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.bins import BINS, LOWEST, MANTISSA_BITS, SIDE

_DROPPED_BITS = 23 - MANTISSA_BITS
_BELOW = ((127 + LOWEST) << MANTISSA_BITS) - 1  # code of the magnitudes that share the middle bin
_ROWS_AT_ONCE = 512  # tokens whose bins are counted together: small enough for the cache


class Statistics:
    """Sums, counts and histogram of the units of one layer."""

    def __init__(self, units: int) -> None:
        self.tokens = 0
        self.maximum = np.full(units, -np.inf, dtype=np.float32)
        self.sum = np.zeros(units, dtype=np.float64)
        self.sum_of_squares = np.zeros(units, dtype=np.float64)
        self.positive = np.zeros(units, dtype=np.int64)
        self._counts = torch.zeros(units * BINS, dtype=torch.int32)
        self._first_bin = torch.arange(units, dtype=torch.int32) * BINS

    @property
    def histogram(self) -> NDArray[np.int64]:
        """Tokens by bin: (units, BINS)."""
        return self._counts.numpy().reshape(-1, BINS).astype(np.int64)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean activation over all tokens."""
        return self.sum / max(self.tokens, 1)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of the activation over all tokens (of the population, not a sample)."""
        variance = self.sum_of_squares / max(self.tokens, 1) - self.mean**2
        return np.sqrt(np.maximum(variance, 0))

    @property
    def density(self) -> NDArray[np.float64]:
        """Share of tokens on which the activation is above zero."""
        return self.positive / max(self.tokens, 1)

    def add(self, activations: Tensor, highest: Tensor) -> Tensor:
        """Count `(batch, context, units)`; `highest` is its maximum over contexts, (batch, units).

        Returns the sums by context, (batch, units), which are finite where every
        activation is.
        """
        batch, context, units = activations.shape
        self.tokens += batch * context
        np.maximum(self.maximum, highest.amax(0).numpy(), out=self.maximum)
        sums = []
        step = max(1, _ROWS_AT_ONCE // context)
        for part in (activations[first : first + step] for first in range(0, batch, step)):
            # In float64 throughout: a small deviation around a large mean would drown in float32.
            exact = part.double()
            sums.append(exact.sum(1))
            self.sum += sums[-1].sum(0).numpy()
            self.sum_of_squares += exact.square_().sum((0, 1)).numpy()
            self.positive += (part > 0).sum((0, 1)).numpy()
            self._count(part.reshape(-1, units))
        return torch.cat(sums)

    def _count(self, activations: Tensor) -> None:
        bits = activations.contiguous().view(torch.int32)
        magnitude = ((bits & 0x7FFFFFFF) >> _DROPPED_BITS).sub_(_BELOW).clamp_(0, SIDE)
        place = torch.where(bits < 0, SIDE - magnitude, SIDE + magnitude).add_(self._first_bin)
        one = torch.ones(1, dtype=torch.int32).expand(place.numel())
        self._counts.scatter_add_(0, place.view(-1).long(), one)

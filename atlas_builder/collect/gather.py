"""Rows read out of a batch on a device: inputs at tokens, activations at and around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.models.memory import in_halves, to_host

_NUMBERS_AT_ONCE = 1 << 22
Places = NDArray[np.int64]


class Gatherer:
    """Reads rows out of tensors on a device, in as many steps as its memory asks for.

    Tensors are of a batch without beginnings of sequences. Raises `OutOfMemoryError` where not even one row fits.
    """

    def __init__(self, device: str, window: tuple[int, int]) -> None:
        self._device = device
        self._around = np.arange(-window[0], window[1] + 1)

    def inputs(self, inputs: Tensor, place: Places, position: Places) -> NDArray[np.float32]:
        """Of (batch, tokens, width) inputs, those at some places in the batch and positions: (rows, width)."""
        return self._rows(inputs.shape[2], lambda row, col: inputs[row, col], place, position)

    def values(self, activations: Tensor, place: Places, position: Places, unit: Places) -> NDArray[np.float32]:
        """Of (batch, tokens, units) activations, those at places, positions and units: (rows,)."""
        return self._rows(1, lambda *at: activations[at][:, None], place, position, unit)[:, 0]

    def windows(self, activations: Tensor, place: Places, position: Places, unit: Places) -> NDArray[np.float32]:
        """Activations around places, positions and units, NaN outside the context: (rows, window)."""
        tokens = activations.shape[1]
        around = torch.from_numpy(self._around).to(activations.device)

        def read(place: Tensor, position: Tensor, unit: Tensor) -> Tensor:
            at = position[:, None] + around  # (rows, window)
            found = activations[place[:, None], at.clamp(0, tokens - 1), unit[:, None]]
            return found.masked_fill((at < 0) | (at >= tokens), torch.nan)

        return self._rows(len(self._around), read, place, position, unit)

    def _rows(self, width: int, read: Callable[..., Tensor], *places: Places) -> NDArray[np.float32]:
        """The rows that `read` gives for indices on the device: (rows, width), float32."""
        rows = np.empty((len(places[0]), width), np.float32)
        size = max(1, _NUMBERS_AT_ONCE // width)
        refusal = f"one example does not fit into the memory of {self._device}: set a smaller corpus.context."

        for start in range(0, len(rows), size):

            def some(part: slice, start: int = start) -> None:
                these = slice(start + part.start, start + part.stop)
                at = [torch.from_numpy(np.ascontiguousarray(index[these])).to(self._device) for index in places]
                rows[these] = to_host(read(*at).float())

            in_halves(some, min(size, len(rows) - start), self._device, refusal)
        return rows

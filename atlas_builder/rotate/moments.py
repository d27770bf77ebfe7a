"""Sums over the tokens of a block, and moments from those of all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.rotate.gradients import MLPPass


class BlockMoments(NamedTuple):
    """Of what enters an MLP, over some tokens, in float64."""

    tokens: int
    mean: Tensor
    """μ: (d,)."""
    covariance: Tensor
    """G: (d, d)."""
    pulled: Tensor
    """M, the mean of JᵀJ: (d, d)."""
    slopes: Tensor
    """The mean derivative of activations by their parts: (parts, units)."""


class MomentSums:
    """Sums of one layer over a block; memory is bounded by the widths."""

    def __init__(self, width: int, parts: int, units: int) -> None:
        self._sums = {
            "tokens": torch.zeros(1, dtype=torch.int64),
            "inputs": torch.zeros(width, dtype=torch.float64),
            "squares": torch.zeros(width, width, dtype=torch.float64),
            "pulled": torch.zeros(width, width, dtype=torch.float64),
            "slopes": torch.zeros(parts, units, dtype=torch.float64),
        }

    def add(self, layer_pass: MLPPass, rows: NDArray[np.int64]) -> None:
        """Add some tokens; which they are does not matter."""
        x, gradients = layer_pass.inputs, layer_pass.input_gradients
        self._sums["tokens"] += len(rows)
        self._sums["inputs"] += x.sum(dim=0)
        self._sums["squares"].addmm_(x.T, x)
        self._sums["pulled"].addmm_(gradients.T, gradients)
        self._sums["slopes"] += layer_pass.slopes.sum(dim=1)

    def arrays(self) -> dict[str, Tensor]:
        """What a block's file holds."""
        return self._sums


def moments_of_blocks(blocks: Sequence[dict[str, Tensor]]) -> BlockMoments:
    """The moments over blocks, given what `arrays` said of each, added in their order."""
    total = {name: sum((block[name] for block in blocks[1:]), blocks[0][name]) for name in blocks[0]}
    tokens = int(total["tokens"])
    mean = total["inputs"] / max(1, tokens)
    covariance = total["squares"] / max(1, tokens) - mean[:, None] * mean
    back = total["pulled"] / max(1, tokens)
    return BlockMoments(
        tokens, mean, (covariance + covariance.T) / 2, (back + back.T) / 2, total["slopes"] / max(1, tokens)
    )

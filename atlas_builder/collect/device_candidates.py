"""What of a batch of activations may matter to a unit's examples and bands, found where the activations are.

Only that crosses to the host: a flat place in the batch and an activation, eight bytes each. Bounds
are those of the moment before, so all that matters is among it (see `replay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.bands import LEVELS, BandSampling
from atlas_builder.collect.device_counts import BlockCounts
from atlas_builder.collect.own import UNKNOWN
from atlas_builder.collect.sampling import SIDE_BY_SIDE
from atlas_builder.collect.selection import SelectionRule
from atlas_builder.models.memory import to_host


class DeviceCandidates(NamedTuple):
    """Some of a block of (batch, tokens, units) activations, on the device: (candidates,) each."""

    flat: Tensor
    """Flat places in the block, int32."""
    value: Tensor
    """float32"""


class HostCandidates(NamedTuple):
    """The same, on the host."""

    flat: NDArray[np.int32]
    value: NDArray[np.float32]


def peak_candidates(values: Tensor, counts: BlockCounts, rule: SelectionRule, first: int) -> DeviceCandidates:
    """The first highest and, with two signs, lowest activation of each context that reaches a column's bound."""
    _, tokens, units = values.shape
    columns = slice(first * rule.signs, (first + units) * rule.signs)
    bounds = torch.from_numpy(rule.bound[columns].reshape(units, rule.signs)).to(values.device)
    places, extremes = [], []
    for side, peaks in enumerate((counts.high, counts.low)[: rule.signs]):
        reaches = (-peaks if side else peaks) >= bounds[:, side]  # (batch, units)
        place, unit = reaches.nonzero(as_tuple=True)
        extreme = peaks[place, unit]  # (candidates,)
        courses = values.transpose(1, 2)[place, unit]  # (candidates, tokens)
        numbers = torch.arange(tokens, dtype=torch.int32, device=values.device)
        position = torch.where(courses == extreme[:, None], numbers, tokens).amin(1)
        places.append((place * tokens + position) * units + unit)
        extremes.append(extreme)
    return DeviceCandidates(torch.cat(places).int(), torch.cat(extremes))


def leading_zeros(chances: Tensor, masks: Tensor) -> Tensor:
    """Limits' levels: the zero bits with which chance ^ mask begins, 63 at most, (batch, tokens, blocks).

    `chances`, (batch, tokens), and `masks`, (blocks,), are int64 with the bits of what they stand for.
    """
    bits = chances[:, :, None] ^ masks
    level = torch.zeros_like(bits)
    for step in (32, 16, 8, 4, 2, 1):
        # A shift to the right copies the highest bit: where it is one, nothing is all zeros.
        is_zero = (bits >> (64 - step)) == 0
        level += is_zero * step
        bits = torch.where(is_zero, bits << step, bits)
    return level.clamp_(max=LEVELS - 1)


def token_candidates(
    values: Tensor, draw: BandSampling, levels: Tensor, first: int, left_out: Tensor | None
) -> DeviceCandidates:
    """The activations above the limits of a draw, `left_out` not among them.

    `levels` are `leading_zeros`, (batch, tokens, blocks); `left_out` is (batch, tokens, units).
    """
    blocks = levels.shape[2]
    start = first // SIDE_BY_SIDE
    limits = torch.from_numpy(draw.limit[start : start + blocks]).to(values.device)  # (blocks, levels, side by side)
    of_block = torch.arange(blocks, device=values.device) * LEVELS
    above = limits.flatten(0, 1)[levels + of_block]  # (batch, tokens, blocks, side by side)
    hit = values > above.flatten(2)[:, :, : values.shape[2]]
    if left_out is not None:
        hit &= ~left_out
    index = hit.flatten().nonzero()[:, 0]
    return DeviceCandidates(index.int(), values.flatten()[index])


def own_places(own: NDArray[np.int32], shape: Sequence[int], first: int, device: torch.device) -> Tensor:
    """Whether an activation is of a unit's own position, or before a token that is not known: `shape` of a block."""
    left_out = torch.zeros(tuple(shape), dtype=torch.bool, device=device)
    is_own = (own >= first) & (own < first + shape[2])
    place, position = (torch.from_numpy(found).to(device) for found in np.nonzero(is_own))
    left_out[place, position, torch.from_numpy(own[is_own] - first).long().to(device)] = True
    left_out |= torch.from_numpy(own == UNKNOWN).to(device)[:, :, None]
    return left_out


def cross(found: Sequence[DeviceCandidates]) -> list[HostCandidates]:
    """Take candidates to the host, all at once."""
    sizes = [len(part.flat) for part in found]
    # As integers, so that one transfer does for both.
    joined = torch.cat([part.flat for part in found] + [part.value.view(torch.int32) for part in found])
    ends = np.cumsum(sizes + sizes)[:-1]
    parts = np.split(to_host(joined), ends)
    return [
        HostCandidates(flat, value.view(np.float32))
        for flat, value in zip(parts[: len(found)], parts[len(found) :], strict=True)
    ]

"""Statistics of a layer, counted where its activations are, in the integers of `statistics`.

A sum within a context is added up in float64, token by token, so that it has the bits that the
compiled loops give it. Apple's devices have no float64: there each activation is a whole part and a
rest in units of 2⁻⁵², exact in any order; such sums differ from those of the loops by what float64
rounds, some 10⁻¹⁶ of the sum of magnitudes for each token of a context.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atlas_builder.collect import statistics
from atlas_builder.collect.histogram import BINS, MANTISSA_BITS, PEAK_BINS, PEAK_BITS, SIDE, code_below
from atlas_builder.collect.statistics import LARGEST_SQUARES, Tally
from atlas_builder.models.memory import to_host

_REST_BITS = 52
_HALF = _REST_BITS // 2
_LOW_HALF = (1 << _HALF) - 1
_MANTISSA, _EXPONENT = 23, 0xFF  # of float32
_UNIT_EXPONENT = 127 + _MANTISSA  # a float32 is its mantissa, a whole number, times two to its exponent less this


class BlockCounts(NamedTuple):
    """Counts of adjacent units in some contexts, on the device."""

    high: Tensor
    """Highest activation of each context: (batch, units)."""
    low: Tensor
    """(batch, units)"""
    bad: Tensor
    """Whether an activation is not a number or too large to be counted: (batch, units)."""
    positive: Tensor
    """Tokens with an activation above zero: (units,)."""
    sums: Tensor
    """(units, 4), as in `Tally`."""
    histogram: Tensor
    """(units, BINS)"""
    peaks: Tensor
    """(units × signs, PEAK_BINS)"""


def count_block(values: Tensor, signs: int) -> BlockCounts:
    """Count (batch, tokens, units) activations, float32."""
    high, low = values.amax(1), values.amin(1)
    if _has_float64(values.device.type):
        sums, bad = _float64_sums(values)
    else:
        sums, bad = _integer_sums(values)
    return BlockCounts(high, low, bad, (values > 0).sum((0, 1)), sums, _histogram(values), _peaks([high, -low][:signs]))


class DeviceCounts:
    """The counts of a layer's units since they were last taken to the host."""

    def __init__(self, units: int, signs: int, device: str) -> None:
        self._maximum = torch.full((units,), -torch.inf, device=device)
        self._minimum = torch.full((units,), torch.inf, device=device)
        self._positive = torch.zeros(units, dtype=torch.int64, device=device)
        self._sums = torch.zeros((units, 4), dtype=torch.int64, device=device)
        self._histogram = torch.zeros((units, BINS), dtype=torch.int32, device=device)
        self._peaks = torch.zeros((units * signs, PEAK_BINS), dtype=torch.int32, device=device)
        self._signs, self._tokens = signs, 0

    def add(self, first: int, counts: BlockCounts) -> None:
        """Add the counts of a block of units from `first` on; what is counted stays where it is."""
        these = slice(first, first + len(counts.positive))
        columns = slice(these.start * self._signs, these.stop * self._signs)
        self._maximum[these] = torch.maximum(self._maximum[these], counts.high.amax(0))
        self._minimum[these] = torch.minimum(self._minimum[these], counts.low.amin(0))
        self._positive[these] += counts.positive
        self._histogram[these] += counts.histogram
        self._peaks[columns] += counts.peaks
        sums = self._sums[these]
        sums += counts.sums
        for rest in (1, 3):  # carried at once, or a few thousand batches would be too many
            carry = sums[:, rest] >> _REST_BITS
            sums[:, rest - 1] += carry
            sums[:, rest] -= carry << _REST_BITS

    def add_tokens(self, tokens: int) -> None:
        """Note that so many tokens were counted of every unit."""
        self._tokens += tokens

    def move_to(self, tally: Tally) -> None:
        """Add all that was counted to a tally, and begin anew."""
        if not self._tokens:
            return
        counted = Tally(
            maximum=to_host(self._maximum),
            minimum=to_host(self._minimum),
            positive=to_host(self._positive),
            sums=to_host(self._sums),
            histogram=to_host(self._histogram).astype(np.uint32),
            peaks=to_host(self._peaks).astype(np.uint32),
            tokens=np.array([self._tokens], np.int64),
        )
        statistics.add(tally, counted)
        self._maximum.fill_(-torch.inf)
        self._minimum.fill_(torch.inf)
        for counts in (self._positive, self._sums, self._histogram, self._peaks):
            counts.zero_()
        self._tokens = 0


def _has_float64(device: str) -> bool:
    return device != "mps"


def _float64_sums(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of (batch, tokens, units) activations and their squares, (units, 4), and what is no number."""
    total, squares = _in_token_order(values)
    bad = ~(squares < LARGEST_SQUARES)  # (batch, units)
    parts = []
    for sums in (total, squares.masked_fill(bad, 0)):
        whole = sums.floor()
        parts += _carried(whole.long(), ((sums - whole) * 2.0**_REST_BITS).long())
    return torch.stack(parts, dim=1), bad


def _in_token_order(values: Tensor) -> tuple[Tensor, Tensor]:
    """Running sums of activations and of their squares, token after token, in float64: (batch, units) each."""
    if _scans_in_order(values.device.type):
        exact = values.double()
        return exact.cumsum(1)[:, -1], exact.square_().cumsum(1)[:, -1]
    shape = (values.shape[0], values.shape[2])
    total, squares = torch.zeros((2, *shape), dtype=torch.float64, device=values.device)
    for t in range(values.shape[1]):
        exact = values[:, t].double()
        total += exact
        squares += exact.square_()
    return total, squares


@cache
def _scans_in_order(device: str) -> bool:
    """Whether the device adds up a sum over an inner dimension term by term, as far as a trial shows.

    One kernel then does what takes two for each token otherwise. On the processor those are faster.
    """
    if device == "cpu":
        return False
    magnitudes = torch.linspace(-40, 40, 128, dtype=torch.float64)[None, :, None]
    angles = torch.arange(4 * 128 * 64, dtype=torch.float64).reshape(4, 128, 64)
    trial = (angles * 1.7).sin() * (magnitudes * (angles * 0.3).cos()).exp()  # of many sizes, so that order shows
    total = torch.zeros(4, 64, dtype=torch.float64)
    for t in range(trial.shape[1]):
        total += trial[:, t]
    return torch.equal(trial.to(device).cumsum(1)[:, -1].cpu(), total)


def _carried(whole: Tensor, rest: Tensor) -> list[Tensor]:
    """Sums over all but the last dimension of whole parts and of rests below 2⁵² in magnitude: (units,) each."""
    over = tuple(range(whole.ndim - 1))
    low = (rest & _LOW_HALF).sum(over)  # in halves: more than two thousand rests would not fit
    high = (rest >> _HALF).sum(over) + (low >> _HALF)
    carry = high >> (_REST_BITS - _HALF)
    return [whole.sum(over) + carry, ((high & _LOW_HALF) << _HALF) | (low & _LOW_HALF)]


def _integer_sums(values: Tensor) -> tuple[Tensor, Tensor]:
    """As `_float64_sums`, by integers: exact in any order, but for what is below 2⁻⁵²."""
    bad = ~(values.square().sum(1) < LARGEST_SQUARES)
    bits = values.masked_fill(bad[:, None], 0).contiguous().view(torch.int32)
    exponent = ((bits >> _MANTISSA) & _EXPONENT).long()
    mantissa = (bits & ((1 << _MANTISSA) - 1)).long() | ((exponent > 0).long() << _MANTISSA)
    exponent = exponent.clamp(min=1) - _UNIT_EXPONENT
    sign = torch.where(bits < 0, -1, 1)
    total = _carried(*(sign * part for part in _parted(mantissa, exponent)))
    return torch.stack([*total, *_carried(*_parted(mantissa * mantissa, 2 * exponent))], dim=1), bad


def _parted(number: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """The whole part of number · 2^exponent, and the rest in units of 2⁻⁵²; a number is below 2⁴⁸."""
    up, down = exponent.clamp(0, 62), (-exponent).clamp(0, 62)
    whole = torch.where(exponent >= 0, number << up, number >> down)
    rest = number & ((torch.ones_like(down) << down) - 1)
    small = torch.where(-exponent > 62, -exponent - _REST_BITS, down - _REST_BITS).clamp(0, 62)
    return whole, (rest << (_REST_BITS - down).clamp(min=0)) >> small


def _histogram(values: Tensor) -> Tensor:
    """(units, BINS) counts of (batch, tokens, units) activations."""
    bits = values.contiguous().view(torch.int32)
    magnitude = ((bits & 0x7FFFFFFF) >> (_MANTISSA - MANTISSA_BITS)) - code_below(MANTISSA_BITS)
    magnitude = magnitude.clamp_(0, SIDE)
    bins = torch.where(bits < 0, SIDE - magnitude, SIDE + magnitude)
    units = values.shape[2]
    bins += torch.arange(units, dtype=torch.int32, device=values.device) * BINS
    return _counted(bins, units * BINS).view(units, BINS)


def _peaks(sides: list[Tensor]) -> Tensor:
    """(units × signs, PEAK_BINS) counts of contexts by their peaks above zero, (batch, units) of each side."""
    peaks = torch.stack(sides, dim=2).flatten(1)  # (batch, columns)
    bits = peaks.contiguous().view(torch.int32)
    bins = ((bits >> (_MANTISSA - PEAK_BITS)) - code_below(PEAK_BITS)).clamp_(0, PEAK_BINS - 1)
    columns = peaks.shape[1]
    bins += torch.arange(columns, dtype=torch.int32, device=peaks.device) * PEAK_BINS
    bins.masked_fill_(bits <= 0, columns * PEAK_BINS)  # counted behind all others
    return _counted(bins, columns * PEAK_BINS + 1)[:-1].view(columns, PEAK_BINS)


def _counted(bins: Tensor, length: int) -> Tensor:
    """How often each of `length` numbers comes: (length,), int32."""
    flat = bins.flatten()
    if flat.device.type == "cpu":
        return torch.bincount(flat, minlength=length).int()
    # On other devices bincount asks for the highest number first, and everything waits for the answer.
    counts = torch.zeros(length, dtype=torch.int32, device=flat.device)
    return counts.scatter_add_(0, flat.long(), torch.ones_like(flat, dtype=torch.int32))

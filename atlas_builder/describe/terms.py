"""In how many examples of each behaviour a term is, and how far that tells a behaviour from others."""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Terms:
    """The terms of one kind, such as key words, of all behaviours of a layer: each behaviour's own once, rising.

    A term is a number. Arrays are (pairs,) of a behaviour and a term of it, unless said otherwise.
    """

    def __init__(self, behaviour: Numbers, term: Numbers, totals: Numbers) -> None:
        """From the behaviour and the term of each example that has it, (n,), and examples by behaviour, `totals`."""
        self.totals = totals
        self._terms = int(term.max(initial=-1)) + 1
        codes = np.sort(behaviour * self._terms + term)
        firsts = first_of_each(codes)
        self.count: Numbers = np.diff(firsts, append=len(codes))
        """In how many examples of the behaviour the term is."""
        self.behaviour, self.term = np.divmod(codes[firsts], max(1, self._terms))

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """f(t, c)."""
        return np.asarray(self.count / self.totals[self.behaviour])

    @cached_property
    def rarity(self) -> NDArray[np.float64]:
        """ln(1 + N / n(t)) of each term, (terms,): N behaviours, of which n(t) have it."""
        number = np.bincount(self.term, minlength=self._terms)
        few = np.unique(number)
        logarithm = [math.log1p(len(self.totals) / one) if one else math.nan for one in few.tolist()]
        return np.array(logarithm, np.float64)[np.searchsorted(few, number)]

    def common(self, least: float, behaviours: NDArray[np.bool_] | None = None) -> Numbers:
        """The places of pairs whose share is at least `least`, of some `behaviours` (behaviours,) or of all."""
        enough = self.count >= least * self.totals[self.behaviour]
        return np.flatnonzero(enough if behaviours is None else enough & behaviours[self.behaviour])

    def separation(self, pairs: Numbers, group: Numbers) -> NDArray[np.float64]:
        """f / (f + g) of some pairs: g is the share of all examples of others in the behaviour's group that have it.

        `group` is a number of each behaviour, (behaviours,); others are those of the same number.
        """
        asked = group[self.behaviour[pairs]] * self._terms + self.term[pairs]
        is_asked = np.zeros(self._terms, np.bool_)
        is_asked[self.term[pairs]] = True
        kept = np.flatnonzero(is_asked[self.term])
        codes, place = np.unique(group[self.behaviour[kept]] * self._terms + self.term[kept], return_inverse=True)
        sums = np.bincount(place, weights=self.count[kept], minlength=len(codes))
        elsewhere = sums[np.searchsorted(codes, asked)] - self.count[pairs]
        of_group = np.bincount(group, weights=self.totals, minlength=int(group.max(initial=0)) + 1)
        others = of_group[group] - self.totals  # (behaviours,)
        share = self.share[pairs]
        with np.errstate(divide="ignore", invalid="ignore"):
            separation = share / (share + elsewhere / others[self.behaviour[pairs]])
        return np.asarray(np.where(elsewhere > 0, separation, 1.0))

    def scores(self, pairs: Numbers, group: Numbers) -> NDArray[np.float64]:
        """f(t, c) · ln(1 + N / n(t)) · separation(t, c) of some pairs."""
        return np.asarray(self.share[pairs] * self.rarity[self.term[pairs]] * self.separation(pairs, group))


class RankedTerms(NamedTuple):
    """Terms of behaviours, those of a behaviour in a row: (n,) each."""

    behaviour: Numbers
    term: Numbers


def first_of_each(sorted_numbers: NDArray[np.integer]) -> Numbers:
    """Where each number begins in a row of them that rises."""
    is_first = np.ones(len(sorted_numbers), np.bool_)
    is_first[1:] = sorted_numbers[1:] != sorted_numbers[:-1]
    return np.flatnonzero(is_first)


def place_in_row(owner: Numbers) -> Numbers:
    """How many of the same owner come before, owners rising: (n,)."""
    firsts = first_of_each(owner)
    return np.arange(len(owner)) - np.repeat(firsts, np.diff(firsts, append=len(owner)))

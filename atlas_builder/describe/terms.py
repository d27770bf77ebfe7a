"""In how many examples of each behaviour a term is, and how far that tells a behaviour from others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Generic, TypeVar

Term = TypeVar("Term", bound=Hashable)


@dataclass(frozen=True)
class Terms(Generic[Term]):
    """The terms of one kind, such as key words, of all behaviours of a layer."""

    counts: Sequence[Mapping[Term, int]]
    """Of each behaviour, in how many of its examples each term is."""
    totals: Sequence[int]
    """Of each behaviour, out of how many examples."""

    @classmethod
    def one_an_example(cls, behaviours: Iterable[Iterable[Term]]) -> Terms[Term]:
        """Of examples that have one term each."""
        counts = [Counter(terms) for terms in behaviours]
        return cls(counts, [count.total() for count in counts])

    @classmethod
    def many_an_example(cls, behaviours: Sequence[Sequence[frozenset[Term]]]) -> Terms[Term]:
        """Of examples that have any number of terms."""
        counts = [Counter(chain.from_iterable(examples)) for examples in behaviours]
        return cls(counts, [len(examples) for examples in behaviours])

    @cached_property
    def rarity(self) -> Mapping[Term, float]:
        """ln(1 + N / n(t)) of each term: N behaviours, of which n(t) have it."""
        behaviours_with: Counter[Term] = Counter()
        for count in self.counts:
            behaviours_with.update(count.keys())
        return {term: math.log1p(len(self.counts) / number) for term, number in behaviours_with.items()}

    def shares(self, behaviour: int, least: float = 0.0) -> dict[Term, float]:
        """f(t, c) of each term of a behaviour whose share is at least `least`."""
        total = self.totals[behaviour]
        return {term: count / total for term, count in self.counts[behaviour].items() if count >= least * total}

    def separation(self, behaviour: int, term: Term, others: Sequence[int]) -> float:
        """f / (f + g) of a term of a behaviour: g is the share of all examples of `others` that have it."""
        share = self.counts[behaviour][term] / self.totals[behaviour]
        elsewhere = sum(self.counts[other].get(term, 0) for other in others)
        if not elsewhere:
            return 1.0
        return share / (share + elsewhere / sum(self.totals[other] for other in others))

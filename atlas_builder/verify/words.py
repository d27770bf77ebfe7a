"""How rare words are among the behaviours of a layer, for labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from atlas_builder.verify.wording import KINDS, BehaviourWords, Rarity, Term

_SAMPLED, _UNSURE = 40, 8  # other numbers of behaviours that are tried


class LayerVocabulary:
    """The words of the behaviours of some units of a layer, or of all.

    `units` has, by layer and unit, the words of each behaviour, `behaviours` is the number of behaviours of the
    whole layer, by its records, and `complete` says whether all units are there.
    """

    def __init__(
        self, units: Mapping[tuple[int, int], Sequence[BehaviourWords]], behaviours: int, complete: bool
    ) -> None:
        self._units, self._behaviours, self._complete = units, behaviours, complete
        self._known = sum(map(len, units.values()))
        self._having: dict[str, Counter[Term]] = {kind: Counter() for kind in KINDS}
        for described in units.values():
            for behaviour in described:
                for kind in KINDS:
                    self._having[kind].update(behaviour.counts[kind].keys())

    def rarities(self, unit: tuple[int, int], described: Sequence[BehaviourWords]) -> Iterator[Rarity]:
        """Rarities of words among the layer's behaviours, those of a unit being `described`: the likeliest first.

        In another run a few behaviours of the layer may differ by rounding. Where words are known from a sample,
        their numbers in the layer are drawn from what the sample allows.
        """
        own = {kind: Counter(term for one in described for term in one.counts[kind]) for kind in KINDS}
        former = self._units.get(unit, ())
        replaced = {kind: Counter(term for one in former for term in one.counts[kind]) for kind in KINDS}
        known = self._known - len(former)
        number = known + len(described) if self._complete else max(self._behaviours, len(described))
        chance = np.random.default_rng(0)
        for turn in range(1 + (_UNSURE if self._complete else _SAMPLED)):
            yield self._rarity(own, replaced, known, number, len(described), chance if turn else None)

    def _rarity(
        self,
        own: dict[str, Counter[Term]],
        replaced: dict[str, Counter[Term]],
        known: int,
        number: int,
        unit: int,
        chance: np.random.Generator | None,
    ) -> Rarity:
        drawn: dict[tuple[str, Term], int] = {}

        def having(kind: str, term: Term) -> int:
            of_others = self._having[kind][term] - replaced[kind][term]
            if self._complete:
                off = 0 if chance is None or known < 100 else int(chance.integers(-1, 2))
                return min(max(own[kind][term] + of_others + off, own[kind][term], 1), number)
            rest = max(number - unit - known, 0)  # behaviours that are not known
            if chance is None:
                unseen = rest * of_others / known if known else 0.0
            else:  # the share among all, given that of the sample
                unseen = rest * float(chance.beta(of_others + 0.5, max(known - of_others, 0) + 0.5))
            return min(own[kind][term] + of_others + round(unseen), number)

        def rarity(kind: str, term: Term) -> float:
            if (kind, term) not in drawn:
                drawn[kind, term] = having(kind, term)
            return math.log1p(number / max(drawn[kind, term], 1))

        return rarity

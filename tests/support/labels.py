"""Labels of behaviours the slow, obvious way: example by example and term by term."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from atlas_builder.describe.labels import Wording
from atlas_builder.describe.scenes import Piece, Scene

_Key = TypeVar("_Key", bound=Hashable)
_SHARE_OF_A_KEY = 0.2
_SHARE_OF_A_PART = 0.4
_SHARE_OF_A_CUE = 0.4
_SHARE_OF_A_THEME = 0.3
_CONTINUED_SHARE = 1 / 2
_CONTINUED_SEPARATION = 2 / 3  # at least twice as common as in the siblings that are labelled alike
_CONTINUED_RARITY = math.log1p(10)  # around a key token in at most a tenth of the layer's behaviours
_EXAMPLES_OF_A_CUE = 2
_EXAMPLES_OF_A_THEME = 3
_WORDS = 3
_WORDS_KEPT = 8
Term = TypeVar("Term", bound=Hashable)


@dataclass(frozen=True)
class _Terms(Generic[Term]):
    """The terms of one kind, such as key words, of all behaviours of a layer."""

    counts: Sequence[Mapping[Term, int]]
    """Of each behaviour, in how many of its examples each term is."""
    totals: Sequence[int]
    """Of each behaviour, out of how many examples."""

    @classmethod
    def one_an_example(cls, behaviours: Iterable[Iterable[Term]]) -> _Terms[Term]:
        """Of examples that have one term each."""
        counts = [Counter(terms) for terms in behaviours]
        return cls(counts, [count.total() for count in counts])

    @classmethod
    def many_an_example(cls, behaviours: Sequence[Sequence[frozenset[Term]]]) -> _Terms[Term]:
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


def slow_words(behaviours: Sequence[Sequence[Scene]], units: Sequence[int]) -> list[Wording]:
    """What `labels.describe_words` finds, given each behaviour's examples."""
    layer = _Layer(behaviours)
    labels: dict[int, _Label] = {}
    for siblings in _groups(range(len(behaviours)), units):
        of_unit = {one: layer.label(one, _without(siblings, one)) for one in siblings}
        labels |= of_unit
        for alike in _groups(siblings, [of_unit[one].what for one in siblings]):
            for one in alike:
                labels[one] = layer.continued(of_unit[one], one, _without(alike, one))
    return [Wording(str(labels[one]), layer.commonest(one)) for one in range(len(behaviours))]


def _groups(items: Iterable[int], keys: Sequence[_Key]) -> list[list[int]]:
    """Items of the same key, in their order."""
    groups: defaultdict[_Key, list[int]] = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        groups[key].append(item)
    return list(groups.values())


def _without(items: Sequence[int], one: int) -> list[int]:
    return [item for item in items if item != one]


class _Label(NamedTuple):
    """A label in parts: `lead` says what its words are, `end` continues it."""

    words: list[str]
    lead: str = ""
    part: str = ""
    end: str = ""

    @property
    def what(self) -> tuple[str, frozenset[str]]:
        """What two labels have in common that a reader cannot tell apart; of words with a part, the part."""
        return self.lead, frozenset([self.part] if self.part else self.words)

    def __str__(self) -> str:
        return f"{self.lead}{', '.join(self.words)}{self.end}"


class _Layer:
    """The behaviours of a layer by the words of their examples; `others` are behaviours to tell one from."""

    def __init__(self, behaviours: Sequence[Sequence[Scene]]) -> None:
        self.keys = _Terms.one_an_example([scene.key for scene in scenes if scene.key] for scenes in behaviours)
        self.pieces = _Terms.one_an_example(
            [scene.piece for scene in scenes if scene.piece.text] for scenes in behaviours
        )
        self.befores = _Terms.one_an_example(
            [scene.before for scene in scenes if scene.before] for scenes in behaviours
        )
        self.arounds = _Terms.many_an_example([[scene.around for scene in scenes] for scenes in behaviours])

    def commonest(self, one: int) -> list[tuple[str, float]]:
        """The commonest key words of a behaviour, with their shares."""
        ranked = sorted(self.keys.shares(one).items(), key=lambda item: (-item[1], item[0]))
        return ranked[:_WORDS_KEPT]

    def label(self, one: int, others: Sequence[int]) -> _Label:
        """The label of a behaviour beside `others`, its siblings."""
        pieces, keys = self.pieces.shares(one), self.keys.shares(one)
        piece, share = max(pieces.items(), key=lambda item: (item[1], item[0]), default=(Piece(""), 0.0))
        common = max(keys.values(), default=0.0)
        if (piece.before or piece.after) and share >= _SHARE_OF_A_PART and common < share / 2:
            return _Label(self._key_words(one, others)[:2], f"“{piece.text}” in ", piece.text)
        if common >= _SHARE_OF_A_KEY:
            return _Label(self._key_words(one, others))
        if cue := self._cue(one, others):
            return _Label([cue], "after ")
        themes = self._themes(one, others)
        return _Label(_best(themes), "near ") if themes else _Label(self._key_words(one, others))

    def continued(self, label: _Label, one: int, others: Sequence[int]) -> _Label:
        """A label continued by what tells it from `others`, siblings labelled alike, if something does.

        That is the word before or else a word around. It must be in half of the behaviour's
        examples, twice as common as in `others`, and no accident: the word before in two
        examples; one around, of which there are many to choose from, in three, and not a word
        such as “the” that more than a tenth of the layer's behaviours have around.
        """
        if not others or label.lead == "near ":
            return label
        cues = self._distinct(self.befores, one, others, _EXAMPLES_OF_A_CUE)
        if cues and label.lead != "after ":
            return label._replace(end=f" (after {_best(cues)[0]})")
        themes = {
            word: score
            for word, score in self._distinct(self.arounds, one, others, _EXAMPLES_OF_A_THEME).items()
            if self.arounds.rarity[word] >= _CONTINUED_RARITY and word not in label.words
        }
        return label._replace(end=f" (near {_best(themes)[0]})") if themes else label

    def _distinct(self, terms: _Terms[str], one: int, others: Sequence[int], examples: int) -> dict[str, float]:
        """The scores of words that are common in a behaviour, in so many examples at least, and less so in `others`."""
        return {
            word: score
            for word, score in self._scores(terms, one, others, _CONTINUED_SHARE).items()
            if terms.counts[one][word] >= examples and terms.separation(one, word, others) >= _CONTINUED_SEPARATION
        }

    def _key_words(self, one: int, others: Sequence[int]) -> list[str]:
        return _best(self._scores(self.keys, one, others))

    def _cue(self, one: int, others: Sequence[int]) -> str:
        """The word before that is common in a behaviour and sets it apart most; none is common enough: empty."""
        shares = self.befores.shares(one, _SHARE_OF_A_CUE)
        scores = {word: share * self.befores.separation(one, word, others) for word, share in shares.items()}
        return max(scores, key=lambda word: (scores[word], word), default="")

    def _themes(self, one: int, others: Sequence[int]) -> dict[str, float]:
        """The scores of the words around that are common in a behaviour, and not in the layer.

        At most a quarter of its behaviours have one at all.
        """
        behaviours_with = Counter(chain.from_iterable(count.keys() for count in self.arounds.counts))
        most = len(self.arounds.counts) / 4
        return {
            word: score
            for word, score in self._scores(self.arounds, one, others, _SHARE_OF_A_THEME).items()
            if behaviours_with[word] <= most
        }

    @staticmethod
    def _scores(terms: _Terms[str], one: int, others: Sequence[int], least: float = 0.0) -> dict[str, float]:
        """f(t, c) · ln(1 + N / n(t)) · separation(t, c) of terms whose share in a behaviour is at least `least`."""
        rarity = terms.rarity
        return {
            term: share * rarity[term] * terms.separation(one, term, others)
            for term, share in terms.shares(one, least).items()
        }


def _best(scores: dict[str, float]) -> list[str]:
    """The words of the highest score, down to a quarter of the best; of spellings that differ in case only, one."""
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    chosen: dict[str, str] = {}
    for word, score in ranked:
        if len(chosen) == _WORDS or score < ranked[0][1] / 4:
            break
        chosen.setdefault(word.casefold(), word)
    return list(chosen.values())

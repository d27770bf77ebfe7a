"""A short label for each behaviour, from the words of its examples (class-based TF-IDF, Grootendorst 2022).

A class is a behaviour, a term a word. With f(t, c) the share of behaviour c's examples
that contain word t and n(t) the number of the N behaviours of the layer that contain it at
all, f(t, c) · ln(1 + N / n(t)) is high for words common in this behaviour and rare in the
layer. A label is read beside those of the unit's other behaviours, its siblings, so a score
has one more factor, which is ours:

    separation(t, c) = f(t, c) / (f(t, c) + g(t, c)),

where g(t, c) is the share of all examples of c's siblings that contain t: siblings count by
their size, and those of the other sign as well, since lists of labels do not part the signs.
Were an example as likely to be c's as a sibling's, separation is the chance that an example
with t is c's: ½ for a word as common in the siblings, 1 for a word of c alone, and so for
every word of a unit with one behaviour, whose label is that of TF-IDF. Siblings that are
labelled alike all the same are continued, `the (after of)`, by what differs between them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.describe.terms import Numbers, RankedTerms, Terms, place_in_row
from atlas_builder.describe.window_words import PIECES, WindowWords

_SHARE_OF_A_KEY = 0.2
_SHARE_OF_A_PART = 0.4
_SHARE_OF_A_CUE = 0.4
_SHARE_OF_A_THEME = 0.3
_RARITY_OF_A_THEME = math.log1p(4)  # around a key token in at most a quarter of the layer's behaviours
_CONTINUED_SHARE = 1 / 2
_CONTINUED_SEPARATION = 2 / 3  # at least twice as common as in the siblings that are labelled alike
_CONTINUED_RARITY = math.log1p(10)  # around a key token in at most a tenth of the layer's behaviours
_EXAMPLES_OF_A_CUE = 2
_EXAMPLES_OF_A_THEME = 3
_WORDS = 3
_LEAST_OF_BEST = 1 / 4
_WORDS_KEPT = 8


class Wording(NamedTuple):
    """A behaviour in words: its label, and its commonest key words with their shares of its examples."""

    label: str
    words: list[tuple[str, float]]


def describe_words(
    windows: WindowWords, window: Numbers, behaviour: Numbers, units: NDArray[np.integer]
) -> list[Wording]:
    """A label for each behaviour of a layer, given its examples and its unit, and its commonest key words.

    `window` (examples,) is the place of each example's window among `windows`, `behaviour` (examples,) that of its
    behaviour among those whose `units` are given, (behaviours,).

    The label lists the key words, `and, for`; where they differ but share the part that is
    the key token, that part first, `“ed” in wanted, started`; where both differ but the word
    before is the same, `after import`; where only surrounding words are shared that few other behaviours have around,
    `near x, y`; else the key words that come nearest to being shared.
    What two behaviours of a unit would share is continued by the word before or a word around,
    `the (after of)`, `“ed” in wanted, started (near piano)`.
    """
    layer = _Layer(windows, window, behaviour, units)
    labels = layer.labels()
    layer.continue_alike(labels)
    return [Wording(str(label), words) for label, words in zip(labels, layer.commonest(), strict=True)]


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
    """The behaviours of a layer by the words of their examples."""

    def __init__(self, windows: WindowWords, window: Numbers, behaviour: Numbers, units: NDArray[np.integer]) -> None:
        self._windows, self._units = windows, units
        self._count = len(units)
        self._keys, self._pieces, self._befores = (
            self._one_an_example(terms[window], behaviour) for terms in (windows.key, windows.piece, windows.before)
        )
        sizes = np.diff(windows.starts)[window]
        place = np.repeat(windows.starts[window] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        totals = np.bincount(behaviour, minlength=self._count)
        self._arounds = Terms(np.repeat(behaviour, sizes), windows.around[place], totals)
        self._siblings = np.unique(units, return_inverse=True)[1].reshape(-1)
        folds: dict[str, int] = {}
        self._fold = np.array([folds.setdefault(text.casefold(), len(folds)) for text in windows.texts], np.int64)

    def _one_an_example(self, terms: Numbers, behaviour: Numbers) -> Terms:
        """Of examples that have one term each, or none: −1."""
        has = terms >= 0
        return Terms(behaviour[has], terms[has], np.bincount(behaviour[has], minlength=self._count))

    def commonest(self) -> list[list[tuple[str, float]]]:
        """The commonest key words of each behaviour, with their shares."""
        keys = self._keys
        order = np.lexsort([keys.term, -keys.count, keys.behaviour])
        order = order[place_in_row(keys.behaviour[order]) < _WORDS_KEPT]
        words = list(zip(self._texts(keys.term[order]), keys.share[order].tolist(), strict=True))
        ends = np.searchsorted(keys.behaviour[order], np.arange(self._count + 1)).tolist()
        return [words[low:high] for low, high in pairwise(ends)]

    def labels(self) -> list[_Label]:
        """The label of each behaviour beside its siblings."""
        piece, piece_count = _commonest_of_each(self._pieces, self._count)
        piece_share = piece_count / np.maximum(self._pieces.totals, 1)
        common = _commonest_of_each(self._keys, self._count)[1] / np.maximum(self._keys.totals, 1)
        goes_on = (piece >= 0) & (piece % PIECES > 0)
        has_part = goes_on & (piece_share >= _SHARE_OF_A_PART) & (common < piece_share / 2)
        has_key = ~has_part & (common >= _SHARE_OF_A_KEY)
        cue = self._cues(~has_part & ~has_key)
        asked = ~has_part & ~has_key & (cue < 0)
        themes = self._best_words(self._arounds, _SHARE_OF_A_THEME, asked, _RARITY_OF_A_THEME)
        keys = self._best_words(self._keys, 0.0, np.ones(self._count, np.bool_))
        labels = []
        for one, kind in enumerate(np.select([has_part, has_key, cue >= 0], [0, 1, 2], 3).tolist()):
            if kind == 0:
                text = self._windows.texts[piece[one] // PIECES]
                labels.append(_Label(keys[one][:2], f"“{text}” in ", text))
            elif kind == 2:
                labels.append(_Label([self._windows.texts[cue[one]]], "after "))
            elif kind == 3 and one in themes:
                labels.append(_Label(themes[one], "near "))
            else:
                labels.append(_Label(keys.get(one, [])))
        return labels

    def continue_alike(self, labels: list[_Label]) -> None:
        """Continue labels by what tells behaviours from siblings labelled alike, if something does.

        That is the word before or else a word around. It must be in half of the behaviour's
        examples, twice as common as in those labelled alike, and no accident: the word before in two
        examples; one around, of which there are many to choose from, in three, and not a word
        such as “the” that more than a tenth of the layer's behaviours have around.
        """
        groups: defaultdict[tuple[int, tuple[str, frozenset[str]]], list[int]] = defaultdict(list)
        for one, (unit, label) in enumerate(zip(self._siblings.tolist(), labels, strict=True)):
            groups[unit, label.what].append(one)
        alike = np.full(self._count, len(groups))
        for number, members in enumerate(groups.values()):
            if len(members) > 1 and labels[members[0]].lead != "near ":
                alike[members] = number
        asked = alike < len(groups)
        cues = self._distinct(self._befores, asked, alike, _EXAMPLES_OF_A_CUE)
        themes = self._distinct(self._arounds, asked, alike, _EXAMPLES_OF_A_THEME)
        for one in np.flatnonzero(asked).tolist():
            label = labels[one]
            if label.lead != "after " and one in cues:
                labels[one] = label._replace(end=f" (after {cues[one][0]})")
            elif theme := next((word for word in themes.get(one, ()) if word not in label.words), ""):
                labels[one] = label._replace(end=f" (near {theme})")

    def _distinct(self, terms: Terms, asked: NDArray[np.bool_], group: Numbers, examples: int) -> dict[int, list[str]]:
        """By behaviour the words that are common in it, in so many examples at least, and less so in its group."""
        pairs = terms.common(_CONTINUED_SHARE, asked)
        pairs = pairs[terms.count[pairs] >= examples]
        if terms is self._arounds:
            pairs = pairs[terms.rarity[terms.term[pairs]] >= _CONTINUED_RARITY]
        pairs = pairs[terms.separation(pairs, group) >= _CONTINUED_SEPARATION]
        scores = terms.scores(pairs, group)
        order = np.lexsort([terms.term[pairs], -scores, terms.behaviour[pairs]])
        return self._by_behaviour(RankedTerms(terms.behaviour[pairs][order], terms.term[pairs][order]))

    def _cues(self, asked: NDArray[np.bool_]) -> Numbers:
        """The word before that is common in a behaviour and sets it apart most, −1 without: (behaviours,)."""
        terms = self._befores
        pairs = terms.common(_SHARE_OF_A_CUE, asked)
        scores = terms.share[pairs] * terms.separation(pairs, self._siblings)
        order = pairs[np.lexsort([terms.term[pairs], scores])]
        cues = np.full(self._count, -1)
        cues[terms.behaviour[order]] = terms.term[order]  # the last of a behaviour stays
        return cues

    def _best_words(
        self, terms: Terms, least: float, asked: NDArray[np.bool_], rarity: float = 0.0
    ) -> dict[int, list[str]]:
        """By behaviour the words of the highest score beside siblings, of those of a share of at least `least`.

        They are as rare in the layer as `rarity`, ln(1 + N / n(t)), and go down to a quarter of the best; of
        spellings that differ in case only, one.
        """
        pairs = terms.common(least, asked)
        pairs = pairs[terms.rarity[terms.term[pairs]] >= rarity]
        scores = terms.scores(pairs, self._siblings)
        best = np.zeros(self._count)
        np.maximum.at(best, terms.behaviour[pairs], scores)
        near = scores >= best[terms.behaviour[pairs]] * _LEAST_OF_BEST
        pairs, scores = pairs[near], scores[near]
        pairs = pairs[np.lexsort([terms.term[pairs], -scores, terms.behaviour[pairs]])]
        spelling = terms.behaviour[pairs] * (len(self._fold) + 1) + self._fold[terms.term[pairs]]
        pairs = pairs[np.sort(np.unique(spelling, return_index=True)[1])]
        pairs = pairs[place_in_row(terms.behaviour[pairs]) < _WORDS]
        return self._by_behaviour(RankedTerms(terms.behaviour[pairs], terms.term[pairs]))

    def _by_behaviour(self, ranked: RankedTerms) -> dict[int, list[str]]:
        words: defaultdict[int, list[str]] = defaultdict(list)
        for one, text in zip(ranked.behaviour.tolist(), self._texts(ranked.term), strict=True):
            words[one].append(text)
        return words

    def _texts(self, terms: Numbers) -> list[str]:
        texts = self._windows.texts
        return [texts[term] for term in terms.tolist()]


def _commonest_of_each(terms: Terms, behaviours: int) -> tuple[Numbers, Numbers]:
    """The commonest term of each behaviour, of equals the last, −1 without, and in how many examples it is."""
    order = np.lexsort([terms.term, terms.count])
    term, count = np.full(behaviours, -1), np.zeros(behaviours, np.int64)
    term[terms.behaviour[order]], count[terms.behaviour[order]] = terms.term[order], terms.count[order]
    return term, count

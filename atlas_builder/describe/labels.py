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
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

import regex

from atlas_builder.corpus.characters import beginning, split_at
from atlas_builder.describe.terms import Terms

_Key = TypeVar("_Key", bound=Hashable)
_ASCII_WORD = re.compile(r"\w+|[^\w\s]+|\s+", re.ASCII)  # in text of ASCII the same as below, in half the time
# Scripts without spaces between words: each character is a word, but those of foreign words are together.
_SOLO = "".join(rf"\p{{Script={name}}}" for name in ("Han", "Hiragana", "Thai", "Lao", "Khmer", "Myanmar"))
_KATAKANA = r"\p{Script=Katakana}\u30fc"
_WORD = regex.compile(
    rf"[{_SOLO}][\p{{M}}\u0e33\u0eb3]*"  # the vowel am of Thai and Lao follows as a letter, but is no character
    rf"|\p{{Script=Katakana}}[{_KATAKANA}\p{{M}}]*"
    r"|(?=\p{Extended_Pictographic}|\p{Regional_Indicator})\X"
    rf"|(?![{_SOLO}{_KATAKANA}])[\w\p{{M}}](?:(?![{_SOLO}{_KATAKANA}])(?:[\w\p{{M}}]|[\u200c\u200d](?=\w)))*"
    r"|(?:(?![\p{Extended_Pictographic}\p{Regional_Indicator}])[^\w\p{M}\s]\p{M}*)+"
    r"|\n\s*|\s+|."
)
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
_LONGEST = 24
_WORDS_REMEMBERED = 1 << 16


class Piece(NamedTuple):
    """The key token within its word: its text, and whether the word goes on before and after it."""

    text: str
    before: bool = False
    after: bool = False


class Scene(NamedTuple):
    """The words of one example: that of the key token, its `piece`, the word before, and all words around."""

    key: str
    piece: Piece
    before: str
    around: frozenset[str]


def scene(tokens: Sequence[str], key: int) -> Scene:
    """Split an example's window into words; `key` is the key token's place in it.

    The key word is the whole word that contains the key token, so that a label
    reads `kind` where the token is `nd`. A token that is part of a character, such as
    one byte of it, stands for that character.
    """
    lead, token, rest = split_at(tokens, key)
    start = len(lead)
    # A token belongs to the word of its first visible character: " kind" to "kind".
    target = start + (len(token) - len(token.lstrip()) if token.strip() else 0)
    text = lead + token + rest
    end = start + len(token.rstrip()) if token.strip() else target + 1
    words: list[str] = (_ASCII_WORD if text.isascii() else _WORD).findall(text)  # all of the text
    ends = list(accumulate(map(len, words)))
    place = bisect_right(ends, target)
    key_word, piece = "", Piece("")
    if place < len(words):
        word, last = words[place], ends[place]
        key_word = _visible(word)
        piece = Piece(key_word)
        if word.strip():
            core = beginning(text[target : min(end, last)], _LONGEST)
            piece = Piece(core, last - len(word) < target, end < last)
    before = next((_visible(word) for word in reversed(words[:place]) if word.strip()), "")
    return Scene(key_word, piece, before, frozenset(filter(None, map(_named, set(words)))))


@lru_cache(maxsize=_WORDS_REMEMBERED)
def _named(word: str) -> str:
    """A word around as a label shows it; empty for what has neither a letter nor a digit."""
    return _visible(word) if any(map(str.isalnum, word)) else ""


@lru_cache(maxsize=_WORDS_REMEMBERED)
def _visible(word: str) -> str:
    """A word as a label shows it, never empty: ␣ for space, ↵ for line ends."""
    if not word.strip():
        return "↵" if "\n" in word else "␣"
    return beginning(word, _LONGEST)


class Wording(NamedTuple):
    """A behaviour in words: its label, and its commonest key words with their shares of its examples."""

    label: str
    words: list[tuple[str, float]]


def describe_words(behaviours: Sequence[Sequence[Scene]], units: Sequence[int]) -> list[Wording]:
    """A label for each behaviour of a layer, given its examples and its unit, and its commonest key words.

    The label lists the key words, `and, for`; where they differ but share the part that is
    the key token, that part first, `“ed” in wanted, started`; where both differ but the word
    before is the same, `after import`; where only surrounding words are shared, `near x, y`.
    What two behaviours of a unit would share is continued by the word before or a word around,
    `the (after of)`, `“ed” in wanted, started (near piano)`.
    """
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
        self.keys = Terms.one_an_example([scene.key for scene in scenes if scene.key] for scenes in behaviours)
        self.pieces = Terms.one_an_example(
            [scene.piece for scene in scenes if scene.piece.text] for scenes in behaviours
        )
        self.befores = Terms.one_an_example([scene.before for scene in scenes if scene.before] for scenes in behaviours)
        self.arounds = Terms.many_an_example([[scene.around for scene in scenes] for scenes in behaviours])

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

    def _distinct(self, terms: Terms[str], one: int, others: Sequence[int], examples: int) -> dict[str, float]:
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
        """The scores of the words around that are common in a behaviour."""
        return self._scores(self.arounds, one, others, _SHARE_OF_A_THEME)

    @staticmethod
    def _scores(terms: Terms[str], one: int, others: Sequence[int], least: float = 0.0) -> dict[str, float]:
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

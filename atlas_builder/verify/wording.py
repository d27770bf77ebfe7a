"""Labels of behaviours, written again from their description: words of examples, weighed against a layer's.

Of a behaviour c, a term t (a word around, the word before, the key word, or the part of it that is the key
token) has a share f(t, c) of examples, a rarity ln(1 + N / n(t)) among the N behaviours of the layer, of
which n(t) have it, and a separation f / (f + g) from the unit's other behaviours, g being the share of
their examples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import regex

from atlas_builder.rerun.borders import CHARACTER, utf8

# One kind of word a line: characters of scripts without spaces, katakana, emoji, words, signs, line ends, space.
_WORDS = regex.compile(
    r"""
    (?V1)[\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}][\p{M}\u0e33\u0eb3]*
    | \p{Katakana}[\p{Katakana}\u30fc\p{M}]*
    | (?=[\p{Extended_Pictographic}\p{Regional_Indicator}])\X
    | [[\w\p{M}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]]
      (?:[[\w\p{M}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]]|[\u200c\u200d](?=\w))*
    | (?:[[^\w\p{M}\s]--[\p{Extended_Pictographic}\p{Regional_Indicator}]]\p{M}*)+
    | \n\s* | \s+ | .
    """,
    regex.VERBOSE,
)
_LONGEST, _LISTED = 24, 3
_OFTEN = {"key": 0.2, "part": 0.4, "before": 0.4, "around": 0.3}  # the share from which a kind of term makes a label
_HALF, _TWICE, _TENTH, _QUARTER = 0.5, 2 / 3, math.log(11), math.log(5)
_LEAST_EXAMPLES = {"before": 2, "around": 3}

Term = str | tuple[str, bool, bool]
Rarity = Callable[[str, Term], float]
"""The rarity of a term of a kind."""


class Words(NamedTuple):
    """The terms of one example, by kind; empty ones do not count."""

    key: str
    part: tuple[str, bool, bool]
    """The key token in its word, and whether the word goes on before and after it."""
    before: str
    around: frozenset[str]

    def of(self, kind: str) -> list[Term]:
        """The terms of a kind."""
        if kind == "around":
            return list(self.around)
        if kind == "part":
            return [self.part] if self.part[0] else []
        word: str = getattr(self, kind)
        return [word] if word else []


KINDS = ("key", "part", "before", "around")


def _parts(tokens: Sequence[str], key: int) -> tuple[str, str, str]:
    """The text before, of and after the characters that have a byte of the key token."""
    if all(token.isascii() and "<0x" not in token for token in tokens):
        return "".join(tokens[:key]), tokens[key], "".join(tokens[key + 1 :])
    raw = [utf8(token) for token in tokens]
    begin = sum(map(len, raw[:key]))
    end = begin + len(raw[key])
    text = b"".join(raw).decode("utf-8", "surrogateescape")
    parts, at = ["", "", ""], 0
    for cluster in CHARACTER.findall(text):
        size = len(cluster.encode("utf-8", "surrogateescape"))
        parts[0 if at + size <= begin else 1 if at < end else 2] += cluster
        at += size
    before, own, after = (regex.sub("[\udc80-\udcff]", _spelt_out, part) for part in parts)
    return before, own, after


def _spelt_out(match: regex.Match[str]) -> str:
    return f"<0x{ord(match.group()) - 0xDC00:02X}>"


def words_of(tokens: Sequence[str], key: int) -> Words:
    """The words of an example's window; `key` is the place of the key token."""
    left, token, right = _parts(tokens, key)
    blank = not token.strip()
    first = len(left) + (0 if blank else len(token) - len(token.lstrip()))  # its first character that is seen
    end = first + 1 if blank else len(left) + len(token.rstrip())
    spans = [(match.start(), match.end(), match.group()) for match in _WORDS.finditer(left + token + right)]
    word, part, before = "", ("", False, False), ""
    for start, stop, text in spans:
        if start <= first < stop:
            word = _seen(text)
            if text.strip():
                part = (_cut((left + token + right)[first : min(end, stop)]), start < first, end < stop)
            else:
                part = (word, False, False)
            earlier = [text for other, _, text in spans if other < start and text.strip()]
            before = _seen(earlier[-1]) if earlier else ""
            break
    else:  # the token has no text: the last word of all is before it
        seen = [text for _, _, text in spans if text.strip()]
        before = _seen(seen[-1]) if seen else ""
    around = frozenset(_seen(text) for _, _, text in spans if any(letter.isalnum() for letter in text))
    return Words(word, part, before, around)


def _seen(word: str) -> str:
    if word.strip():
        return _cut(word)
    return "↵" if "\n" in word else "␣"


def _cut(word: str) -> str:
    kept = ""
    for cluster in regex.findall(r"\X", word):
        if len(kept) + len(cluster) > _LONGEST:
            return kept or word[:_LONGEST]
        kept += cluster
    return kept


@dataclass
class BehaviourWords:
    """The terms of one behaviour: in how many examples each is, and of how many."""

    counts: dict[str, Counter[Term]]
    totals: dict[str, int]

    @classmethod
    def of(cls, examples: Sequence[Words]) -> BehaviourWords:
        """From the words of all examples."""
        counts = {kind: Counter(term for words in examples for term in words.of(kind)) for kind in KINDS}
        totals = {kind: sum(counts[kind].values()) for kind in KINDS} | {"around": len(examples)}
        return cls(counts, totals)

    def share(self, kind: str, term: Term) -> float:
        """f."""
        return self.counts[kind][term] / self.totals[kind]

    def common(self, kind: str, least: float) -> list[Term]:
        """The terms of at least this share."""
        return [term for term, count in self.counts[kind].items() if count >= least * self.totals[kind]]

    def separation(self, kind: str, term: Term, others: Sequence[BehaviourWords]) -> float:
        """f / (f + g)."""
        share = self.share(kind, term)
        having = sum(other.counts[kind][term] for other in others)
        return share / (share + having / sum(other.totals[kind] for other in others)) if having else 1.0


class _Label(NamedTuple):
    lead: str
    words: list[str]
    part: str = ""
    end: str = ""

    @property
    def meaning(self) -> tuple[str, frozenset[str]]:
        return self.lead, frozenset([self.part] if self.part else self.words)


def labels_of(unit: Sequence[BehaviourWords], rarity: Rarity) -> list[str]:
    """The labels of all behaviours of one unit."""
    first = [_label(one, [other for other in unit if other is not one], rarity) for one in unit]
    labels = []
    for one, label in zip(unit, first, strict=True):
        alike = [
            other for other, its in zip(unit, first, strict=True) if other is not one and its.meaning == label.meaning
        ]
        end = _continuation(one, label, alike, rarity) if alike and label.lead != "near " else ""
        labels.append(label.lead + ", ".join(label.words) + end)
    return labels


def _label(one: BehaviourWords, others: Sequence[BehaviourWords], rarity: Rarity) -> _Label:
    def scored(kind: str, least: float = 0.0, *, rare: bool = True) -> dict[Term, float]:
        return {
            term: one.share(kind, term) * (rarity(kind, term) if rare else 1.0) * one.separation(kind, term, others)
            for term in one.common(kind, least)
        }

    keys = one.counts["key"]
    most = max((one.share("key", word) for word in keys), default=0.0)
    parts = one.counts["part"]
    if parts:
        part = max(parts, key=lambda part: (one.share("part", part), part))
        share, inner = one.share("part", part), part[1] or part[2]
        if inner and share >= _OFTEN["part"] and most < share / 2:
            return _Label(f"“{part[0]}” in ", _foremost(scored("key"))[:2], str(part[0]))
    if most >= _OFTEN["key"]:
        return _Label("", _foremost(scored("key")))
    if cues := scored("before", _OFTEN["before"], rare=False):
        return _Label("after ", [str(max(cues, key=lambda word: (cues[word], word)))])
    around = scored("around", _OFTEN["around"])
    if themes := {word: score for word, score in around.items() if rarity("around", word) >= _QUARTER}:
        return _Label("near ", _foremost(themes))
    return _Label("", _foremost(scored("key")))


def _continuation(one: BehaviourWords, label: _Label, alike: Sequence[BehaviourWords], rarity: Rarity) -> str:
    def distinct(kind: str) -> dict[Term, float]:
        return {
            term: one.share(kind, term) * rarity(kind, term) * one.separation(kind, term, alike)
            for term in one.common(kind, _HALF)
            if one.counts[kind][term] >= _LEAST_EXAMPLES[kind] and one.separation(kind, term, alike) >= _TWICE
        }

    cues = distinct("before")
    if cues and label.lead != "after ":
        return f" (after {_foremost(cues)[0]})"
    themes = {
        word: score
        for word, score in distinct("around").items()
        if rarity("around", word) >= _TENTH and word not in label.words
    }
    return f" (near {_foremost(themes)[0]})" if themes else ""


def _foremost(scores: Mapping[Term, float]) -> list[str]:
    """The words of the best scores, down to a quarter of the best; one of those that differ in case alone."""
    chosen: list[str] = []
    order = sorted(scores, key=lambda word: (-scores[word], word))
    for word in order:
        if len(chosen) == _LISTED or scores[word] < scores[order[0]] / 4:
            break
        if all(str(word).casefold() != other.casefold() for other in chosen):
            chosen.append(str(word))
    return chosen

"""Characters as readers see them, beside the tokens that are parts of them.

A character is an extended grapheme cluster of Unicode (UAX 29): a letter with its marks, a
syllable of Devanagari, an emoji with what is joined to it. An ASCII character never
continues another, so that text in ASCII costs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from atlas_builder.corpus.token_text import decoded, raw_bytes, spell_bytes

_RUN = regex.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # the letter before may have a mark there
_CHARACTER = regex.compile(r"\X")

Numbers = NDArray[np.int64]


class SplitText(NamedTuple):
    """The text around a token: what is before and after, and the whole characters that the token is part of."""

    before: str
    key: str
    after: str


def begins_character(tokens: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each token of a text begins where a character does: (tokens,)."""
    if _is_ascii("".join(tokens)):
        return np.ones(len(tokens), dtype=np.bool_)
    places = np.cumsum([0, *(len(raw_bytes(token)) for token in tokens)])
    borders: NDArray[np.bool_] = np.isin(places[:-1], _Characters.of(tokens).borders)
    return borders


def readings(tokens: Sequence[str], places: Iterable[int]) -> list[str]:
    """What the tokens at some places of a text read as: the whole characters that each is part of."""
    characters = _Characters.of(tokens)
    ends = np.cumsum([0, *(len(raw_bytes(token)) for token in tokens)]).tolist()
    spans = (characters.span(ends[place], ends[place + 1]) for place in places)
    return [spell_bytes(characters.text[low:high]) for low, high in spans]


def split_at(tokens: Sequence[str], key: int) -> SplitText:
    """The text of adjacent tokens, cut around the characters that the token at `key` is part of."""
    if _is_ascii("".join(tokens)):
        return SplitText("".join(tokens[:key]), tokens[key], "".join(tokens[key + 1 :]))
    characters = _Characters.of(tokens)
    begin = sum(len(raw_bytes(token)) for token in tokens[:key])
    end = begin + len(raw_bytes(tokens[key]))
    return SplitText(*map(spell_bytes, characters.cut(begin, end)))


class Windows(NamedTuple):
    """Windows of a text's tokens, `first` to before `last`, around `key`, each in its context: (windows,) each."""

    first: Numbers
    last: Numbers
    key: Numbers
    start: Numbers
    """The first token of the context."""
    end: Numbers
    """The place behind its last token."""

    def whole(self, begins: NDArray[np.bool_] | None, most: tuple[int, int] | None = None) -> Windows:
        """Windows that end where characters do, given whether each token of the text begins one; None: all do.

        Each reaches out to the next border or, where that is beyond `most` tokens before and after
        its key token, draws back to the last.
        """
        if begins is None:
            return self
        first, last = self.first.copy(), self.last.copy()
        while (cut := (first > self.start) & ~begins[first]).any():
            first -= cut
        while (cut := (last < self.end) & ~begins[np.minimum(last, len(begins) - 1)]).any():
            last += cut
        if most is not None:
            beyond = first < self.key - most[0]
            first[beyond] = self.first[beyond]
            while (cut := beyond & (first < self.key) & ~begins[first]).any():
                first += cut
            beyond = last > self.key + most[1] + 1
            last[beyond] = self.last[beyond]
            while (cut := beyond & (last > self.key + 1) & ~begins[np.minimum(last, len(begins) - 1)]).any():
                last -= cut
        return self._replace(first=first, last=last)


class _Characters(NamedTuple):
    """A text and its characters; `borders` are the bytes at which they begin, and that at the end of the text."""

    text: str
    borders: Numbers
    at: Numbers
    """The code point at each of them."""

    @classmethod
    def of(cls, tokens: Sequence[str]) -> _Characters:
        text = decoded(tokens)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        escaped = (points >= 0xDC80) & (points <= 0xDCFF)
        sizes = np.where(escaped, 1, 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000))
        begins = np.ones(len(points) + 1, dtype=np.bool_)
        begins[inner_places(text)] = False
        at = np.flatnonzero(begins)
        return cls(text, np.concatenate([[0], np.cumsum(sizes)])[at], at)

    def cut(self, begin: int, end: int) -> tuple[str, str, str]:
        """The text before, in and after the characters that have a byte from `begin` to before `end`."""
        low, high = self.span(begin, end)
        return self.text[:low], self.text[low:high], self.text[high:]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Where the characters that have a byte from `begin` to before `end` begin and end."""
        low = int(self.at[np.searchsorted(self.borders, begin, side="right") - 1])
        return low, max(low, int(self.at[np.searchsorted(self.borders, end)])) if end > begin else low


def inner_places(text: str) -> list[int]:
    """The places of a text that lie within a character, between its code points."""
    inner: list[int] = []
    for run in _RUN.finditer(text):
        place = run.start()
        for character in _CHARACTER.findall(run.group()):
            inner.extend(range(place + 1, place + len(character)))
            place += len(character)
    return inner


def shortened(text: str, most: int) -> str:
    """The first `most` code points of a text, or fewer where these would end within a character."""
    if len(text) <= most or text.isascii():
        return text[:most]
    inner = set(inner_places(text))
    return text[: next((place for place in range(most, 0, -1) if place not in inner), most)]


def _is_ascii(text: str) -> bool:
    return text.isascii() and "<0x" not in text

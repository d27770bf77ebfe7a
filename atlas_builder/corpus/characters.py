"""Characters as readers see them, beside the tokens that are parts of them.

A character is an extended grapheme cluster of Unicode (UAX 29): a letter with its marks, a
syllable of Devanagari, an emoji with what is joined to it. An ASCII character never
continues another, so that text in ASCII costs nothing here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import regex

from atlas_builder.corpus.token_text import decoded, raw_bytes, spell_bytes

_RUN = regex.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # the letter before may have a mark there
_CHARACTER = regex.compile(r"\X")


class SplitText(NamedTuple):
    """The text around a token: what is before and after, and the whole characters that the token is part of."""

    before: str
    key: str
    after: str


def begins_character(tokens: Sequence[str]) -> list[bool]:
    """Whether each token of a text begins where a character does."""
    if _is_ascii("".join(tokens)):
        return [True] * len(tokens)
    borders = set(_Characters.of(tokens).borders)
    return [place in borders for place in _ends(tokens)[:-1]]


def readings(tokens: Sequence[str], places: Iterable[int]) -> list[str]:
    """What the tokens at some places of a text read as: the whole characters that each is part of."""
    characters = _Characters.of(tokens)
    ends = _ends(tokens)
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


class _Characters(NamedTuple):
    """A text and its characters; `borders` are the bytes at which they begin, and that at the end of the text."""

    text: str
    borders: list[int]
    at: list[int]
    """The code point at each of them."""

    @classmethod
    def of(cls, tokens: Sequence[str]) -> _Characters:
        text = decoded(tokens)
        inner = set(inner_places(text))
        borders, at, byte = [], [], 0
        for place, character in enumerate(text):
            if place not in inner:
                borders.append(byte)
                at.append(place)
            byte += _size(character)
        return cls(text, [*borders, byte], [*at, len(text)])

    def cut(self, begin: int, end: int) -> tuple[str, str, str]:
        """The text before, in and after the characters that have a byte from `begin` to before `end`."""
        low, high = self.span(begin, end)
        return self.text[:low], self.text[low:high], self.text[high:]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Where the characters that have a byte from `begin` to before `end` begin and end."""
        low = self.at[bisect_right(self.borders, begin) - 1]
        return low, max(low, self.at[bisect_left(self.borders, end)]) if end > begin else low


def inner_places(text: str) -> list[int]:
    """The places of a text that lie within a character, between its code points."""
    inner: list[int] = []
    for run in _RUN.finditer(text):
        place = run.start()
        for character in _CHARACTER.findall(run.group()):
            inner.extend(range(place + 1, place + len(character)))
            place += len(character)
    return inner


def beginning(text: str, most: int) -> str:
    """The first `most` code points of a text, or fewer where these would end within a character."""
    if len(text) <= most or text.isascii():
        return text[:most]
    inner = set(inner_places(text))
    return text[: next((place for place in range(most, 0, -1) if place not in inner), most)]


def _is_ascii(text: str) -> bool:
    return text.isascii() and "<0x" not in text


def _size(character: str) -> int:
    """Bytes of a code point; a lone byte stands as a low surrogate."""
    point = ord(character)
    return 1 if point < 0x80 or 0xDC80 <= point <= 0xDCFF else 2 + (point >= 0x800) + (point >= 0x10000)


def _ends(tokens: Sequence[str]) -> list[int]:
    """The byte at which each token of a text begins, and that at the text's end."""
    return list(accumulate((len(raw_bytes(token)) for token in tokens), initial=0))

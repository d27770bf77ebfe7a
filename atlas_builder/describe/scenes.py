"""The words of an example's window: that of its key token, the word before, and all words around."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import regex

from atlas_builder.corpus.characters import beginning, split_at

ASCII_WORD = re.compile(r"\w+|[^\w\s]+|\s+", re.ASCII)  # in text of ASCII the same as below, in half the time
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
LONGEST = 24
"""Code points of a word that a label shows."""
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
    words: list[str] = (ASCII_WORD if text.isascii() else _WORD).findall(text)  # all of the text
    ends = list(accumulate(map(len, words)))
    place = bisect_right(ends, target)
    key_word, piece = "", Piece("")
    if place < len(words):
        word, last = words[place], ends[place]
        key_word = shown_word(word)
        piece = Piece(key_word)
        if word.strip():
            core = beginning(text[target : min(end, last)], LONGEST)
            piece = Piece(core, last - len(word) < target, end < last)
    before = next((shown_word(word) for word in reversed(words[:place]) if word.strip()), "")
    return Scene(key_word, piece, before, frozenset(filter(None, map(named_word, set(words)))))


@lru_cache(maxsize=_WORDS_REMEMBERED)
def named_word(word: str) -> str:
    """A word around as a label shows it; empty for what has neither a letter nor a digit."""
    return shown_word(word) if any(map(str.isalnum, word)) else ""


@lru_cache(maxsize=_WORDS_REMEMBERED)
def shown_word(word: str) -> str:
    """A word as a label shows it, never empty: ␣ for space, ↵ for line ends."""
    if not word.strip():
        return "↵" if "\n" in word else "␣"
    return beginning(word, LONGEST)

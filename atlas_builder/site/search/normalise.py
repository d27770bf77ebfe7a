"""What search counts as a word, and as the same word; the pages' scripts use the same rules (`constants.py`)."""

from __future__ import annotations

import re
import unicodedata

import regex

# Python and JavaScript differ in what is space; both sides strip either's.
ENDS = re.compile(r"^[\s\x1c-\x1f\x85\ufeff]+|[\s\x1c-\x1f\x85\ufeff]+$")
# Scripts without spaces between words: each character is a word, so that a run of them is found as a phrase.
_SOLO = "".join(rf"\p{{Script={name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
# The joiners that Persian, Hindi and others write within words, and between the parts of an emoji.
_LETTERS = r"\p{L}\p{M}\p{N}_\u200c\u200d"
PIECE = regex.compile(
    # The vowel am of Thai and Lao follows as a letter, but is no character of its own.
    rf"[{_SOLO}][\p{{M}}\u0e33\u0eb3]*|(?:(?![{_SOLO}])[{_LETTERS}])+|([^\s\x1c-\x1f\x85\ufeff{_LETTERS}])\1*",
    regex.V0,
)
_IS_SOLO = regex.compile(rf"[{_SOLO}]")
_ASCII_PIECE = re.compile(r"[A-Za-z0-9_]+|([^\sA-Za-z0-9_])\1*")  # the same for ASCII, and several times as fast


def search_key(word: str) -> str:
    """What a token is looked up by: trimmed, in lower case, its accents composed (NFC), never empty."""
    core = same(ENDS.sub("", word))
    if core:
        return core
    return "↵" if "\n" in word else "␣"


def same(word: str) -> str:
    """The normal form of a word: in lower case, its accents composed (NFC)."""
    lower = word.lower()
    return lower if lower.isascii() else unicodedata.normalize("NFC", lower)


def stands_alone(character: str) -> bool:
    """Whether a character is of a script without spaces, in which each counts as a word."""
    return _IS_SOLO.match(character) is not None


def pieces(text: str) -> list[tuple[int, int]]:
    """Start and end of each word of a text: runs of letters, marks, digits and `_`, and runs of one other sign.

    Space is not a word. `self.x == 1` has the words `self`, `.`, `x`, `==` and `1`.
    """
    pattern = _ASCII_PIECE if text.isascii() else PIECE
    return [match.span() for match in pattern.finditer(text)]

"""The words around a key token that a search result shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from atlas_builder.corpus.characters import inner_places, split_at
from atlas_builder.site.search.normalise import pieces, stands_alone

MIDDLE = 31
"""The offset of the word in which the key token begins; offsets rise from word to word."""
OFFSETS = 64

_BEFORE, _AFTER = 64, 40  # characters shown before and after the key token, at most
_SPACES = re.compile(" {2,}")
_GAP = re.compile(r"\s+")
_LAST_GAP = re.compile(r"\s+\S*\Z")


class Snippet(NamedTuple):
    """Text around a key token, and its words in order; the first has the offset `first`."""

    before: str
    key: str
    after: str
    words: list[str]
    first: int


def snippet(tokens: Sequence[str], key: int, *, from_start: bool = True, to_end: bool = True) -> Snippet:
    """The words around the token at `key`; `from_start` and `to_end`: whether `tokens` are complete there.

    The text is cut between words where there is a gap, so that no part of a word counts as
    a word, or in a script without spaces between two characters. Runs of spaces count as
    one. A token that is part of a character is shown as that character.
    """
    lead, token, rest = split_at(tokens, key)
    before, after = _end_of(_single_spaced(lead), from_start), _start_of(_single_spaced(rest), to_end)
    text = before + token + after
    spans = pieces(text)
    # A token's word is that of its first visible character: " kind" belongs to "kind".
    target = len(before) + len(token) - len(token.lstrip())
    middle = next((place for place, (_, end) in enumerate(spans) if end > target), len(spans))
    first, last = max(0, middle - MIDDLE), middle + OFFSETS - MIDDLE
    begin = spans[first][0] if first else 0
    end = spans[last - 1][1] if last < len(spans) else len(text)
    key_end = len(before) + len(token)
    return Snippet(
        text[begin : len(before)],
        token,
        text[key_end : max(end, key_end)],
        [text[low:high] for low, high in spans[first:last]],
        first - middle + MIDDLE,
    )


def _single_spaced(text: str) -> str:
    return _SPACES.sub(" ", text) if "  " in text else text


def _end_of(text: str, whole: bool) -> str:
    if whole and len(text) <= _BEFORE:
        return text
    most = text[-_BEFORE:]
    gap = _GAP.search(most)
    if not text.isascii() and (begin := _first_place(text, len(text) - len(most))) is not None:
        return text[begin:]
    return most[gap.end() :] if gap else most


def _start_of(text: str, whole: bool) -> str:
    if whole and len(text) <= _AFTER:
        return text
    most = text[:_AFTER]
    gap = _LAST_GAP.search(most)
    if not text.isascii() and (end := _last_place(text, len(most))) is not None:
        return text[:end]
    return most[: gap.start()] if gap else most


def _first_place(text: str, least: int) -> int | None:
    """Where the first whole word from `least` on begins; None without any."""
    inner = set(inner_places(text))
    for begin, _ in pieces(text):
        if begin >= least and begin not in inner and (begin > 0 or stands_alone(text)):
            return begin
    return None


def _last_place(text: str, most: int) -> int | None:
    """Where the last whole word up to `most` ends; None without any."""
    inner = set(inner_places(text))
    for begin, end in reversed(pieces(text)):
        if end <= most and end not in inner and (end < len(text) or stands_alone(text[begin])):
            return end
    return None

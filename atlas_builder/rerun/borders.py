"""Where characters begin in a text of tokens, found again: code point by code point, as the bytes come in."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

import regex

_BYTE = regex.compile(r"<0x([89A-F][0-9A-F])>")


def utf8(token: str) -> bytes:
    """A token's text as bytes, `<0xE2>` as that byte."""
    raw, at = b"", 0
    for match in _BYTE.finditer(token):
        raw += token[at : match.start()].encode("utf-8", "surrogatepass") + bytes.fromhex(match[1])
        at = match.end()
    return raw + token[at:].encode("utf-8", "surrogatepass")


def borders(tokens: Sequence[str]) -> list[bool]:
    """Whether each token begins a character: a code point, and no later one of a cluster; ASCII always does."""
    if "".join(tokens).isascii() and not any(_BYTE.search(token) for token in set(tokens)):
        return [True] * len(tokens)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text, places, is_within = "", [], []
    for token in tokens:
        is_within.append(bool(decoder.getstate()[0]))
        places.append(len(text))
        text += decoder.decode(utf8(token))
    text += decoder.decode(b"", final=True)
    clusters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    return [
        not within and (place in clusters or text[place].isascii())
        for place, within in zip(places, is_within, strict=True)
    ]


def room_for(begins: Sequence[bool], start: int, most: int) -> int:
    """How many tokens from `start` fit into `most`, so that the next begins a character; `most` if none does."""
    return next((taken for taken in range(most, 0, -1) if begins[start + taken]), most)


def contexts_of(begins: Sequence[bool], tokens: int, room: int) -> Iterator[tuple[int, int]]:
    """The first token of each context of a document of so many tokens, and the one behind its last."""
    start = 0
    while start < tokens:
        end = tokens if start + room >= tokens else start + room_for(begins, start, room)
        yield start, end
        start = end

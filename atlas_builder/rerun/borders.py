"""Where characters begin in a text of tokens and which they are, by code points as bytes come in."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

import regex

# An ASCII character continues no other.
CHARACTER = regex.compile(r"\r(?=\n)|\p{GCB=Prepend}+(?=[\x00-\x7f])|\X")
_BYTE = regex.compile(r"<0x([89A-F][0-9A-F])>")


def utf8(token: str) -> bytes:
    """A token's text as bytes, `<0xE2>` as that byte."""
    raw, at = b"", 0
    for match in _BYTE.finditer(token):
        raw += token[at : match.start()].encode("utf-8", "surrogatepass") + bytes.fromhex(match[1])
        at = match.end()
    return raw + token[at:].encode("utf-8", "surrogatepass")


def borders(tokens: Sequence[str]) -> list[int]:
    """What each token begins: 2 is a character, a code point and no later one of a cluster; 1 another code point.

    0 is a token that begins within a code point. One of ASCII always begins a character.
    """
    if "".join(tokens).isascii() and not any(_BYTE.search(token) for token in set(tokens)):
        return [2] * len(tokens)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text, places, is_within = "", [], []
    for token in tokens:
        is_within.append(bool(decoder.getstate()[0]))
        places.append(len(text))
        text += decoder.decode(utf8(token))
    text += decoder.decode(b"", final=True)
    clusters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    return [
        0 if within else 1 + (place in clusters or text[place].isascii())
        for place, within in zip(places, is_within, strict=True)
    ]


def whole_characters(tokens: Sequence[str]) -> list[str]:
    """What each token of a text reads as: bytes of a character as that character, with all that its tokens have."""
    raw = [utf8(token) for token in tokens]
    if all(len(own) == len(token.encode("utf-8", "surrogatepass")) for own, token in zip(raw, tokens, strict=True)):
        return list(tokens)
    text = b"".join(raw).decode("utf-8", "surrogateescape")
    of_byte: list[tuple[int, int]] = []  # for each byte, where its character begins and ends in the text
    at = 0
    for cluster in CHARACTER.findall(text):
        of_byte += [(at, at + len(cluster))] * len(cluster.encode("utf-8", "surrogateescape"))
        at += len(cluster)
    read, begin = [], 0
    for token, own in zip(tokens, raw, strict=True):
        end = begin + len(own)
        is_bytes = own != token.encode("utf-8", "surrogatepass")
        read.append(text[of_byte[begin][0] : of_byte[end - 1][1]] if is_bytes else token)
        begin = end
    return read


class Readings:
    """Numbers of what tokens read as: the ids of tokens and, for characters that are none, those from their end on."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._numbers: dict[str, int] = {}
        for number, text in enumerate(texts):
            self._numbers.setdefault(text, number)

    def of(self, ids: Sequence[int]) -> list[int]:
        """The numbers of a document's tokens."""
        tokens = [self.texts[token] for token in ids]
        if "<0x" not in "".join(tokens):
            return list(ids)
        numbers = []
        for number, token, read in zip(ids, tokens, whole_characters(tokens), strict=True):
            if read != token:
                number = self._numbers.setdefault(read, len(self.texts))
                self.texts += [read] * (number == len(self.texts))
            numbers.append(number)
        return numbers


def room_for(begins: Sequence[int], start: int, most: int) -> int:
    """How many tokens from `start` fit into `most`, the next one beginning a character, else a code point, or 0."""
    takes = range(most, 0, -1)
    return next((taken for least in (2, 1) for taken in takes if begins[start + taken] >= least), 0)


def contexts_of(begins: Sequence[int], tokens: int, room: int) -> Iterator[tuple[int, int]]:
    """The first token of each context of a document of so many tokens, and the one behind its last."""
    start = 0
    while start < tokens:
        end = tokens if start + room >= tokens else start + (room_for(begins, start, room) or room)
        yield start, end
        start = end

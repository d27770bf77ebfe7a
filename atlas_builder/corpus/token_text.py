"""The text of tokens, as readers see it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_ANCHOR = "a"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PART = re.compile(r"<0x([89A-F][0-9A-F])>")  # a byte that is part of a character
_ESCAPED = re.compile("[\udc80-\udcff]")
SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF))
HIDDEN = re.compile(
    # Controls, soft hyphen, zero-width and bidi characters, separators, surrogates, noncharacters.
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufdd0-\ufdef\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff"
    f"{_NONCHARACTERS}]"
)
"""Characters that are invisible or change how text is laid out."""


def token_texts(tokenizer: Any, size: int | None = None) -> list[str]:
    """The text of every token of a Hugging Face tokenizer, by its id; of a model's `size` tokens, where it is given.

    A token that is part of a character is written as its bytes, `<0xE2><0x80>`, as
    SentencePiece writes them, for every kind of tokenizer. A row that no token has, of a
    vocabulary that was padded to a round size, is empty.
    """
    vocabulary = {int(index): str(token) for token, index in tokenizer.get_vocab().items()}
    size = max(vocabulary, default=-1) + 1 if size is None else size
    special = set(tokenizer.all_special_ids)
    byte_of = _byte_alphabet() if _is_byte_level(tokenizer) else None
    if byte_of is not None:  # a token that was added is stored as plain text
        special |= set(tokenizer.get_added_vocab().values())
    anchor = tokenizer.encode(_ANCHOR, add_special_tokens=False)
    anchored = tokenizer.decode(anchor)
    texts = []
    for index in range(size):
        token = vocabulary.get(index, "")
        if index in special or not token:
            texts.append(token)
        elif byte_of is not None and all(character in byte_of for character in token):
            texts.append(_readable(bytes(byte_of[character] for character in token)))
        elif match := _BYTE.fullmatch(token):
            texts.append(_readable(bytes([int(match[1], 16)])))
        else:
            # A decoder drops a leading space, so the token is decoded after another.
            decoded = str(tokenizer.decode([*anchor, index]))
            texts.append(decoded[len(anchored) :] if decoded.startswith(anchored) else token)
    return texts


def join_tokens(tokens: Sequence[str]) -> str:
    """The text of adjacent tokens, whose bytes are joined to characters; bytes of an incomplete one stay, `<0xE2>`."""
    text = "".join(tokens)
    return spell_bytes(decoded(tokens)) if "<0x" in text else text


def join_bytes(text: str) -> str:
    """Text in which adjacent bytes of one character are joined into that character."""
    return join_tokens([text])


def decoded(tokens: Sequence[str]) -> str:
    """The text of adjacent tokens; each byte of an incomplete character is one surrogate (PEP 383)."""
    return b"".join(map(raw_bytes, tokens)).decode("utf-8", "surrogateescape")


def spell_bytes(text: str) -> str:
    """Text of `decoded` as readers see it: bytes of incomplete characters are spelt out."""
    return _ESCAPED.sub(lambda match: f"<0x{ord(match.group()) - 0xDC00:02X}>", text)


# A vocabulary's worth: the same tokens come again and again.
@lru_cache(maxsize=1 << 17)
def raw_bytes(token: str) -> bytes:
    """A token's text in UTF-8, in which `<0xE2>` is that byte."""
    if "<0x" not in token:
        return token.encode("utf-8", "surrogatepass")
    parts = _PART.split(token)  # text and bytes take turns
    return b"".join(
        bytes([int(part, 16)]) if place % 2 else part.encode("utf-8", "surrogatepass")
        for place, part in enumerate(parts)
    )


def plain(text: str) -> str:
    """Text for titles and attributes: one line, without invisible characters, not escaped."""
    if text.isascii() and text.isprintable():  # most of it, with nothing to look for
        return text
    return HIDDEN.sub(lambda match: spelt(match.group()), text)


def spelt(character: str) -> str:
    """The visible replacement of an invisible character."""
    return SIGNS.get(character) or f"U+{ord(character):04X}"


def _readable(raw: bytes) -> str:
    """The text of a token; where it begins or ends within a character, all its bytes above ASCII as bytes."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"<0x{byte:02X}>" for byte in raw)


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    return any(part.get("type") == "ByteLevel" for part in parts)


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins for bytes of GPT-2's byte-level BPE (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(hidden)})
    return alphabet

"""The files of contexts as they are written: where contexts begin, characters, and what is special and whose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.characters import begins_character, readings
from atlas_builder.corpus.token_text import raw_bytes
from atlas_builder.errors import ConfigurationError, CorpusError

TOO_FEW = (
    "corpus.{key}: a character of this text is of more than {tokens} tokens, so that it would be cut: set "
    "corpus.{key} to at least 8."
)
"""Why a text cannot be cut."""
_WITHIN = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))
_MOST_ROLES = 255


class ChatTokens(NamedTuple):
    """The tokens of a document that a chat template made."""

    ids: list[int]
    special: NDArray[np.bool_]
    """Whether each is the template's own or a special token: (tokens,)."""
    roles: list[str]
    """The role of the message that each is of; empty for the template's own."""


class Borders(NamedTuple):
    """Whether each token of a document begins a character, and whether it begins a code point: (tokens,) each."""

    characters: NDArray[np.bool_]
    points: NDArray[np.bool_]


def end_within(borders: Borders | None, first: int, end: int) -> int:
    """The last place of a document, after `first` and up to `end`, where a character begins, else a code point.

    `first` without any; `end` where all tokens begin characters, None.
    """
    if borders is None:
        return end
    for begins in borders:
        places = np.flatnonzero(begins[first + 1 : end + 1])
        if len(places):
            return first + 1 + int(places[-1])
    return first


class CharacterFiles:
    """Writes which tokens of documents begin a character and what they read as, where not all do as themselves."""

    def __init__(self, texts: Sequence[str], folder: Path) -> None:
        self._texts, self._folder = texts, folder
        self._plain = np.array([text.isascii() and "<0x" not in text for text in texts], dtype=np.bool_)
        self._bytes = np.array(["<0x" in text and raw_bytes(text) != text.encode() for text in texts], dtype=np.bool_)
        # In UTF-8 these bytes go on with a code point.
        self._points = np.array([raw_bytes(text)[:1] not in _WITHIN for text in texts], dtype=np.bool_)
        self._ids: dict[str, int] | None = None
        self._found = False
        self.texts: list[str] = []
        """The characters that are no tokens."""

    def __enter__(self) -> CharacterFiles:
        self._begins, self._reads = ((self._folder / name).open("wb") for name in ("begins.b1", "reads.i32"))
        return self

    def __exit__(self, *error: object) -> None:
        self._begins.close()
        self._reads.close()
        if not self._found:
            (self._folder / "begins.b1").unlink()
            (self._folder / "reads.i32").unlink()

    def borders(self, ids: list[int]) -> Borders | None:
        """Of each token of a document; None where all begin characters."""
        if not len(self._plain) or self._plain[ids].all():
            return None
        begins = np.array(begins_character([self._texts[token] for token in ids]))
        return None if begins.all() else Borders(begins, self._points[ids])

    def write(self, ids: list[int], borders: Borders | None, special: NDArray[np.bool_] | None = None) -> None:
        """Write a document, given its tokens, and the borders of these and of those that are cut off.

        Special tokens read as nothing, −1.
        """
        reads = np.asarray(ids, dtype="<i4")
        begins = np.ones(len(ids), np.bool_) if borders is None else borders.characters[: len(ids)]
        if borders is not None:
            self._found = True
            places = np.flatnonzero(self._bytes[ids])
            read = readings([self._texts[token] for token in ids], places.tolist())
            reads[places] = [self._id(text) for text in read]
        if special is not None:
            self._found |= bool(special.any())
            reads[special] = -1
        self._begins.write(begins.tobytes())
        self._reads.write(reads.tobytes())

    def _id(self, text: str) -> int:
        if self._ids is None:
            self._ids = {}
            for token, known in enumerate(self._texts):
                self._ids.setdefault(known, token)
        if text not in self._ids:
            self._ids[text] = len(self._texts) + len(self.texts)
            self.texts.append(text)
        return self._ids[text]


class ContextCuts:
    """Where contexts begin, of at most `room` tokens each."""

    def __init__(self, room: int, context: int) -> None:
        self._room, self._context = room, context
        self.starts = [0]
        self._document, self._offset = list[int](), list[int]()

    def cut(self, document: int, tokens: int, borders: Borders | None) -> None:
        """Cut a document of so many tokens."""
        base, offset = self.starts[-1], 0
        while offset < tokens:
            self._document.append(document)
            self._offset.append(offset)
            end = end_within(borders, offset, offset + self._room) if offset + self._room < tokens else tokens
            if end == offset:
                raise ConfigurationError(TOO_FEW.format(key="context", tokens=self._context))
            offset = end
            self.starts.append(base + offset)

    def write(self, folder: Path) -> None:
        """Write them to a folder."""
        np.save(folder / "starts.npy", np.asarray(self.starts, dtype=np.int64))
        np.save(folder / "document.npy", np.asarray(self._document, dtype=np.int32))
        np.save(folder / "offset.npy", np.asarray(self._offset, dtype=np.int32))


class RoleFiles:
    """Writes which tokens are special and whose each is, where a chat template made the text; sums the text anyway.

    The SHA-256 is of each document's length in bytes and its tokens; with chat, of its special tokens and roles behind
    them, and of the names of roles at the end.
    """

    def __init__(self, folder: Path, *, is_chat: bool) -> None:
        self._folder, self._is_chat = folder, is_chat
        self._digest = hashlib.sha256()
        self._numbers = {"": 0}

    def __enter__(self) -> RoleFiles:
        if self._is_chat:
            self._special, self._roles = ((self._folder / name).open("wb") for name in ("special.b1", "roles.u1"))
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_chat:
            self._special.close()
            self._roles.close()

    def write(self, ids: list[int], tokens: ChatTokens) -> None:
        """Write the first tokens of a document, which are `ids`."""
        raw = np.asarray(ids, dtype="<i4").tobytes()
        self._digest.update(len(raw).to_bytes(8, "little") + raw)
        if not self._is_chat:
            return
        numbers = [self._numbers.setdefault(role, len(self._numbers)) for role in tokens.roles[: len(ids)]]
        if len(self._numbers) > _MOST_ROLES:
            raise CorpusError(f"corpus.chat: the text has messages of more than {_MOST_ROLES - 1} roles: use fewer.")
        special, roles = tokens.special[: len(ids)].tobytes(), bytes(numbers)
        self._special.write(special)
        self._roles.write(roles)
        self._digest.update(special + roles)

    def facts(self) -> dict[str, object]:
        """The sum of the text, and the names of roles where it has some."""
        if not self._is_chat:
            return {"sha256": self._digest.hexdigest()}
        names = list(self._numbers)
        self._digest.update("\0".join(names).encode())
        return {"sha256": self._digest.hexdigest(), "roles": names}

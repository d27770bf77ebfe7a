"""Documents cut into contexts: runs of tokens that the model sees at once.

A context ends where a character does, so it may be shorter than it could be by a few tokens
that are parts of one. A character of more tokens than a context is cut between its code
points. Contexts are flat arrays on disk, so a corpus of any size costs no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.characters import begins_character, readings
from atlas_builder.corpus.documents import Document
from atlas_builder.corpus.token_text import raw_bytes
from atlas_builder.corpus.windows import Windows
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_array, read_json, write_json

Tokens = int | NDArray[np.int64]
Encode = Callable[[list[str]], list[list[int]]]

_TOO_FEW = (
    "corpus.{key}: a character of this text is of more than {tokens} tokens, so that it would be cut: set "
    "corpus.{key} to at least 8."
)
_WITHIN = frozenset(bytes([byte]) for byte in range(0x80, 0xC0))
_DOCUMENTS_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 1_000_000  # a tokenizer takes two hundred bytes for each


@dataclass(frozen=True)
class Contexts:
    """All contexts of a corpus.

    Context `i` is `tokens[starts[i]:starts[i + 1]]`, from document `document[i]`,
    where it begins at token `offset[i]`. Where `bos` is a token, it begins every context
    when the model runs; it is not stored.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    document: NDArray[np.int32]
    offset: NDArray[np.int32]
    names: list[str]
    bos: int | None
    sha256: str
    begins: NDArray[np.bool_] | None = None
    """Whether each token begins a character; None where all do."""
    reads: NDArray[np.int32] | None = None
    """What each token reads as: the id of a token or, from the vocabulary's end on, a place in `characters`.

    None where all tokens read as themselves: else one that is bytes of a character reads as that.
    """
    characters: Sequence[str] = ()
    """Characters that tokens are parts of, and that are no tokens."""
    attributes: list[dict[str, str]] = field(default_factory=list)
    """The fields of `corpus.attributes` of each document, as text; {} where it has none."""

    def __len__(self) -> int:
        return len(self.document)

    @property
    def token_count(self) -> int:
        """Number of tokens of text, without beginning-of-sequence tokens."""
        return int(self.starts[-1])

    def text_of(self, context: int) -> NDArray[np.int32]:
        """The tokens of one context, without the beginning-of-sequence token."""
        return self.tokens[self.starts[context] : self.starts[context + 1]]

    def next_tokens(self, batch: NDArray[np.integer]) -> NDArray[np.int64]:
        """The token after each of some contexts of one length, in its document; −1 at its end: (batch, tokens)."""
        place = self.starts[batch][:, None] + np.arange(1, 1 + int(np.diff(self.starts)[batch[0]]))
        following = np.asarray(self.tokens[np.minimum(place, len(self.tokens) - 1)], np.int64)
        goes_on = np.append(self.document[1:] == self.document[:-1], False)[batch]  # into the next context
        following[~goes_on, -1] = -1
        return following

    def windows(
        self, context: NDArray[np.integer], position: NDArray[np.integer], before: Tokens, after: Tokens
    ) -> Windows:
        """The tokens around places in contexts, at most so many before and after each: (places,) all."""
        start, end = self.starts[context], self.starts[context + 1]
        key = start + position
        return Windows(np.maximum(start, key - before), np.minimum(end, key + after + 1), key, start, end)

    def batches(self, tokens_at_once: int, among: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.int64]]:
        """Numbers of contexts to run together: of equal length, so nothing is padded.

        `among` some contexts, by default all. Which contexts share a batch depends on the corpus, on these and on
        `tokens_at_once` only.
        """
        lengths = np.diff(self.starts)
        numbers = np.arange(len(self)) if among is None else among
        order = numbers[np.argsort(-lengths[numbers], kind="stable")]
        edges = np.flatnonzero(np.diff(lengths[order])) + 1
        for group in np.split(order, edges):
            if len(group):
                size = max(1, tokens_at_once // int(lengths[group[0]]))
                for start in range(0, len(group), size):
                    yield group[start : start + size]

    def stack(self, batch: NDArray[np.integer], end: int | None = None) -> NDArray[np.int64]:
        """The tokens of contexts of one length, or the first `end` of each, after `bos`: (batch, context)."""
        rows = np.stack([self.text_of(int(context))[:end] for context in batch]).astype(np.int64)
        if self.bos is None:
            return rows
        return np.concatenate([np.full((len(rows), 1), self.bos), rows], axis=1)


def write_contexts(
    documents: Iterable[Document],
    encode: Encode,
    folder: Path,
    *,
    context: int,
    bos: int | None,
    max_tokens: int | None = None,
    max_documents: int | None = None,
    texts: Sequence[str] | None = None,
    on_tokens: Callable[[int], None] = lambda count: None,
) -> Contexts:
    """Tokenise documents, cut them into contexts and write these to a folder.

    `texts` are those of the vocabulary's tokens; without them every token counts as whole characters.
    `on_tokens` is called with the number of tokens that each step added. Raises `ConfigurationError`
    where not even one code point fits into a context, or into `max_tokens`.
    """
    room = context - (bos is not None)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    starts, document_of, offset_of = [0], list[int](), list[int]()
    used: list[Document] = []
    stream = iter(islice(documents, max_documents))
    left = max_tokens
    with (folder / "tokens.i32").open("wb") as out, _Characters(texts or (), folder) as characters:
        while (left is None or left > 0) and (chunk := _chunk(stream)):
            before = starts[-1]
            for document, ids in zip(chunk, encode([document.text for document in chunk]), strict=True):
                borders = characters.borders(ids)
                if left is not None:
                    is_cut = len(ids) > left
                    end = end_within(borders, 0, left) if is_cut else len(ids)
                    if not end and not starts[-1]:
                        raise ConfigurationError(_TOO_FEW.format(key="max_tokens", tokens=max_tokens))
                    ids = ids[:end]
                    left = 0 if is_cut else left - len(ids)
                if not ids:
                    continue
                raw = np.asarray(ids, dtype="<i4").tobytes()
                out.write(raw)
                characters.write(ids, borders)
                digest.update(len(raw).to_bytes(8, "little") + raw)
                base, offset = starts[-1], 0
                while offset < len(ids):
                    document_of.append(len(used))
                    offset_of.append(offset)
                    end = end_within(borders, offset, offset + room) if offset + room < len(ids) else len(ids)
                    if end == offset:
                        raise ConfigurationError(_TOO_FEW.format(key="context", tokens=context))
                    offset = end
                    starts.append(base + offset)
                used.append(document._replace(text=""))
            on_tokens(starts[-1] - before)
    np.save(folder / "starts.npy", np.asarray(starts, dtype=np.int64))
    np.save(folder / "document.npy", np.asarray(document_of, dtype=np.int32))
    np.save(folder / "offset.npy", np.asarray(offset_of, dtype=np.int32))
    facts = {**_named(used), "bos": bos, "sha256": digest.hexdigest(), "characters": list(characters.texts)}
    write_json(folder / "contexts.json", facts)
    return read_contexts(folder)


def _named(documents: list[Document]) -> dict[str, list[str] | list[dict[str, str]]]:
    """Names of documents and, where any has some, their attributes."""
    named: dict[str, list[str] | list[dict[str, str]]] = {"names": [document.name for document in documents]}
    if any(document.attributes for document in documents):
        named["attributes"] = [dict(document.attributes) for document in documents]
    return named


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


class _Characters:
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

    def __enter__(self) -> _Characters:
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

    def write(self, ids: list[int], borders: Borders | None) -> None:
        """Write a document, given its tokens, and the borders of these and of those that are cut off."""
        reads = np.asarray(ids, dtype="<i4")
        begins = np.ones(len(ids), np.bool_) if borders is None else borders.characters[: len(ids)]
        if borders is not None:
            self._found = True
            places = np.flatnonzero(self._bytes[ids])
            read = readings([self._texts[token] for token in ids], places.tolist())
            reads[places] = [self._id(text) for text in read]
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


def _chunk(stream: Iterator[Document]) -> list[Document]:
    """The next documents, as many as are tokenised together; none at the end."""
    chunk: list[Document] = []
    left = _CHARACTERS_AT_ONCE
    for document in islice(stream, _DOCUMENTS_AT_ONCE):
        chunk.append(document)
        left -= len(document.text)
        if left <= 0:
            break
    return chunk


def read_contexts(folder: Path) -> Contexts:
    """The contexts that `write_contexts` wrote to a folder; the tokens are memory-mapped."""
    facts = read_json(folder / "contexts.json")
    starts = read_array(folder / "starts.npy")
    tokens: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
    begins: NDArray[np.bool_] | None = None
    reads: NDArray[np.int32] | None = None
    if starts[-1]:
        tokens = np.memmap(folder / "tokens.i32", dtype="<i4", mode="r")
    if (folder / "begins.b1").exists():
        begins = np.memmap(folder / "begins.b1", dtype=np.bool_, mode="r")
        reads = np.memmap(folder / "reads.i32", dtype="<i4", mode="r")
    return Contexts(
        tokens=tokens,
        starts=starts,
        document=read_array(folder / "document.npy"),
        offset=read_array(folder / "offset.npy"),
        names=facts["names"],
        bos=facts["bos"],
        sha256=facts["sha256"],
        begins=begins,
        reads=reads,
        characters=facts["characters"],
        attributes=facts.get("attributes", [{}] * len(facts["names"])),
    )

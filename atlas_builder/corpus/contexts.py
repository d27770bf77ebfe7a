"""Documents cut into contexts: runs of tokens that the model sees at once.

A context ends where a character does, so it may be shorter than it could be by a few tokens
that are parts of one. A character of more tokens than a context is cut between its code
points. Contexts are flat arrays on disk, so a corpus of any size costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.corpus.context_files import (
    TOO_FEW,
    CharacterFiles,
    ChatTokens,
    ContextCuts,
    RoleFiles,
    end_within,
)
from atlas_builder.corpus.documents import Document
from atlas_builder.corpus.windows import Windows
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_array, read_json, write_json

Tokens = int | NDArray[np.int64]
Encode = Callable[[list[str]], list[list[int]]]


EncodeChat = Callable[[list[Document]], list[ChatTokens]]

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

    None where all tokens read as themselves: else one that is bytes of a character reads as that, and special ones
    read as nothing, −1.
    """
    characters: Sequence[str] = ()
    """Characters that tokens are parts of, and that are no tokens."""
    attributes: list[dict[str, str]] = field(default_factory=list)
    """The fields of `corpus.attributes` of each document, as text; {} where it has none."""
    special: NDArray[np.bool_] | None = None
    """Whether each token is the chat template's own, and so no example and in no statistic; None without `chat`."""
    roles: NDArray[np.uint8] | None = None
    """The role of the message that each token is of, a place in `role_names`; None without `chat`."""
    role_names: Sequence[str] = ()
    """The roles, the first empty: that of the template's own tokens."""

    def __len__(self) -> int:
        return len(self.document)

    @property
    def token_count(self) -> int:
        """Number of tokens of text, without beginning-of-sequence tokens."""
        return int(self.starts[-1])

    @property
    def counted(self) -> int:
        """Number of tokens of text that can be examples and count in statistics."""
        return self.token_count if self.special is None else int(np.count_nonzero(~self.special))

    def special_in(self, batch: NDArray[np.integer]) -> NDArray[np.bool_] | None:
        """Whether each token of some contexts of one length is special: (batch, tokens); None without `chat`."""
        if self.special is None:
            return None
        place = self.starts[batch][:, None] + np.arange(int(np.diff(self.starts)[batch[0]]))
        return np.asarray(self.special[place])

    def role_at(self, places: NDArray[np.integer]) -> list[str] | None:
        """The roles of tokens at some places of the text; None without `chat`."""
        return None if self.roles is None else [self.role_names[role] for role in self.roles[places].tolist()]

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
    chat: EncodeChat | None = None,
) -> Contexts:
    """Tokenise documents, cut them into contexts and write these to a folder.

    `texts` are those of the vocabulary's tokens; without them every token counts as whole characters.
    `on_tokens` is called with the number of tokens that each step added. With `chat`, documents that a chat template
    made are tokenised by it in place of `encode`. Raises `ConfigurationError` where not even one code point fits into
    a context, or into `max_tokens`.
    """
    room = context - (bos is not None)
    folder.mkdir(parents=True, exist_ok=True)
    cuts = ContextCuts(room, context)
    used: list[Document] = []
    stream = iter(islice(documents, max_documents))
    left = max_tokens
    with (
        (folder / "tokens.i32").open("wb") as out,
        CharacterFiles(texts or (), folder) as characters,
        RoleFiles(folder, is_chat=chat is not None) as roles,
    ):
        while (left is None or left > 0) and (chunk := _chunk(stream)):
            before = cuts.starts[-1]
            encoded = chat(chunk) if chat else [_plain(ids) for ids in encode([document.text for document in chunk])]
            for document, tokens in zip(chunk, encoded, strict=True):
                ids = tokens.ids
                borders = characters.borders(ids)
                if left is not None:
                    is_cut = len(ids) > left
                    end = end_within(borders, 0, left) if is_cut else len(ids)
                    if not end and not cuts.starts[-1]:
                        raise ConfigurationError(TOO_FEW.format(key="max_tokens", tokens=max_tokens))
                    ids = ids[:end]
                    left = 0 if is_cut else left - len(ids)
                if not ids:
                    continue
                out.write(np.asarray(ids, dtype="<i4").tobytes())
                characters.write(ids, borders, tokens.special[: len(ids)] if chat else None)
                roles.write(ids, tokens)
                cuts.cut(len(used), len(ids), borders)
                used.append(document._replace(text="", messages=(), turns=()))
            on_tokens(cuts.starts[-1] - before)
    cuts.write(folder)
    facts = {**_named(used), "bos": bos, **roles.facts(), "characters": list(characters.texts)}
    write_json(folder / "contexts.json", facts)
    return read_contexts(folder)


def _plain(ids: list[int]) -> ChatTokens:
    return ChatTokens(ids, _NOTHING_SPECIAL, [])


_NOTHING_SPECIAL = np.zeros(0, np.bool_)


def _named(documents: list[Document]) -> dict[str, list[str] | list[dict[str, str]]]:
    """Names of documents and, where any has some, their attributes."""
    named: dict[str, list[str] | list[dict[str, str]]] = {"names": [document.name for document in documents]}
    if any(document.attributes for document in documents):
        named["attributes"] = [dict(document.attributes) for document in documents]
    return named


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
    special: NDArray[np.bool_] | None = None
    roles: NDArray[np.uint8] | None = None
    if "roles" in facts and starts[-1]:
        special = np.memmap(folder / "special.b1", dtype=np.bool_, mode="r")
        roles = np.memmap(folder / "roles.u1", dtype=np.uint8, mode="r")
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
        special=special,
        roles=roles,
        role_names=facts.get("roles", ()),
    )

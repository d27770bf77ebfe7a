"""A second pass over the corpus, for a few units only.

No code is shared with the pass over the corpus: documents are cut again, plain PyTorch
hooks are set on the modules themselves, and everything is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.config import Configuration
from atlas_builder.corpus import documents
from atlas_builder.models import language_model
from atlas_builder.models.memory import as_float32
from atlas_builder.rerun.borders import Readings, borders, contexts_of, room_for
from atlas_builder.rerun.chat import Conversations, ReadTokens
from atlas_builder.rerun.directions import GradientReader, PublishedDirections
from atlas_builder.rerun.models import Clampable, HookedReading, second_reading
from atlas_builder.rerun.weights import Weights

_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Text:
    """The corpus cut into contexts: for each the document, the position of its first token there, and its tokens."""

    contexts: list[tuple[int, int, list[int]]]
    names: list[str] = field(default_factory=list)
    """Of the documents."""
    begins: list[list[bool]] = field(default_factory=list)
    """Of each context, whether each token begins a character; empty where all of the text do."""
    reads: list[list[int]] = field(default_factory=list)
    """Of each context, what each token reads as, by its place in `texts_read`; empty as `begins` is."""
    texts_read: list[str] = field(default_factory=list)
    """The texts of tokens, and characters that tokens are parts of."""
    attributes: list[Mapping[str, str]] = field(default_factory=list)
    """The fields of `corpus.attributes` of each document."""
    special: list[list[bool]] = field(default_factory=list)
    """Of each context, whether each token is a chat template's own and counts nowhere; empty without one."""
    roles: list[list[str]] = field(default_factory=list)
    """Of each context, the role of the message that each token is of; empty as `special` is."""

    def special_in(self, context: int) -> list[bool]:
        """Whether each token of a context counts nowhere."""
        return self.special[context] if self.special else [False] * len(self.contexts[context][2])

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Whether each token of the text can be an example and counts in statistics: (tokens,)."""
        every = [special for of_context in self.special for special in of_context]
        return ~np.array(every, np.bool_) if every else np.ones(self.tokens, np.bool_)

    def fields_of(self, context: int) -> list[tuple[str, str]]:
        """The fields of a context's document, and their values."""
        return list(self.attributes[self.contexts[context][0]].items()) if self.attributes else []

    def read(self, context: int) -> list[int]:
        """What each token of a context reads as."""
        return self.reads[context] if self.reads else self.contexts[context][2]

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(len(tokens) for _, _, tokens in self.contexts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of each context's first token in the whole text, and the text's end: (contexts + 1,)."""
        return np.concatenate([[0], np.cumsum([len(tokens) for _, _, tokens in self.contexts], dtype=np.int64)])

    @property
    def next_tokens(self) -> NDArray[np.int64]:
        """The token after each that counts, in its document, −1 at its end: (counted,)."""
        return self.following[self.counted]

    @cached_property
    def following(self) -> NDArray[np.int64]:
        """The token after each in its document, −1 at its end: (tokens,)."""
        following: list[int] = []
        for _, contexts in groupby(self.contexts, lambda context: context[0]):
            following += [*[token for _, _, tokens in contexts for token in tokens][1:], -1]
        return np.array(following, np.int64)

    @property
    def sha256(self) -> str:
        """Digest of the corpus as in `atlas.json`: for each document its length in bytes, then its tokens.

        With a chat template, a byte for each that says whether it counts nowhere, one for its role, by the order in
        which roles come, and in the end the roles' names.
        """
        digest, names = hashlib.sha256(), [""]
        for _, group in groupby(range(len(self)), lambda number: self.contexts[number][0]):
            of_document = list(group)
            raw = np.array([token for number in of_document for token in self.contexts[number][2]], "<i4").tobytes()
            digest.update(len(raw).to_bytes(8, "little") + raw)
            if self.special:
                roles = [role for number in of_document for role in self.roles[number]]
                names += [role for role in dict.fromkeys(roles) if role not in names]
                digest.update(bytes(special for number in of_document for special in self.special[number]))
                digest.update(bytes(map(names.index, roles)))
        if self.special:
            digest.update("\0".join(names).encode())
        return digest.hexdigest()


class UnitTrace(NamedTuple):
    """The trace of some units of one layer over the corpus.

    `high` and `low` are the extremes of each context over the tokens that count, and the positions of
    the first that reach them, infinite where none does: (contexts, units) each. `values` are the activations at every
    token, in the order of the text, of the units asked for: (tokens, units kept).
    """

    high: NDArray[np.float32]
    high_at: NDArray[np.int32]
    low: NDArray[np.float32]
    low_at: NDArray[np.int32]
    values: NDArray[np.float32]


class Reader:
    """A language model of transformers, with its tokenizer."""

    def __init__(
        self,
        config: Configuration,
        directions: PublishedDirections | None = None,
        output_tokens: Sequence[int] = (),
    ) -> None:
        loaded = language_model.load_model(config.model)
        self.tokenizer = loaded.tokenizer
        self.token_texts = loaded.token_texts
        self.mask, self.is_causal = loaded.mask, loaded.is_causal
        self._read = second_reading(config, loaded, directions, output_tokens)
        self.weights = Weights(config, loaded, self._read)
        self._config = config
        bos = language_model.first_token(self.tokenizer) if getattr(self._read, "prepends_bos", True) else None
        self._head = [] if bos is None else [int(bos)]

    def at(self, rows: Sequence[list[int]], position: int, layer: int, unit: int) -> NDArray[np.float64]:
        """Activations of a unit at a position of (rows, tokens), after a beginning-of-sequence token: (rows,)."""
        readings = self._read(torch.tensor([self._head + row for row in rows]), [layer])
        at = len(self._head) + position
        values: NDArray[np.float64] = as_float32(readings[layer][1][:, at, unit]).numpy().astype(np.float64)
        return values

    def clamp_effect(self, rows: Sequence[list[int]], layer: int, unit: int, value: float) -> Tensor | None:
        """Mean change of next-token probabilities over texts when a unit is clamped, and mean sum: (2, vocabulary).

        None for kinds of units that cannot be clamped.
        """
        if not (isinstance(self._read, Clampable) and self.is_causal):
            return None
        changes = []
        for row in rows:
            tokens = torch.tensor([self._head + row])
            clamped, free = (self._read.next_token(tokens, layer, unit, to) for to in (value, None))
            changes.append(torch.stack([clamped[0] - free[0], clamped[0] + free[0]]))
        return torch.stack(changes).mean(0)

    def gradients(self, layers: Sequence[int]) -> GradientReader:
        """What reads gradients by what enters the MLPs of some layers; for neurons and directions."""
        assert isinstance(self._read, HookedReading)  # CRATE has no directions
        return GradientReader(self._read.plain, {layer: self._read.mlp_module(layer) for layer in layers}, self._head)

    def text(self) -> Text:
        """Tokenise every document on its own and cut it into contexts."""
        settings = self._config.corpus
        room = settings.context - len(self._head)
        left = settings.max_tokens if settings.max_tokens is not None else 1 << 62
        contexts: list[tuple[int, int, list[int]]] = []
        begins: list[list[bool]] = []
        reads: list[list[int]] = []
        readings = Readings(self.token_texts)
        names: list[str] = []
        attributes: list[Mapping[str, str]] = []
        special: list[list[bool]] = []
        roles: list[list[str]] = []
        for number, (document, encoded) in enumerate(self._documents()):
            if left <= 0 or number == settings.max_documents:
                break
            ids = encoded.ids
            own = borders([self.token_texts[token] for token in ids])
            if len(ids) > left:
                ids, left = ids[: room_for(own, 0, left)], 0
            left -= min(left, len(ids))
            read = readings.of(ids)
            for start, end in contexts_of(own, len(ids), room):
                contexts.append((len(names), start, ids[start:end]))
                begins.append([begin == 2 for begin in own[start:end]])
                reads.append(read[start:end])
                special.append(encoded.special[start:end])
                roles.append(encoded.roles[start:end])
            if ids:
                names.append(document.name)
                attributes.append(document.attributes)
        if all(map(all, begins)):
            begins, reads = [], []
        if not settings.chat:
            special, roles = [], []
        return Text(contexts, names, begins, reads, readings.texts, attributes, special, roles)

    def _documents(self) -> Iterator[tuple[documents.Document, ReadTokens]]:
        """The documents and their tokens, without those that a chat template does not take."""
        settings = self._config.corpus
        conversations = Conversations(self.tokenizer, self._head) if settings.chat else None
        for document in documents.documents(settings):
            if conversations is None:
                ids = self.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
                yield document, ReadTokens(ids, [], [])
            elif (encoded := conversations.read(document.messages)) is not None:
                yield document, encoded

    def run(
        self, text: Text, contexts: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[list[int], dict[int, tuple[Tensor, Tensor]]]]:
        """Run contexts in batches of equal length; yields their numbers and each layer's inputs and activations.

        Inputs are (batch, context, width), activations (batch, context, units), without
        the beginning-of-sequence token.
        """
        by_length: dict[int, list[int]] = defaultdict(list)
        for number in contexts:
            by_length[len(text.contexts[number][2])].append(number)
        for length, numbers in sorted(by_length.items()):
            at_once = max(1, _TOKENS_AT_ONCE // length)
            for start in range(0, len(numbers), at_once):
                batch = numbers[start : start + at_once]
                yield batch, self._run([text.contexts[number][2] for number in batch], layers)

    def _run(self, rows: list[list[int]], layers: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        head = self._head
        readings = self._read(torch.tensor([head + row for row in rows]), layers)
        return {
            layer: (as_float32(inputs[:, len(head) :]), as_float32(activations[:, len(head) :]))
            for layer, (inputs, activations) in readings.items()
        }


def trace_units(
    reader: Reader,
    text: Text,
    units: dict[int, list[int]],
    on_tokens: Callable[[int], None],
    kept: Mapping[int, Sequence[int]] | None = None,
) -> dict[int, UnitTrace]:
    """Trace some units of some layers over the whole corpus.

    `kept` has, by layer, the units whose activations are kept at every token.
    """
    kept = {layer: list((kept or {}).get(layer, ())) for layer in units}
    traces = {}
    for layer, chosen in units.items():
        shape = (len(text), len(chosen))
        traces[layer] = UnitTrace(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
            np.zeros((text.tokens, len(kept[layer])), np.float32),
        )
    for batch, seen in reader.run(text, range(len(text)), list(units)):
        for layer, (_, activations) in seen.items():
            trace, values = traces[layer], activations[:, :, units[layer]].numpy()
            special = np.array([text.special_in(number) for number in batch])[:, :, None]
            above, below = np.where(special, -np.inf, values), np.where(special, np.inf, values)
            trace.high[batch], trace.high_at[batch] = above.max(1), above.argmax(1)
            trace.low[batch], trace.low_at[batch] = below.min(1), below.argmin(1)
            if kept[layer]:
                at = text.starts[batch][:, None] + np.arange(values.shape[1])
                trace.values[at] = activations[:, :, kept[layer]].numpy()
        on_tokens(sum(len(text.contexts[number][2]) for number in batch))
    return traces


def inputs_at(
    reader: Reader,
    text: Text,
    places: Mapping[int, Sequence[tuple[int, int]]],
    on_contexts: Callable[[int], None] = lambda number: None,
) -> dict[int, NDArray[np.float32]]:
    """The units' inputs at some tokens of some layers, given by context and position: (tokens, width) by layer."""
    rows = {layer: _rows_of(of_layer) for layer, of_layer in places.items()}
    found: dict[int, NDArray[np.float32]] = {}
    for batch, seen in reader.run(text, sorted(set().union(*rows.values())), list(places)):
        for layer, (inputs, _) in seen.items():
            if layer not in found:
                found[layer] = np.zeros((len(places[layer]), inputs.shape[2]), np.float32)
            for place, number in enumerate(batch):
                for row, position in rows[layer].get(number, ()):
                    found[layer][row] = inputs[place, position].numpy()
        on_contexts(len(batch))
    return {layer: found.get(layer, np.zeros((0, 1), np.float32)) for layer in places}


def _rows_of(places: Sequence[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """For each context, the tokens wanted there: their places in the list, and their positions."""
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row, (context, position) in enumerate(places):
        rows[context].append((row, position))
    return dict(rows)

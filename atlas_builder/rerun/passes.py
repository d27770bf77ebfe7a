"""A second pass over the corpus, for a few units only.

No code is shared with the pass over the corpus: documents are cut again, plain PyTorch
hooks are set on the modules themselves, and everything is kept in memory.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.histogram import BINS, bin_edges
from atlas_builder.config import Configuration
from atlas_builder.corpus import documents
from atlas_builder.models import language_model
from atlas_builder.models.memory import as_float32
from atlas_builder.rerun.models import Clampable, second_reading
from atlas_builder.units.open import open_units

_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class Text:
    """The corpus cut into contexts: for each the document, the position of its first token there, and its tokens."""

    contexts: list[tuple[int, int, list[int]]]

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(len(tokens) for _, _, tokens in self.contexts)

    @property
    def sha256(self) -> str:
        """Digest of the corpus as in `atlas.json`: for each document its length in bytes, then its tokens."""
        digest = hashlib.sha256()
        for _, contexts in groupby(self.contexts, lambda context: context[0]):
            raw = np.array([token for _, _, tokens in contexts for token in tokens], "<i4").tobytes()
            digest.update(len(raw).to_bytes(8, "little") + raw)
        return digest.hexdigest()


class UnitTrace(NamedTuple):
    """The trace of some units of one layer over the corpus.

    `high` and `low` are the extremes of each context and the positions of the first
    tokens that reach them: (contexts, units) each. `sampled` are inputs at the tokens asked
    for: (tokens, width).
    """

    high: NDArray[np.float32]
    high_at: NDArray[np.int32]
    low: NDArray[np.float32]
    low_at: NDArray[np.int32]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    positive: NDArray[np.int64]
    histogram: NDArray[np.int64]
    sampled: NDArray[np.float32]


class Reader:
    """A causal language model of transformers, with its tokenizer."""

    def __init__(self, config: Configuration) -> None:
        loaded = language_model.load_model(config.model)
        self.tokenizer = loaded.tokenizer
        self.token_texts = loaded.token_texts
        units = open_units(loaded, config)
        self._read_weights: Callable[[int], Tensor] = units.read_weights
        self.has_negative = {layer: units.has_negative(layer) for layer in units.layers}
        self._read = second_reading(config, loaded)
        self._config = config
        self._head = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    def read_weights(self, layer: int, units: Sequence[int]) -> NDArray[np.float32]:
        """(parts, units, width)."""
        weights: NDArray[np.float32] = self._read_weights(layer)[:, list(units)].numpy()
        return weights

    def clamp_effect(self, rows: Sequence[list[int]], layer: int, unit: int, value: float) -> Tensor | None:
        """Mean change of next-token probabilities over texts when a unit is clamped: (vocabulary,).

        None for kinds of units that cannot be clamped.
        """
        if not isinstance(self._read, Clampable):
            return None
        changes = []
        for row in rows:
            tokens = torch.tensor([self._head + row])
            clamped, free = (self._read.next_token(tokens, layer, unit, to) for to in (value, None))
            changes.append(clamped[0] - free[0])
        return torch.stack(changes).mean(0)

    def text(self) -> Text:
        """Tokenise every document on its own and cut it into contexts."""
        settings = self._config.corpus
        room = settings.context - (self.tokenizer.bos_token_id is not None)
        left = settings.max_tokens if settings.max_tokens is not None else 1 << 62
        contexts: list[tuple[int, int, list[int]]] = []
        document = 0
        for read, (_, words) in enumerate(documents.documents(settings)):
            if left <= 0 or read == settings.max_documents:
                break
            ids = self.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"][:left]
            left -= len(ids)
            contexts += [(document, offset, ids[offset : offset + room]) for offset in range(0, len(ids), room)]
            document += bool(ids)
        return Text(contexts)

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
    sample: Mapping[int, Sequence[tuple[int, int]]] | None = None,
) -> dict[int, UnitTrace]:
    """Trace some units of some layers over the whole corpus.

    `sample` has, by layer, the context and position of tokens whose inputs are kept.
    """
    wanted: dict[int, Sequence[tuple[int, int]]] = {layer: (sample or {}).get(layer, ()) for layer in units}
    traces = {
        layer: UnitTrace(
            high=np.zeros((len(text), len(chosen)), np.float32),
            high_at=np.zeros((len(text), len(chosen)), np.int32),
            low=np.zeros((len(text), len(chosen)), np.float32),
            low_at=np.zeros((len(text), len(chosen)), np.int32),
            total=np.zeros(len(chosen)),
            squares=np.zeros(len(chosen)),
            positive=np.zeros(len(chosen), np.int64),
            histogram=np.zeros((len(chosen), BINS), np.int64),
            sampled=np.zeros((len(wanted[layer]), reader.read_weights(layer, chosen).shape[2]), np.float32),
        )
        for layer, chosen in units.items()
    }
    rows = {layer: _rows_of(places) for layer, places in wanted.items()}
    for batch, seen in reader.run(text, range(len(text)), list(units)):
        for layer, (inputs, activations) in seen.items():
            trace, values = traces[layer], activations[:, :, units[layer]].numpy()
            for place, number in enumerate(batch):
                for row, position in rows[layer][number]:
                    trace.sampled[row] = inputs[place, position].numpy()
            trace.high[batch], trace.high_at[batch] = values.max(1), values.argmax(1)
            trace.low[batch], trace.low_at[batch] = values.min(1), values.argmin(1)
            exact = values.astype(np.float64).reshape(-1, values.shape[2])
            for total, part in (
                (trace.total, exact.sum(0)),
                (trace.squares, (exact**2).sum(0)),
                (trace.positive, (exact > 0).sum(0)),
            ):
                total += part
            for unit in range(exact.shape[1]):
                trace.histogram[unit] += np.bincount(bins_of(exact[:, unit]), minlength=BINS)
        on_tokens(sum(len(text.contexts[number][2]) for number in batch))
    return traces


def _rows_of(places: Sequence[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """For each context, the tokens wanted there: their places in the list, and their positions."""
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row, (context, position) in enumerate(places):
        rows[context].append((row, position))
    return rows


def bins_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each activation; an edge belongs to the bin farther from zero."""
    edges = bin_edges()
    above = np.searchsorted(edges, values, side="right") - 1
    below = np.searchsorted(edges, values, side="left") - 1
    return np.clip(np.where(values < 0, below, above), 0, BINS - 1)

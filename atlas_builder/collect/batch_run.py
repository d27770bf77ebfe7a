"""Batches of contexts run through the model, once or a second time, in parts where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.checkpoints import Collectors
from atlas_builder.collect.engine import Commit, Engine, Loops
from atlas_builder.collect.layer import LayerBatch, NotFiniteError
from atlas_builder.collect.own import OTHER, UNKNOWN
from atlas_builder.collect.second_run import LayerReading
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.errors import ActivationError, OutOfMemoryError
from atlas_builder.models.memory import in_halves, is_out_of_memory
from atlas_builder.progress import Progress
from atlas_builder.units.base import OutputUnits, Units

_See = Callable[[int, slice, Tensor, Tensor], Commit]
"""Looks at some contexts of a batch in a layer: inputs and activations, (contexts, context, …)."""
_AtOnce = Callable[[int, int], int | None]
"""How many contexts of so many tokens a layer is shown next."""


class BatchRun:
    """Runs batches and shows each layer to an engine, in parts where memory is short.

    Without an engine, the compiled loops collect into what is `opened`.
    """

    def __init__(
        self,
        units: Units,
        read: Contexts,
        opened: Collectors,
        device: str,
        progress: Progress,
        engine: Engine | None = None,
    ) -> None:
        self._units, self._read = units, read
        self.engine: Engine = Loops(opened.layers) if engine is None else engine
        self._device, self._progress = device, progress
        self._head = int(read.bos is not None)  # the beginning-of-sequence token is left out
        self._unit_of = _unit_of(units)
        self.tokens = 1
        """Tokens that run at once at most."""

    def fit(self, tokens: int) -> None:
        """Run at most so many tokens at once, but at least one context."""
        self.tokens = max(1, tokens)

    def tokens_of(self, batch: NDArray[np.int64]) -> int:
        """Number of tokens of text in a batch."""
        return len(batch) * int(self._read.starts[batch[0] + 1] - self._read.starts[batch[0]])

    def batch(self, batch: NDArray[np.int64]) -> None:
        """Run a batch of contexts of one length and collect it in every layer."""

        def see(layer: int, rows: slice, inputs: Tensor, activations: Tensor) -> Commit:
            return self._look(layer, batch[rows], inputs, activations)

        self._in_parts(batch, see, self.engine.contexts_at_once)

    def read_again(self, number: int, batch: NDArray[np.int64], readings: Mapping[int, LayerReading]) -> None:
        """Run a batch once more, as far as the last layer of which something is to be read."""
        layers = [layer for layer, reading in readings.items() if reading.has(number)]
        if not layers:
            return

        def see(layer: int, rows: slice, inputs: Tensor, activations: Tensor) -> Commit:
            text = inputs[:, self._head :], activations[:, self._head :]
            return readings[layer].look(number, rows, batch[rows], *text)

        self._in_parts(batch, see, lambda layer, tokens: None, max(layers))

    def _in_parts(
        self,
        batch: NDArray[np.int64],
        see: _See,
        at_once: _AtOnce,
        last: int | None = None,
    ) -> None:
        length = self.tokens_of(batch) // len(batch) + self._head
        size = max(1, self.tokens // length)
        for start in range(0, len(batch), size):
            part = slice(start, min(start + size, len(batch)))
            self._part(batch, part, see, at_once, last)

    def _part(
        self,
        batch: NDArray[np.int64],
        part: slice,
        see: _See,
        at_once: _AtOnce,
        last: int | None,
    ) -> None:
        """Run some contexts; after running out of memory, no layer collects the same context twice."""
        collected = dict.fromkeys(self._units.layers, part.start)  # the contexts before, in each layer
        length = self.tokens_of(batch) // len(batch) + self._head

        def run(these: slice) -> None:
            rows = slice(part.start + these.start, part.start + these.stop)

            def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
                while collected[layer] < rows.stop:
                    begin = collected[layer]
                    end = min(rows.stop, begin + (at_once(layer, length - self._head) or len(batch)))
                    now = slice(begin - rows.start, end - rows.start)
                    commit = see(layer, slice(begin, end), inputs[now], activations[now])
                    collected[layer] = end
                    self._finish(commit, layer)

            tokens = torch.from_numpy(self._read.stack(batch[rows])).to(self._device)
            if last is None:
                self._units.run(tokens, visit)
            else:
                self._units.run(tokens, visit, last)

        def on_halving(contexts: int, half: int) -> None:
            self.fit(half * length)
            self._progress.say(f"out of memory with {contexts} contexts at once: continuing with {half}")

        refusal = (
            f"one context of {length} tokens does not fit into the memory of {self._device}: "
            "set a smaller corpus.context or model.dtype bfloat16."
        )
        in_halves(run, part.stop - part.start, self._device, refusal, on_halving)

    def _finish(self, commit: Commit, layer: int) -> None:
        """Collect what was looked at; half collected, it must not be tried again in halves."""
        try:
            commit()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"memory ran out while activations of layer {layer} were counted: run the same command again, "
                "which goes on from the last checkpoint, with model.engine loops if it comes back."
            ) from None

    def _look(self, layer: int, part: NDArray[np.int64], inputs: Tensor, activations: Tensor) -> Commit:
        """Look at some contexts; what this returns collects them."""
        with self._naming(layer, activations.shape[2]):
            special = self._read.special_in(part)
            batch = LayerBatch(part, inputs, activations, self._head, self._own(part, special), special)
            commit = self.engine.look(layer, batch)

        def collect() -> None:
            with self._naming(layer, activations.shape[2]):
                commit()

        return collect

    @contextmanager
    def _naming(self, layer: int, of: int) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            document = self._read.names[self._read.document[error.context]]
            what = "activations of more than 10⁹" if error.too_large else "NaN or infinity"
            units = ", ".join(map(str, error.units[:3])) + (", …" if len(error.units) > 3 else "")
            raise ActivationError(
                f"layer {layer} computes {what} in document {document} "
                f"({len(error.units):,} of {of:,} units: {units}): "
                "run the model in float32 or check its weights."
            ) from None

    def _own(self, part: NDArray[np.int64], special: NDArray[np.bool_] | None) -> NDArray[np.int32] | None:
        """The unit of the next token of some contexts, as `OwnPositions` has it; None for units that are no tokens.

        Of special tokens, it is unknown.
        """
        if self._unit_of is None:
            return None
        following = self._read.next_tokens(part)
        units = self._unit_of[np.minimum(following, len(self._unit_of) - 1)]
        unknown = following < 0 if special is None else (following < 0) | special
        return np.where(unknown, UNKNOWN, units).astype(np.int32)


def _unit_of(units: Units) -> NDArray[np.int64] | None:
    """The unit of each token up to the last that is one; the last entry is that of all tokens after."""
    if not isinstance(units, OutputUnits):
        return None
    numbers = np.full(max(units.tokens) + 2, OTHER, np.int64)
    numbers[list(units.tokens)] = np.arange(len(units.tokens))
    return numbers

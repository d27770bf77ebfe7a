"""Texts around key tokens that are cut on the left, and the activations at their key tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.corpus.contexts import Contexts
from atlas_builder.models.memory import as_float32, batch_tokens, in_halves
from atlas_builder.models.packing import Rows
from atlas_builder.units.base import Units

_REFUSAL = "not even one context fits into the memory of {}: set a smaller corpus.context or describe.graphs false."


class CutTexts(NamedTuple):
    """Texts that are cut on the left."""

    tokens: NDArray[np.int64]
    """Each from its first column on, behind the token that begins a text; what follows it is 0: (texts, most)."""
    lengths: NDArray[np.int64]
    """How many tokens each has: (texts,)."""
    ends: NDArray[np.int64]
    """The place of its key token: (texts,)."""

    def repeated(self, which: NDArray[np.int64]) -> CutTexts:
        """A copy of some of them, in this order, each as often as it is named."""
        return CutTexts(*(part[which] for part in self))


class Prompts:
    """Texts around key tokens, cut on the left, and the model that runs them."""

    def __init__(self, units: Units, read: Contexts, device: str, causal: bool) -> None:
        self._units, self._read, self._device, self._causal = units, read, device, causal
        self._head = np.array([] if read.bos is None else [read.bos], np.int64)
        self._tokens = batch_tokens(max(units.count(layer) for layer in units.layers))

    def texts(
        self, context: NDArray[np.integer], position: NDArray[np.integer], kept: NDArray[np.int64] | int
    ) -> CutTexts:
        """Contexts from the first of `kept` tokens up to the key token, whose `position` in them is given.

        They end with the key token, or with the context where the model reads in both directions.
        """
        read, head = self._read, len(self._head)
        first = read.starts[context] + position.astype(np.int64) + 1 - kept
        last = first + kept if self._causal else read.starts[context + 1]
        counts = last - first
        place = first[:, None] + np.arange(int(counts.max(initial=0)))  # (texts, most)
        inside = place < last[:, None]
        tokens = np.where(inside, read.tokens[np.where(inside, place, 0)], 0).astype(np.int64)
        begins = np.broadcast_to(self._head, (len(first), head))
        return CutTexts(
            np.concatenate([begins, tokens], axis=1), head + counts, np.broadcast_to(head + kept - 1, len(first))
        )

    def activations(
        self, texts: CutTexts, layer: NDArray[np.integer], unit: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """The activation of a unit at the key token of each text; equal texts run once, those of one length together.

        All are (texts,).
        """
        found = np.zeros(len(layer))
        layers, units = layer.astype(np.int64), unit.astype(np.int64)
        for length in np.unique(texts.lengths).tolist():
            here = np.flatnonzero(texts.lengths == length)
            rows = np.concatenate([texts.tokens[here, :length], texts.ends[here, None]], axis=1)
            distinct, which = np.unique(rows, axis=0, return_inverse=True)
            distinct, which = _by_depth(distinct, which.reshape(-1), layers[here])
            at_once = max(1, self._tokens // length)
            for first in range(0, len(distinct), at_once):
                some = np.flatnonzero((which >= first) & (which < first + at_once))
                found[here[some]] = self._run(
                    distinct[first : first + at_once], which[some] - first, layers[here[some]], units[here[some]]
                )
        return found

    def _run(
        self, texts: NDArray[np.int64], row: NDArray[np.int64], layer: NDArray[np.int64], unit: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Activations of units at the key token, whose place is the last column, of rows of texts: (wanted,)."""
        found = np.zeros(len(row))

        def run(part: slice) -> None:
            rows = torch.from_numpy(texts[part]).to(self._device)
            wanted = np.flatnonzero((row >= part.start) & (row < part.stop))
            if not len(wanted):
                return

            def visit(visited: int, _: Tensor, activations: Tensor) -> None:
                some = wanted[layer[wanted] == visited]
                if len(some):
                    at, whose = (torch.from_numpy(which).to(activations.device) for which in (row[some], unit[some]))
                    found[some] = as_float32(activations[at - part.start, 0, whose]).numpy()

            self._units.run(rows[:, :-1], visit, int(layer[wanted].max()), Rows(at=rows[:, -1:]))

        in_halves(run, len(texts), self._device, _REFUSAL.format(self._device))
        return found


def _by_depth(
    texts: NDArray[np.int64], which: NDArray[np.int64], layer: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts by the deepest layer that is wanted of each, where a run ends; and which of them each asked for is."""
    deepest = np.zeros(len(texts), np.int64)
    np.maximum.at(deepest, which, layer)
    order = np.argsort(deepest, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return texts[order], place[which]

"""Texts around key tokens that are cut on the left, and the activations at their key tokens."""

from __future__ import annotations

from collections.abc import Sequence
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


class PromptKeys(NamedTuple):
    """Texts of a model and the place in each, that of a key token, where an activation of one unit is wanted."""

    texts: Sequence[NDArray[np.integer]]
    ends: NDArray[np.int64]
    layer: NDArray[np.int64]
    unit: NDArray[np.int64]


class Prompts:
    """Texts around key tokens, cut on the left, and the model that runs them."""

    def __init__(self, units: Units, read: Contexts, device: str, causal: bool) -> None:
        self._units, self._read, self._device, self._causal = units, read, device, causal
        self.head = np.array([] if read.bos is None else [read.bos], np.int64)
        self._tokens = batch_tokens(max(units.count(layer) for layer in units.layers))

    def text(self, context: int, position: int, kept: int) -> NDArray[np.int64]:
        """A context from the first of `kept` tokens up to the key token, behind the token that begins a text.

        It ends with the key token, or with the context where the model reads in both directions.
        """
        text = self._read.text_of(context)
        end = position + 1 if self._causal else len(text)
        return np.concatenate([self.head, text[position + 1 - kept : end].astype(np.int64)])

    def end(self, kept: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of the key token in a text that keeps so many tokens."""
        return np.asarray(len(self.head) + kept - 1)

    def special(self, context: int, position: int, back: int) -> bool:
        """Whether the token so many before a key token is a chat template's own."""
        special = self._read.special
        return special is not None and bool(special[self._read.starts[context] + position - back])

    def activations(self, prompts: PromptKeys) -> NDArray[np.float64]:
        """The activation that each prompt asks for; equal texts run once, those of one length together."""
        found = np.zeros(len(prompts.texts))
        lengths = np.fromiter(map(len, prompts.texts), np.int64, len(prompts.texts))
        for length in np.unique(lengths).tolist():
            here = np.flatnonzero(lengths == length)
            rows = np.stack([prompts.texts[place] for place in here.tolist()])
            rows = np.concatenate([rows, prompts.ends[here, None]], axis=1)
            distinct, which = np.unique(rows, axis=0, return_inverse=True)
            distinct, which = _by_depth(distinct, which.reshape(-1), prompts.layer[here])
            at_once = max(1, self._tokens // length)
            for first in range(0, len(distinct), at_once):
                some = np.flatnonzero((which >= first) & (which < first + at_once))
                texts = distinct[first : first + at_once]
                found[here[some]] = self._run(
                    texts, which[some] - first, prompts.layer[here[some]], prompts.unit[here[some]]
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

"""Steering: how next-token probabilities change when a unit is clamped to its maximum at every position.

As for CRATE (Bai and Ma 2024, arXiv 2410.16443), a unit is overwritten with a constant. The
distribution of the next token is computed with and without the clamp on the contexts of the unit's
strongest examples, up to the key token; the largest mean changes of a probability are kept. Unlike
the direct logit effect, this goes through all later layers and the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.logits import named_tokens
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.units.base import Steerable

EXAMPLES_CLAMPED = 3
"""Examples used for a unit, the strongest above zero."""
SHOWN = 5
"""Tokens kept on each side."""
_ROWS_AT_ONCE = 256
_AT_ONCE = 1 << 28
"""Numbers in memory at once, of probabilities or of logits: one gigabyte."""
_SORTED_AT_ONCE = 1 << 24


class Changes(NamedTuple):
    """The tokens whose probability changes most, and by how much: (units, `SHOWN`); 0 where a unit is never active."""

    more: NDArray[np.int32]
    more_by: NDArray[np.float32]
    less: NDArray[np.int32]
    less_by: NDArray[np.float32]


def clamp_units(units: Steerable, collected: Collected, folder: Path, device: str, progress: Progress) -> None:
    """Write `Changes` of every unit, layer by layer, as many units at once as `_AT_ONCE` has room for."""
    keep_memory()
    vocabulary = int(collected.facts["vocabulary"])
    named = named_tokens(collected.token_texts)
    size = max(1, _AT_ONCE // vocabulary)
    for layer in collected.layers:
        parts = []
        total = int(np.minimum(_above(layer), EXAMPLES_CLAMPED).sum())
        with progress.task(f"steer layer {layer.layer}", total=total, unit="examples") as advance:
            for first in range(0, layer.units, size):
                block = slice(first, min(first + size, layer.units))
                sums = np.zeros((block.stop - first, vocabulary), np.float32)
                for places in _batches(layer, block, vocabulary):
                    examples = layer.examples[places]
                    np.add.at(sums, examples["unit"] - first, _change(units, collected, layer, examples, device))
                    advance(len(places))
                taken = np.clip(_above(layer)[block], 1, EXAMPLES_CLAMPED)
                sums /= taken[:, None].astype(np.float32)
                parts.append(largest(sums, named))
        changes = Changes(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        np.savez(folder / f"L{layer.layer}.steering.npz", **changes._asdict())


def _change(
    units: Steerable, collected: Collected, layer: CollectedLayer, examples: np.ndarray, device: str
) -> NDArray[np.float32]:
    """How the distribution of the token after each example changes with its unit clamped: (examples, vocabulary)."""
    tokens = _text(collected.contexts, examples).to(device)
    unit = torch.from_numpy(examples["unit"].astype(np.int64)).to(device)
    value = torch.from_numpy(layer.moments.maximum[examples["unit"]].astype(np.float32)).to(device)
    change = _next(units, tokens, layer.layer, unit, value) - _next(units, tokens, layer.layer)
    changes: NDArray[np.float32] = change.cpu().numpy()
    return changes


def _next(units: Steerable, tokens: Tensor, layer: int, *clamp: Tensor) -> Tensor:
    """The distribution of the token after (rows, context) tokens: (rows, vocabulary)."""
    return units.logits_with_clamp(tokens, layer, *clamp).float().softmax(-1)


def largest(changes: NDArray[np.float32], named: NDArray[np.int32] | None = None) -> Changes:
    """The largest increases and decreases of (units, vocabulary), of tokens `named`; ties by token."""
    named = np.arange(changes.shape[1], dtype=np.int32) if named is None else named
    # Sorting takes several times the memory of what is sorted.
    size = max(1, _SORTED_AT_ONCE // changes.shape[1])
    parts = [_largest(changes[first : first + size, named], named) for first in range(0, len(changes), size)]
    return Changes(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _largest(listed: NDArray[np.float32], named: NDArray[np.int32]) -> Changes:
    up = np.argsort(-listed, axis=1, kind="stable")[:, :SHOWN]
    down = np.argsort(listed, axis=1, kind="stable")[:, :SHOWN]
    return Changes(
        named[up], np.take_along_axis(listed, up, axis=1), named[down], np.take_along_axis(listed, down, axis=1)
    )


def _above(layer: CollectedLayer) -> NDArray[np.int64]:
    """The number of examples above zero of each unit: (units,)."""
    return np.bincount(layer.examples["unit"][layer.examples["sign"] > 0], minlength=layer.units)


def _batches(layer: CollectedLayer, block: slice, vocabulary: int) -> Iterator[NDArray[np.int64]]:
    """The strongest examples of a block of units, batched by the position of the key token, so that nothing is padded.

    The logits of a batch, which are of all its tokens, are at most `_AT_ONCE`.
    """
    starts = layer.starts[:-1][block]
    places = (starts[:, None] + np.arange(EXAMPLES_CLAMPED))[
        np.arange(EXAMPLES_CLAMPED) < np.minimum(_above(layer)[block], EXAMPLES_CLAMPED)[:, None]
    ]
    position = layer.examples["position"][places]
    order = np.argsort(position, kind="stable")
    for group in np.split(places[order], np.flatnonzero(np.diff(position[order])) + 1):
        tokens = int(layer.examples["position"][group[0]]) + 2 if len(group) else 1
        size = min(_ROWS_AT_ONCE, max(1, _AT_ONCE // (vocabulary * tokens)))
        for first in range(0, len(group), size):
            yield group[first : first + size]


def _text(read: Contexts, examples: np.ndarray) -> Tensor:
    """The context of each example up to its key token: (examples, tokens)."""
    return torch.from_numpy(read.stack(examples["context"], int(examples["position"][0]) + 1))

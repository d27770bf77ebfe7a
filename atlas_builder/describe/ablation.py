"""Token importance: the effect of masking each token before a key token on the activation there (Foote 2024).

The importance of token k for an example with activation a at its key token is
I(k) = 1 − a(k masked) / a: 1 where masking removes the activation, 0 where it has no effect,
below 0 where it raises the activation. Tokens up to and including the key token are masked.
Units whose examples are in the same context share its runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.masked_runs import KeyTokens, Way, packed, trimmed, unpacked, whole
from atlas_builder.describe.shown_examples import Shown
from atlas_builder.models.memory import batch_tokens, in_halves, tokens_that_fit
from atlas_builder.models.precision import epsilon
from atlas_builder.units.base import Units

_TIMES = 4
"""So often what a CPU is given at once is a batch: other devices may take it all at once."""
_UNITS_TRIED = 64

_WAYS: dict[str, Way] = {way.__name__: way for way in (trimmed, packed, unpacked, whole)}

Wanted = np.dtype([("layer", "<i4"), ("unit", "<i4"), ("context", "<i4"), ("position", "<i4")])
"""An example to explain: its unit, and the place of its key token in a context."""


def wanted_examples(
    collected: Collected, clustered: Path, config: Configuration
) -> Iterator[tuple[int, NDArray[np.int64], np.ndarray]]:
    """For each layer the examples to explain, by their place in the layer and as `Wanted`."""
    for layer in collected.layers:
        units = Clustered(layer.layer, clustered)
        if config.describe.importance == "central":
            places = np.unique(units.behaviours["central"][units.is_main])
        else:
            shown = Shown(layer, units, collected.contexts)
            places = np.array(
                [
                    layer.starts[unit] + place
                    for unit in range(layer.units)
                    for place in sorted(shown.of(unit, config.site))
                ],
                dtype=np.int64,
            )
        examples = np.empty(len(places), Wanted)
        examples["layer"] = layer.layer
        for name in ("unit", "context", "position"):
            examples[name] = layer.examples[name][places]
        yield layer.layer, places, examples


class Masking:
    """Runs a model with one token masked at a time.

    Examples are given as `Wanted`. `mask` is the token that replaces a masked one, `reach`
    how many tokens before a key token are masked besides itself. A model that is not `causal`
    reads whole contexts. `shape` is TransformerLens's configuration: where it is known, a device
    other than the CPU is given as much at once as its memory takes. `dtype` is the model's. `way` names
    one of the ways of `masked_runs`; where it does not, the model is tried.
    """

    def __init__(
        self,
        units: Units,
        read: Contexts,
        mask: int,
        reach: int,
        device: str = "cpu",
        causal: bool = True,
        shape: Any = None,
        dtype: torch.dtype = torch.float32,
        way: str | None = None,
    ) -> None:
        self._units, self._read, self._mask, self.reach = units, read, mask, reach
        self._device, self._causal, self._shape = device, causal, shape
        self._slack = epsilon(dtype) ** 0.5
        self._tokens = batch_tokens(max(units.count(layer) for layer in units.layers))
        self._way = whole if not causal else None if way is None else _WAYS[way]

    def batches(self, examples: np.ndarray) -> list[NDArray[np.int64]]:
        """Divide the examples into batches in which as many tokens are masked for each, of near key positions.

        It depends on the examples and the units alone. Examples of one key token are in one batch.
        """
        keys = examples["context"].astype(np.int64) << 32 | examples["position"]
        tokens, which = np.unique(keys, return_inverse=True)
        depth = np.full(len(tokens), -1)
        np.maximum.at(depth, which, examples["layer"])
        deepest = depth[which]  # among the examples of the same key token
        masked = np.minimum(self.reach, examples["position"]) + 1
        length = np.zeros_like(deepest) if self._causal else np.diff(self._read.starts)[examples["context"]]
        order = np.lexsort([examples["context"], examples["position"], length, masked, deepest])
        columns = np.stack([deepest, masked, length, examples["position"], examples["context"]])[:, order]
        new = np.append(True, (columns[:, 1:] != columns[:, :-1]).any(axis=0))
        kind = np.append(True, (columns[:3, 1:] != columns[:3, :-1]).any(axis=0))
        parts: list[list[int]] = []
        room = 0
        for place in range(len(order)):
            if new[place]:
                room -= 1
                if kind[place] or room < 0:
                    parts.append([])
                    run = _TIMES * self._at_once(int(columns[1, place]), int(columns[2, place]))
                    room = max(1, run) - 1
            parts[-1].append(int(order[place]))
        return [np.array(part, dtype=np.int64) for part in parts]

    def _at_once(self, masked: int, length: int = 0) -> int:
        """Key tokens whose masked runs come to a batch of tokens; contexts are read whole where `length` is given."""
        return self._tokens // (length * (masked + 1) if length else masked * (masked + 1) // 2)

    def importance(self, examples: np.ndarray, batch: NDArray[np.int64]) -> NDArray[np.float32]:
        """I(k) of the examples of a batch for the `reach` tokens before and the key token: (examples, reach + 1).

        NaN before the start of a context, and where the activation is zero.
        """
        keys = self._keys(examples[batch])
        masked = self._masked(keys)
        at_key = self._run(self._chosen_way(examples), keys, masked)
        importance = np.full((len(batch), self.reach + 1), np.nan, np.float32)
        without = at_key[:, :1]
        with np.errstate(divide="ignore", invalid="ignore"):
            importance[:, self.reach + 1 - masked :] = np.where(without != 0, 1 - at_key[:, 1:] / without, np.nan)
        return importance

    def way(self, examples: np.ndarray) -> str:
        """The way that the model is run, by its name in `masked_runs`; what a model obeys is tried on some examples."""
        return self._chosen_way(examples).__name__

    def _keys(self, examples: np.ndarray) -> KeyTokens:
        """The key tokens of some examples: of one length, where the model reads whole contexts."""
        tokens = np.stack([examples["context"], examples["position"]]).astype(np.int64)
        keys, which = np.unique(tokens, axis=1, return_inverse=True)
        head = [] if self._read.bos is None else [self._read.bos]
        ends = keys[1] + len(head)
        texts = [self._read.text_of(int(context)) for context in keys[0]]
        if self._causal:
            texts = [text[: position + 1] for text, position in zip(texts, keys[1].tolist(), strict=True)]
        rows = np.full((len(texts), len(head) + max(map(len, texts))), self._mask, np.int64)
        for row, text in zip(rows, texts, strict=True):
            row[: len(head) + len(text)] = [*head, *text.tolist()]
        layer, unit = (examples[name].astype(np.int64) for name in ("layer", "unit"))
        return KeyTokens(
            torch.from_numpy(rows).to(self._device), ends, which.reshape(-1), layer, unit, causal=self._causal
        )

    def _masked(self, keys: KeyTokens) -> int:
        """How many tokens are masked for each of some key tokens, one at a time: as many for all."""
        return min(self.reach, int(keys.ends[0]) - int(self._read.bos is not None)) + 1

    def _run(self, way: Way, keys: KeyTokens, masked: int) -> NDArray[np.float64]:
        """Activations at the key tokens, (examples, 1 + masked), as much at once as the device takes."""
        length = keys.text.shape[1]
        at_once = max(1, self._at_once(masked, 0 if self._causal else length))
        if self._shape is not None and not self._device.startswith("cpu"):
            tokens = tokens_that_fit(self._shape, length + masked, self._device)
            at_once = max(1, tokens // (length + masked * (masked + 1)))
        order = np.argsort(keys.ends, kind="stable")
        found = np.zeros((len(keys.key), 1 + masked))

        def run(rows: slice) -> None:
            some, examples = keys.only(np.sort(part[rows]))
            found[examples] = way(self._units, some, masked, self._mask)

        refusal = (
            f"not even one context of {length} tokens, masked in {masked} places, fits into the memory of "
            f"{self._device}: set a smaller examples.window or describe.importance none."
        )
        for first in range(0, len(order), at_once):
            part = order[first : first + at_once]
            in_halves(run, len(part), self._device, refusal)
        return found

    def _chosen_way(self, examples: np.ndarray) -> Way:
        if self._way is None:
            self._way = self._obeyed(examples)
        return self._way

    def _obeyed(self, examples: np.ndarray) -> Way:
        """The fastest way that comes to what each run comes to alone, at the farthest key token and a near one.

        Not all models take places and masks, some have attention that reaches less far, some none.
        The largest difference may be the square root of the precision's machine epsilon, relative to
        the layer's largest activation: rounding adds up to much less, another computation to much more.
        """
        masked = np.minimum(self.reach, examples["position"])
        far = examples[[int(examples["position"].argmax())]]
        near = examples[masked == masked.max()]
        near = near[[int(near["position"].argmin())]]
        tried = np.unique(np.concatenate([far, near])[["context", "position"]])
        last = int(examples["layer"].max())
        layers = [layer for layer in self._units.layers if layer <= last]
        every = [
            (layer, unit, *key)
            for layer in layers
            for unit in range(0, self._units.count(layer), -(-self._units.count(layer) // _UNITS_TRIED))
            for key in tried.tolist()
        ]
        keys = self._keys(np.array(every, dtype=Wanted))
        expected = self._run(unpacked, keys, self._masked(keys))
        ways = (trimmed, packed)
        return next((way for way in ways if self._is_near(way, keys, expected)), unpacked)

    def _is_near(self, way: Way, keys: KeyTokens, expected: NDArray[np.float64]) -> bool:
        """Whether a way comes to what is expected of each layer, (examples, 1 + masked), but for rounding."""
        try:
            found = self._run(way, keys, self._masked(keys))
        except Exception:  # models raise many kinds for what they do not take
            return False
        return all(
            np.abs(found - expected)[keys.layer == layer].max()
            <= self._slack * np.abs(expected[keys.layer == layer]).max()
            for layer in np.unique(keys.layer)
        )

"""Token importance: the effect of masking each token before a key token on the activation there (Foote 2024).

The importance of token k for an example with activation a at its key token is
I(k) = 1 − a(k masked) / a: 1 where masking removes the activation, 0 where it has no effect,
below 0 where it raises the activation. Tokens up to and including the key token are masked.
Units whose examples are in the same context share its runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.shown_examples import Shown
from atlas_builder.models.memory import as_float32, batch_tokens, in_halves
from atlas_builder.units.base import Units

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
    how many tokens before a key token are masked besides itself. The text before the first
    masked token runs once for all of them. A model that is not `causal` reads whole contexts.
    """

    def __init__(
        self, units: Units, read: Contexts, mask: int, reach: int, device: str = "cpu", causal: bool = True
    ) -> None:
        self._units, self._read, self._mask, self.reach = units, read, mask, reach
        self._device, self._causal = device, causal
        self._tokens = batch_tokens(max(units.count(layer) for layer in units.layers))

    def batches(self, examples: np.ndarray) -> list[NDArray[np.int64]]:
        """Divide the examples into batches in which all key tokens have the same position in their contexts.

        Where whole contexts are read, these are of one length too.
        """
        keys = examples["context"].astype(np.int64) << 32 | examples["position"]
        tokens, which = np.unique(keys, return_inverse=True)
        depth = np.full(len(tokens), -1)
        np.maximum.at(depth, which, examples["layer"])
        deepest = depth[which]  # among the examples of the same key token
        length = np.zeros_like(deepest) if self._causal else np.diff(self._read.starts)[examples["context"]]
        order = np.lexsort([examples["context"], length, examples["position"], deepest])
        columns = np.stack([deepest, examples["position"], length, examples["context"]])[:, order]
        new = np.append(True, (columns[:, 1:] != columns[:, :-1]).any(axis=0))
        kind = np.append(True, (columns[:3, 1:] != columns[:3, :-1]).any(axis=0))
        parts: list[list[int]] = []
        room = 0
        for place in range(len(order)):
            if new[place]:
                masked = self._masked(int(columns[1, place]))
                room -= 1
                if kind[place] or room < 0:
                    parts.append([])
                    run = masked if self._causal else int(columns[2, place])  # tokens
                    room = max(1, self._tokens // (run * (masked + 1))) - 1
            parts[-1].append(int(order[place]))
        return [np.array(part, dtype=np.int64) for part in parts]

    def _masked(self, position: int) -> int:
        return min(self.reach, position) + 1

    def importance(self, examples: np.ndarray, batch: NDArray[np.int64]) -> NDArray[np.float32]:
        """I(k) of the examples of a batch for the `reach` tokens before and the key token: (examples, reach + 1).

        NaN before the start of a context, and where the activation is zero.
        """
        chosen = examples[batch]
        contexts, place = np.unique(chosen["context"], return_inverse=True)
        end = int(chosen["position"][0]) + 1
        masked = self._masked(end - 1)
        text = self._read.stack(contexts, end if self._causal else None)
        at_key = np.zeros((len(chosen), 1 + masked))
        run = self._run if self._causal else self._run_whole
        run(torch.from_numpy(text).to(self._device), masked, chosen, place.reshape(-1), at_key)
        importance = np.full((len(chosen), self.reach + 1), np.nan, np.float32)
        whole = at_key[:, :1]
        with np.errstate(divide="ignore", invalid="ignore"):
            importance[:, self.reach + 1 - masked :] = np.where(whole != 0, 1 - at_key[:, 1:] / whole, np.nan)
        return importance

    def _run(
        self, text: Tensor, masked: int, examples: np.ndarray, place: NDArray[np.int64], at_key: NDArray[np.float64]
    ) -> None:
        """Fill in `at_key`, activations at key tokens, (examples, 1 + masked); contexts are at `place` of the text."""

        def run(rows: slice) -> None:
            in_rows = (place >= rows.start) & (place < rows.stop)
            part = at_key[in_rows]
            self._run_at_once(text[rows], masked, examples[in_rows], place[in_rows] - rows.start, part)
            at_key[in_rows] = part

        refusal = (
            f"not even one context of {text.shape[1]} tokens, masked in {masked} places, fits into the memory of "
            f"{self._device}: set a smaller examples.window or describe.importance none."
        )
        in_halves(run, len(text), self._device, refusal)

    def _run_whole(
        self, text: Tensor, masked: int, examples: np.ndarray, place: NDArray[np.int64], at_key: NDArray[np.float64]
    ) -> None:
        """As `_run`, of a model that reads in both directions: contexts one by one, each whole."""
        key = int(examples["position"][0]) + int(self._read.bos is not None)
        last = int(examples["layer"].max())
        for number, row in enumerate(text):
            here = place == number
            rows = row.repeat(1 + masked, 1)
            rows[torch.arange(1, 1 + masked), torch.arange(key + 1 - masked, key + 1)] = self._mask

            def visit(layer: int, inputs: Tensor, activations: Tensor, here: NDArray[np.bool_] = here) -> None:
                of_layer = here & (examples["layer"] == layer)
                if of_layer.any():
                    at_key[of_layer] = as_float32(activations[:, key])[:, examples["unit"][of_layer]].T.numpy()

            self._units.run(rows, visit, last)

    def _run_at_once(
        self, text: Tensor, masked: int, examples: np.ndarray, place: NDArray[np.int64], at_key: NDArray[np.float64]
    ) -> None:
        last = int(examples["layer"].max())
        before, after = text[:, :-masked], text[:, -masked:]  # (contexts, masked)
        runs = after[:, None].repeat(1, 1 + masked, 1)  # (contexts, 1 + masked, masked)
        runs[:, 1:][:, torch.eye(masked, dtype=torch.bool, device=runs.device)] = self._mask

        def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
            of_layer = examples["layer"] == layer
            if of_layer.any():
                final = as_float32(activations[:, -1])  # (contexts · (1 + masked), units)
                final = final.reshape(len(text), 1 + masked, -1)
                at_key[of_layer] = final[place[of_layer], :, examples["unit"][of_layer].astype(np.int64)]

        cache = None
        if before.shape[1]:
            cache = DynamicCache()
            self._units.run(before, lambda *_: None, last, cache)
            if cache.get_seq_length() == before.shape[1]:
                cache.batch_repeat_interleave(1 + masked)
            else:  # a model without one takes it and passes it over
                cache, whole = None, before[:, None].repeat(1, 1 + masked, 1)
                runs = torch.cat([whole, runs], dim=2)
        self._units.run(runs.flatten(0, 1), visit, last, cache)

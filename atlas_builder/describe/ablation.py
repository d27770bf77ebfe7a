"""What each token before a key token does for the activation there, by masking it (Foote 2024).

The importance of token k for an example with activation a at its key token is
I(k) = 1 − a(k masked) / a: 1 where without it nothing is left, 0 where it does nothing,
below 0 where it holds the unit back. Tokens up to the key token count, itself included.
Runs are shared between the units whose examples are of one context.
"""

from __future__ import annotations

import shutil
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
from atlas_builder.describe.results import importance_file, save_importance
from atlas_builder.describe.shown_examples import Shown
from atlas_builder.files import read_array
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import as_float32, batch_tokens, in_halves, keep_memory
from atlas_builder.progress import Progress
from atlas_builder.units.base import Units

_BATCHES_A_FILE = 32
_PARTS = "importance"


Wanted = np.dtype([("layer", "<i4"), ("unit", "<i4"), ("context", "<i4"), ("position", "<i4")])
"""An example to explain: a unit's, and its key token's place in a context."""


def wanted_examples(
    collected: Collected, clustered: Path, config: Configuration
) -> Iterator[tuple[int, NDArray[np.int64], np.ndarray]]:
    """For each layer the examples that are to be explained, by their place in the layer and as `Wanted`."""
    for layer in collected.layers:
        units = Clustered(layer.layer, clustered)
        if config.describe.importance == "central":
            places = np.unique(units.behaviours["central"])
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
        found = np.empty(len(places), Wanted)
        found["layer"] = layer.layer
        for name in ("unit", "context", "position"):
            found[name] = layer.examples[name][places]
        yield layer.layer, places, found


class Masking:
    """Runs a model with one token masked at a time.

    What is asked for are examples, `Wanted`. `mask` is the token that stands
    for another, `reach` how many tokens before a key token are masked, besides itself.
    What comes before all of these runs once for all of them.
    """

    def __init__(self, units: Units, read: Contexts, mask: int, reach: int, device: str = "cpu") -> None:
        self._units, self._read, self._mask, self.reach = units, read, mask, reach
        self._device = device
        self._tokens = batch_tokens(max(units.count(layer) for layer in units.layers))

    def batches(self, wanted: np.ndarray) -> list[NDArray[np.int64]]:
        """Part the examples into those that run together: their key tokens have one position in their contexts."""
        looked_at = wanted["context"].astype(np.int64) << 32 | wanted["position"]
        tokens, which = np.unique(looked_at, return_inverse=True)
        depth = np.full(len(tokens), -1)
        np.maximum.at(depth, which, wanted["layer"])
        deepest = depth[which]  # of all that look at the same token
        order = np.lexsort([wanted["context"], wanted["position"], deepest])
        looks = np.stack([deepest, wanted["position"], wanted["context"]])[:, order]
        new = np.append(True, (looks[:, 1:] != looks[:, :-1]).any(axis=0))
        kind = np.append(True, (looks[:2, 1:] != looks[:2, :-1]).any(axis=0))
        parts: list[list[int]] = []
        room = 0
        for place in range(len(order)):
            if new[place]:
                masked = self._masked(int(looks[1, place]))
                room -= 1
                if kind[place] or room < 0:
                    parts.append([])
                    room = max(1, self._tokens // (masked * (masked + 1))) - 1
            parts[-1].append(int(order[place]))
        return [np.array(part, dtype=np.int64) for part in parts]

    def _masked(self, position: int) -> int:
        return min(self.reach, position) + 1

    def importance(self, wanted: np.ndarray, examples: NDArray[np.int64]) -> NDArray[np.float32]:
        """I(k) of the examples of a batch for the `reach` tokens before and the key token: (examples, reach + 1).

        NaN where a context begins later, and where the activation is zero.
        """
        found = wanted[examples]
        contexts, place = np.unique(found["context"], return_inverse=True)
        end = int(found["position"][0]) + 1
        masked = self._masked(end - 1)
        text = self._read.stack(contexts, end)
        fired = np.zeros((len(found), 1 + masked))
        self._run(torch.from_numpy(text).to(self._device), masked, found, place.reshape(-1), fired)
        importance = np.full((len(found), self.reach + 1), np.nan, np.float32)
        whole = fired[:, :1]
        with np.errstate(divide="ignore", invalid="ignore"):
            importance[:, self.reach + 1 - masked :] = np.where(whole != 0, 1 - fired[:, 1:] / whole, np.nan)
        return importance

    def _run(
        self, text: Tensor, masked: int, found: np.ndarray, place: NDArray[np.int64], fired: NDArray[np.float64]
    ) -> None:
        """Fill in the activations of the examples, (examples, 1 + masked), their contexts at `place` of the text."""

        def run(rows: slice) -> None:
            mine = (place >= rows.start) & (place < rows.stop)
            some = fired[mine]
            self._run_at_once(text[rows], masked, found[mine], place[mine] - rows.start, some)
            fired[mine] = some

        refusal = (
            f"not even one context of {text.shape[1]} tokens, masked in {masked} places, fits into the memory of "
            f"{self._device}: set a smaller examples.window or describe.importance none."
        )
        in_halves(run, len(text), self._device, refusal)

    def _run_at_once(
        self, text: Tensor, masked: int, found: np.ndarray, place: NDArray[np.int64], fired: NDArray[np.float64]
    ) -> None:
        last = int(found["layer"].max())
        before, after = text[:, :-masked], text[:, -masked:]  # (contexts, masked)
        runs = after[:, None].repeat(1, 1 + masked, 1)  # (contexts, 1 + masked, masked)
        runs[:, 1:][:, torch.eye(masked, dtype=torch.bool, device=runs.device)] = self._mask

        def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
            mine = found["layer"] == layer
            if mine.any():
                final = as_float32(activations[:, -1])  # (contexts · (1 + masked), units)
                final = final.reshape(len(text), 1 + masked, -1)
                fired[mine] = final[place[mine], :, found["unit"][mine].astype(np.int64)]

        cache = None
        if before.shape[1]:
            cache = DynamicCache()
            self._units.run(before, lambda *_: None, last, cache)
            cache.batch_repeat_interleave(1 + masked)
        self._units.run(runs.reshape(-1, masked), visit, last, cache)


def measure_importance(
    loaded: LanguageModel, units: Units, collected: Collected, clustered: Path, config: Configuration, folder: Path,
    progress: Progress,
) -> None:  # fmt: skip
    """Write the importance of tokens for the examples that the configuration asks for, layer by layer.

    What is done is kept in `folder` in small parts, so that a run that was stopped goes on.
    """
    keep_memory()
    masking = Masking(units, collected.contexts, loaded.mask, config.examples.window[0], config.model.device)
    layers = list(wanted_examples(collected, clustered, config))
    found = _in_parts(masking, np.concatenate([examples for _, _, examples in layers]), folder / _PARTS, progress)
    ends = np.cumsum([len(places) for _, places, _ in layers])
    for (layer, places, _), values in zip(layers, np.split(found, ends[:-1]), strict=True):
        save_importance(importance_file(folder, layer), places, values)
    shutil.rmtree(folder / _PARTS)


def _in_parts(masking: Masking, wanted: np.ndarray, folder: Path, progress: Progress) -> NDArray[np.float32]:
    """I(k) of all examples, `Wanted`: (examples, reach + 1)."""
    batches = masking.batches(wanted)
    folder.mkdir(exist_ok=True)
    found = np.full((len(wanted), masking.reach + 1), np.nan, np.float32)
    with progress.task("importance", total=len(wanted), unit="examples") as advance:
        for first in range(0, len(batches), _BATCHES_A_FILE):
            part = batches[first : first + _BATCHES_A_FILE]
            path = folder / f"{first}.npy"
            if not path.exists():
                draft = folder / "draft"
                with draft.open("wb") as file:
                    np.save(file, np.concatenate([masking.importance(wanted, examples) for examples in part]))
                draft.replace(path)
            found[np.concatenate(part)] = read_array(path)
            advance(sum(map(len, part)))
    return found

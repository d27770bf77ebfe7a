"""The describe stage: tokens, labels, logit effects and bands of every layer."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import Examples
from atlas_builder.describe.importance import Importance, file_of
from atlas_builder.describe.labels import Scene, describe_words, scene
from atlas_builder.describe.logits import Effects, logit_effects, strongest
from atlas_builder.describe.novelty import Novelty, novelty, reads_like
from atlas_builder.describe.tokens import next_shares, next_tokens, token_shares, window_tokens
from atlas_builder.numbers import significant
from atlas_builder.progress import Progress
from atlas_builder.store import read_array, read_json, write_json

TOKENS_SHOWN = 6
"""Tokens kept for a behaviour."""
NEXT_SHOWN = 4
"""Tokens kept of those that come next in a behaviour's examples."""
LOGITS_SHOWN = 10
"""Tokens kept on each side of a unit's logit effects."""
_UNITS_AT_ONCE = 256
_LOSS = "loss.json"


@dataclass(frozen=True)
class Described:
    """One layer of the folder of the describe stage."""

    layer: int
    folder: Path

    @cached_property
    def behaviours(self) -> list[dict[str, Any]]:
        """`label`, `words` ([word, share]…), `tokens` ([token id, weight]…) and `next` (alike) of each behaviour."""
        found: list[dict[str, Any]] = read_json(self.folder / f"L{self.layer}.behaviours.json")
        return found

    @cached_property
    def importance(self) -> Importance:
        """What each token of some examples does for their activation."""
        return Importance(file_of(self.folder, self.layer))

    @cached_property
    def bands(self) -> Novelty:
        """How the tokens of each unit's bands compare with those of its top band."""
        with np.load(self.folder / f"L{self.layer}.bands.npz") as arrays:
            return Novelty(**{name: arrays[name] for name in Novelty._fields})

    @cached_property
    def prediction(self) -> np.ndarray | None:
        """How well tokens foretell where each unit fires, `prediction.COUNTS`; None where that was not tried."""
        path = self.folder / f"L{self.layer}.prediction.npy"
        return read_array(path) if path.exists() else None

    @cached_property
    def steering(self) -> dict[str, np.ndarray] | None:
        """What each unit does when it is held, `steering.Changes` by name; None where that was not tried."""
        path = self.folder / f"L{self.layer}.steering.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return dict(arrays)

    @cached_property
    def effects(self) -> Effects:
        """The logit effects of each unit."""
        with np.load(self.folder / f"L{self.layer}.logits.npz") as arrays:
            return Effects(**{name: arrays[name] for name in Effects._fields})


def write_loss(folder: Path, loss: tuple[float, int] | None) -> None:
    """Keep the model's loss, where it has one, as an atlas says it: nats a token, over so many tokens."""
    found = None if loss is None else {"nats": significant(loss[0]), "tokens": loss[1]}
    write_json(folder / _LOSS, found)


def read_loss(folder: Path) -> dict[str, Any] | None:
    """What `write_loss` kept; None where the loss was not measured."""
    found: dict[str, Any] | None = read_json(folder / _LOSS) if (folder / _LOSS).exists() else None
    return found


def describe(
    collected: Collected, clustered: Path, examples: Examples, folder: Path, executor: Executor, progress: Progress
) -> None:
    """Describe every behaviour and unit; a layer is one piece of work, since labels compare its behaviours."""
    with progress.task("describe", total=len(collected.layers), unit="layers") as advance:
        tasks = [
            executor.submit(_describe_layer, collected.folder, layer, clustered, examples.window, folder)
            for layer in collected.layers
        ]
        for task in tasks:
            task.result()
            advance(1)


def _describe_layer(
    collected_folder: Path, layer: CollectedLayer, clustered: Path, window: tuple[int, int], folder: Path
) -> None:
    collected = Collected(collected_folder)
    units = Clustered(layer.layer, clustered)
    examples = layer.examples
    behaviour = behaviour_of_examples(units, layer.starts)
    tokens = window_tokens(
        collected.contexts.tokens, collected.contexts.starts, examples["context"], examples["position"], *window
    )
    shares = token_shares(
        tokens, examples["window"] * examples["sign"][:, None], behaviour, len(units.behaviours), TOKENS_SHOWN
    )
    contexts = collected.contexts
    following = next_tokens(
        contexts.tokens, contexts.starts, contexts.document, examples["context"], examples["position"]
    )
    coming = next_shares(following, behaviour, len(units.behaviours), NEXT_SHOWN)
    worded = describe_words(_scenes(tokens, behaviour, len(units.behaviours), window[0], collected.token_texts))
    write_json(
        folder / f"L{layer.layer}.behaviours.json",
        [
            {"label": label, "words": words, "tokens": share, "next": after}
            for (label, words), share, after in zip(worded, shares, coming, strict=True)
        ],
    )
    np.savez(folder / f"L{layer.layer}.bands.npz", **_novelty(collected, layer)._asdict())
    with threadpool_limits(limits=1):
        parts = [
            strongest(
                logit_effects(layer.write_weights[first : first + _UNITS_AT_ONCE], collected.unembedding), LOGITS_SHOWN
            )
            for first in range(0, layer.units, _UNITS_AT_ONCE)
        ]
    effects = Effects(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    np.savez(folder / f"L{layer.layer}.logits.npz", **effects._asdict())


def _novelty(collected: Collected, layer: CollectedLayer) -> Novelty:
    contexts, found = collected.contexts, layer.bands
    token = contexts.tokens[contexts.starts[found["context"]] + found["position"]]
    words = reads_like(collected.token_texts)[token]
    return novelty(found["unit"], found["band"], words, layer.units, layer.band_edges.shape[1] - 1)


def behaviour_of_examples(units: Clustered, example_starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each example of a layer the place of its behaviour in the layer's list, −1 for noise."""
    owner = np.repeat(np.arange(len(example_starts) - 1), np.diff(example_starts))
    return np.where(units.labels >= 0, units.starts[owner] + units.labels, -1)


def _scenes(
    tokens: NDArray[np.int32], behaviour: NDArray[np.int64], count: int, before: int, texts: list[str]
) -> list[list[Scene]]:
    found: list[list[Scene]] = [[] for _ in range(count)]
    lead = (tokens[:, :before] < 0).sum(axis=1)
    for row, owner, missing in zip(tokens, behaviour, lead, strict=True):
        if owner >= 0:
            words = [texts[token] for token in row if token >= 0]
            found[owner].append(scene(words, before - int(missing)))
    return found

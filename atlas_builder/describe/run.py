"""The describe stage: tokens, labels, direct logit effects and bands of every layer."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import ExampleSettings
from atlas_builder.describe.labels import Wording, describe_words
from atlas_builder.describe.logits import Effects, logit_effects, named_tokens, strongest
from atlas_builder.describe.novelty import Novelty, novelty, reads_like
from atlas_builder.describe.token_shares import next_shares, next_tokens, token_shares, window_tokens
from atlas_builder.describe.window_words import WindowWords
from atlas_builder.files import write_json
from atlas_builder.progress import Progress, gc_paused

TOKENS_SHOWN = 6
"""Tokens kept for a behaviour."""
NEXT_SHOWN = 4
"""Next tokens kept for a behaviour."""
LOGITS_SHOWN = 10
"""Tokens kept on each side of a unit's direct logit effects."""
_UNITS_AT_ONCE = 256


def describe(
    collected: Collected,
    clustered: Path,
    examples: ExampleSettings,
    folder: Path,
    executor: Executor,
    progress: Progress,
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
    with gc_paused():  # many small objects, none of which is in a cycle
        write_json(
            folder / f"L{layer.layer}.behaviours.json",
            _behaviours(collected, layer, Clustered(layer.layer, clustered), window),
        )
    np.savez(folder / f"L{layer.layer}.bands.npz", **_novelty(collected, layer, layer.bands)._asdict())
    if layer.own_bands is not None:
        np.savez(folder / f"L{layer.layer}.own_bands.npz", **_novelty(collected, layer, layer.own_bands)._asdict())
    np.savez(folder / f"L{layer.layer}.logits.npz", **_effects(layer, collected)._asdict())


def _behaviours(
    collected: Collected, layer: CollectedLayer, units: Clustered, window: tuple[int, int]
) -> list[dict[str, Any]]:
    """Each behaviour of a layer as `Described.behaviours` reads it."""
    examples, count = layer.examples, len(units.behaviours)
    behaviour = behaviour_of_examples(units, layer.starts)
    contexts, reads = collected.contexts, collected.reads
    tokens = window_tokens(reads, contexts.starts, examples["context"], examples["position"], *window)
    shares = token_shares(tokens, examples["window"] * examples["sign"][:, None], behaviour, count, TOKENS_SHOWN)
    following = next_tokens(
        reads, contexts.starts, contexts.document, examples["context"], examples["position"], contexts.begins
    )
    coming = next_shares(following, behaviour, count, NEXT_SHOWN)
    worded = _worded(collected, examples, behaviour, units.behaviours["unit"], window)
    return [
        {"label": label, "words": words, "tokens": share, "next": after}
        for (label, words), share, after in zip(worded, shares, coming, strict=True)
    ]


def _effects(layer: CollectedLayer, collected: Collected) -> Effects:
    """The direct logit effects of a layer's units, of no tokens where the model has none or they write nothing."""
    unembedding, writes = collected.unembedding, layer.write_weights
    if unembedding is None or writes is None:
        tokens, values = np.zeros((layer.units, 0), np.int32), np.zeros((layer.units, 0), np.float32)
        return Effects(tokens, values, tokens, values)
    named = named_tokens(collected.token_texts)
    with threadpool_limits(limits=1):
        parts = [
            strongest(logit_effects(writes[first : first + _UNITS_AT_ONCE], unembedding), LOGITS_SHOWN, named)
            for first in range(0, layer.units, _UNITS_AT_ONCE)
        ]
    return Effects(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _novelty(collected: Collected, layer: CollectedLayer, tokens: np.ndarray) -> Novelty:
    """How bands compare by the `tokens` drawn from them, `band_type`."""
    read = collected.reads[collected.contexts.starts[tokens["context"]] + tokens["position"]]
    words = reads_like(collected.texts_read)[read]
    return novelty(tokens["unit"], tokens["band"], words, layer.units, layer.band_edges.shape[1] - 1)


def behaviour_of_examples(units: Clustered, example_starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each example of a layer the place of its behaviour in the layer's list, −1 for unclustered ones."""
    owner = np.repeat(np.arange(len(example_starts) - 1), np.diff(example_starts))
    return np.where(units.labels >= 0, units.starts[owner] + units.labels, -1)


def _worded(
    collected: Collected,
    examples: np.ndarray,
    behaviour: NDArray[np.int64],
    units: NDArray[np.int32],
    window: tuple[int, int],
) -> list[Wording]:
    """The words of each behaviour of some `units`; examples at one place of the text are read once."""
    contexts = collected.contexts
    clustered = np.flatnonzero(behaviour >= 0)
    context, position = examples["context"][clustered], examples["position"][clustered]
    _, first_at, place = np.unique(contexts.starts[context] + position, return_index=True, return_inverse=True)
    whole = contexts.windows(context[first_at], position[first_at], *window).whole(contexts.begins)
    words = WindowWords.of_windows(np.asarray(contexts.tokens), collected.token_texts, whole, contexts.special)
    return describe_words(words, place, behaviour[clustered], units)

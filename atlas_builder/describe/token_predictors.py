"""Counts of predicted and true activations on held-out contexts, by patterns learnt from the other contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.results import Importance, importance_file
from atlas_builder.describe.token_scores import COUNTS, HELD_OUT_EVERY, UNTRIED, Numbers, Patterns, count_predictions
from atlas_builder.models.memory import as_float32, batch_tokens
from atlas_builder.progress import Progress
from atlas_builder.units.base import Units

NEEDED = 0.75
"""Importance above which a token belongs to a pattern."""


def predict(units: Units, collected: Collected, folder: Path, device: str, progress: Progress) -> None:
    """Run the model over the held-out contexts and write the `COUNTS` of every unit, layer by layer."""
    read = collected.contexts
    layers = {layer.layer: layer for layer in collected.layers}
    ways = {number: _ways(layer, folder, read) for number, layer in layers.items()}
    counts = {number: np.zeros(layer.units, COUNTS) for number, layer in layers.items()}
    head = int(read.bos is not None)
    at_once = batch_tokens(max(layer.units for layer in layers.values()))
    batches = [held_out for batch in read.batches(at_once) if len(held_out := _held_out(batch))]
    with progress.task("prediction", total=sum(len(batch) for batch in batches), unit="contexts") as advance:
        for batch in batches:
            text = read.stack(batch)

            def visit(layer: int, _: torch.Tensor, activations: torch.Tensor, text: Numbers = text) -> None:
                flat = as_float32(activations[:, head:]).flatten(0, 1).numpy()
                count_predictions(counts[layer], ways[layer], text[:, head:], flat, layers[layer].moments.maximum)

            units.run(torch.from_numpy(text).to(device), visit)
            advance(len(batch))
    for number, layer_counts in counts.items():
        if not importance_file(folder, number).exists():  # nobody asked for it: no examples of a layer is a fact
            layer_counts["context_predicted"] = UNTRIED
        np.save(folder / f"L{number}.prediction.npy", layer_counts)


def _held_out(contexts: Numbers) -> Numbers:
    held_out: Numbers = contexts[contexts % HELD_OUT_EVERY == HELD_OUT_EVERY - 1]
    return held_out


def _ways(layer: CollectedLayer, folder: Path, read: Contexts) -> tuple[Patterns, Patterns]:
    """Token look-up and context patterns of a layer's units, from examples above zero that are not held out."""
    examples = layer.examples
    learnt = np.flatnonzero((examples["sign"] > 0) & (examples["context"] % HELD_OUT_EVERY != HELD_OUT_EVERY - 1))
    tokens = np.asarray(read.tokens)
    keys = read.starts[examples["context"]] + examples["position"]
    look_up = Patterns.of((unit, key, ()) for unit, key in zip(
        examples["unit"][learnt].tolist(), tokens[keys[learnt]].tolist(), strict=True))  # fmt: skip
    explained, importance = Importance(importance_file(folder, layer.layer)).all
    known = np.isin(explained, learnt)
    contextual = (
        (int(examples["unit"][place]), int(tokens[keys[place]]), _needed(tokens, int(keys[place]), values))
        for place, values in zip(explained[known].tolist(), importance[known], strict=True)
    )
    return look_up, Patterns.of(contextual)


def _needed(tokens: NDArray[np.int32], key: int, importance: NDArray[np.float32]) -> tuple[tuple[int, int], ...]:
    """The tokens that the activation needs: how far before the key token each stands, and which it is."""
    before = np.flatnonzero(np.nan_to_num(importance[:-1], nan=0.0) > NEEDED)
    return tuple(
        (int(len(importance) - 1 - place), int(tokens[key - (len(importance) - 1 - place)])) for place in before
    )

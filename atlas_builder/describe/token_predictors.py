"""Counts of predicted and true activations on held-out contexts, by patterns learnt from the other contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.results import CollectedLayer
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe.results import Importance, importance_file
from atlas_builder.describe.token_graphs import UnitGraphs, graphs_file, read_graphs
from atlas_builder.describe.token_scores import (
    COUNTS,
    UNTRIED,
    LookUp,
    Patterns,
    TextOrder,
    count_predictions,
    firing_threshold,
    is_held_out,
)

NEEDED = 0.75
"""Importance above which a token belongs to a pattern."""


class LayerPredictors:
    """The token look-up and the context patterns of a layer's units, and how they do on held-out text.

    Both are learnt from the examples above zero that are not held out; patterns from those whose token importance
    was measured before.
    """

    def __init__(self, layer: CollectedLayer, folder: Path, read: Contexts, device: str) -> None:
        self._layer, self._folder = layer, folder
        self._look_up, self._patterns = _learnt(layer.reopened(), folder, read)  # else all layers' examples stay
        self._graphs = _graphs(folder, layer)
        self._threshold = torch.from_numpy(firing_threshold(layer.moments.maximum)).to(device)
        self._counts = np.zeros(layer.units, COUNTS)

    def count(self, text: TextOrder, activations: Tensor) -> None:
        """Add the counts on contexts, given the layer's activations on them: (contexts, context, units).

        These are compared where they are; only the places where a unit fires come to the processor.
        """
        fires = activations.float() >= self._threshold
        if text.counted is not None:
            fires &= torch.from_numpy(text.counted[:, :, None]).to(fires.device)
        where = fires.flatten().nonzero()[:, 0].cpu().numpy()
        place, unit = np.divmod(where, len(self._counts))
        count_predictions(self._counts, self._look_up, self._patterns, text, place, unit, self._graphs)

    def write(self) -> None:
        """Write the `COUNTS` of every unit."""
        if not importance_file(self._folder, self._layer.layer).exists():
            # Nobody asked for it: no examples of a layer is a fact.
            self._counts["context_predicted"] = UNTRIED
        if self._graphs is None:
            self._counts["graph_predicted"] = UNTRIED
        np.save(self._folder / f"L{self._layer.layer}.prediction.npy", self._counts)


def _graphs(folder: Path, layer: CollectedLayer) -> UnitGraphs | None:
    """The graphs of a layer's units for positive activations; None where they were not asked for."""
    saved = read_graphs(graphs_file(folder, layer.layer))
    return None if saved is None else UnitGraphs.of(saved.of_sign(1))


def _learnt(layer: CollectedLayer, folder: Path, read: Contexts) -> tuple[LookUp, Patterns]:
    """Token look-up and context patterns of a layer's units, from examples above zero that are not held out."""
    examples = layer.examples
    unit, context = np.asarray(examples["unit"]), np.asarray(examples["context"])
    learnt = np.flatnonzero((examples["sign"] > 0) & ~is_held_out(context))
    tokens = np.asarray(read.tokens)
    keys = read.starts[context] + examples["position"]
    look_up = LookUp.of(unit[learnt], tokens[keys[learnt]])
    explained, importance = Importance(importance_file(folder, layer.layer)).all
    known = np.isin(explained, learnt)
    contextual = (
        (int(unit[place]), int(tokens[keys[place]]), _needed(tokens, int(keys[place]), values))
        for place, values in zip(explained[known].tolist(), importance[known], strict=True)
    )
    return look_up, Patterns.of(contextual)


def _needed(tokens: NDArray[np.int32], key: int, importance: NDArray[np.float32]) -> tuple[tuple[int, int], ...]:
    """The tokens that the activation needs: how far before the key token each stands, and which it is."""
    before = np.flatnonzero(np.nan_to_num(importance[:-1], nan=0.0) > NEEDED)
    return tuple(
        (int(len(importance) - 1 - place), int(tokens[key - (len(importance) - 1 - place)])) for place in before
    )

"""Token graphs of a layer's behaviours, from examples that are pruned and augmented (Neuron to Graph).

Of each example whose token importance was measured and that is not held out:

1. Pruning: the shortest text up to its key token at whose end the unit's activation is at least half of the example's.
2. Its key token and tokens of importance above 0.75 in that text are nodes; others, between them, are wildcards.
3. Augmentation: each node's token gives way to those nearest to it in the model's input embeddings, one at a time;
   a substitute is kept where the unit still fires: at half of its extreme, or of the example where that does not.

Foote et al. 2023 (arXiv 2304.12918, 2305.19911) have a masked language model propose substitutes, measure the
importance of tokens again in each new text, and take more examples. Here no second model is needed, and the runs are
bounded: of an example at most its window of prunings, and `SUBSTITUTES` for each of `AUGMENTED` tokens, all of them
shorter texts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.describe.prompts import CutTexts, Prompts
from atlas_builder.describe.results import Importance, importance_file
from atlas_builder.describe.run import behaviour_of_examples
from atlas_builder.describe.token_graphs import (
    BehaviourGraph,
    SavedGraphs,
    TokenBranch,
    graph_of,
    graphs_file,
    write_graphs,
)
from atlas_builder.describe.token_predictors import NEEDED
from atlas_builder.describe.token_scores import FIRES, is_held_out
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.progress import Progress
from atlas_builder.units.base import Units

SUBSTITUTES = 4
"""Substitutes that are tried for a token."""
AUGMENTED = 4
"""Most tokens of an example that are substituted: its key token, and the most important ones."""
_TOKENS_AT_ONCE = 256  # whose nearest ones are looked for together
_EXAMPLES_AT_ONCE = 8192  # whose texts are in memory together
_EXAMPLES = np.dtype(
    [
        ("layer", "<i4"), ("unit", "<i4"), ("behaviour", "<i4"), ("context", "<i4"), ("position", "<i4"),
        ("value", "<f8"), ("extreme", "<f8"),
    ]
)  # fmt: skip


def measure_graphs(
    loaded: LanguageModel,
    units: Units,
    collected: Collected,
    clustered: Path,
    folder: Path,
    device: str,
    progress: Progress,
) -> None:
    """Write the graphs of every layer's behaviours, for the examples that have token importance in `folder`."""
    found = [_measured(layer, Clustered(layer.layer, clustered), folder) for layer in collected.layers]
    clusters = {layer.layer: Clustered(layer.layer, clustered).behaviours for layer in collected.layers}
    examples = np.concatenate([np.zeros(0, _EXAMPLES), *(some for some, _ in found)])
    importance = np.concatenate([rows for _, rows in found])
    prompts = Prompts(units, collected.contexts, device, loaded.is_causal)
    branches = _in_parts(prompts, examples, importance, NearestTokens(loaded), progress)
    for layer in collected.layers:
        here = np.flatnonzero(examples["layer"] == layer.layer)
        graphs = _of_layer(examples[here], [branches[place] for place in here.tolist()], clusters[layer.layer])
        write_graphs(graphs_file(folder, layer.layer), graphs)


def _of_layer(examples: np.ndarray, branches: list[TokenBranch], behaviours: np.ndarray) -> SavedGraphs:
    """The graphs of a layer's behaviours, from its examples and the branch of each."""
    members: list[list[TokenBranch]] = [[] for _ in range(len(behaviours))]
    others: dict[tuple[int, int], list[TokenBranch]] = {}
    for example, branch in zip(examples[["behaviour", "unit", "value"]].tolist(), branches, strict=True):
        behaviour, unit, value = example
        if behaviour >= 0:
            members[behaviour].append(branch)
        else:
            others.setdefault((unit, 1 if value > 0 else -1), []).append(branch)
    return SavedGraphs(
        [
            BehaviourGraph(unit, sign, graph_of(own))
            for (unit, sign), own in zip(behaviours[["unit", "sign"]].tolist(), members, strict=True)
        ],
        [BehaviourGraph(unit, sign, graph_of(own)) for (unit, sign), own in sorted(others.items())],
    )


def _measured(layer: CollectedLayer, clustered: Clustered, folder: Path) -> tuple[np.ndarray, NDArray[np.float32]]:
    """The examples of a layer that graphs are made of, and the importance of their tokens: (examples, tokens)."""
    places, importance = Importance(importance_file(folder, layer.layer)).all
    stored = layer.reopened().examples
    learnt = ~is_held_out(np.asarray(stored["context"][places])) & (np.asarray(stored["value"][places]) != 0)
    places, importance = places[learnt], importance[learnt]
    examples = np.zeros(len(places), _EXAMPLES)
    for name in ("unit", "context", "position", "value"):
        examples[name] = stored[name][places]
    examples["layer"] = layer.layer
    examples["behaviour"] = behaviour_of_examples(clustered, layer.starts)[places]
    moments = layer.moments
    extremes = np.where(examples["value"] > 0, moments.maximum[examples["unit"]], moments.minimum[examples["unit"]])
    examples["extreme"] = extremes
    return examples, importance


def _in_parts(
    prompts: Prompts,
    examples: np.ndarray,
    importance: NDArray[np.float32],
    nearest: NearestTokens,
    progress: Progress,
) -> list[TokenBranch]:
    """The branch of each example, those at one place of the text in one part, since their texts are often the same."""
    order = np.lexsort((examples["position"], examples["context"]))
    branches: list[TokenBranch] = []
    with progress.task("graphs", total=len(examples), unit="examples") as advance:
        for first in range(0, len(order), _EXAMPLES_AT_ONCE):
            part = order[first : first + _EXAMPLES_AT_ONCE]
            branches += branches_of(prompts, examples[part], importance[part], nearest)
            advance(len(part))
    return [branches[place] for place in np.argsort(order).tolist()]


def branches_of(
    prompts: Prompts, examples: np.ndarray, importance: NDArray[np.float32], nearest: NearestTokens
) -> list[TokenBranch]:
    """The branch of each example, pruned and augmented.

    `examples` have `layer`, `unit`, `context`, `position`, their activation `value` and the unit's `extreme`;
    `importance` is that of their tokens up to the key token, NaN before a context: (examples, tokens).
    """
    kept = _pruned(prompts, examples, importance.shape[1])
    texts = prompts.texts(examples["context"], examples["position"], kept)
    needed = _needed(importance, kept)
    substitutes = _substitutes(prompts, examples, texts, needed, importance, nearest)
    shares = examples["value"] / examples["extreme"]
    branches = []
    for tokens, end, backs, found, share in zip(
        texts.tokens.tolist(), texts.ends.tolist(), needed, substitutes, shares.tolist(), strict=True
    ):
        nodes: list[tuple[int, ...]] = [()] * (max(backs) + 1)
        for back in backs:
            nodes[back] = (tokens[end - back], *found.get(back, ()))
        branches.append(TokenBranch(tuple(nodes), share))
    return branches


def _pruned(prompts: Prompts, examples: np.ndarray, window: int) -> NDArray[np.int64]:
    """How many tokens of each example, up to its key token, are kept: the fewest that keep half of its activation.

    Where none of its window's do, all of its window are kept.
    """
    most = np.minimum(window, examples["position"].astype(np.int64) + 1)
    kept = most.copy()
    left = np.arange(len(examples))
    for length in range(1, window):
        left = left[most[left] > length]
        if not len(left):
            break
        some = examples[left]
        values = prompts.activations(
            prompts.texts(some["context"], some["position"], length), some["layer"], some["unit"]
        )
        done = values / some["value"] >= FIRES
        kept[left[done]] = length
        left = left[~done]
    return kept


def _needed(importance: NDArray[np.float32], kept: NDArray[np.int64]) -> list[list[int]]:
    """How far before its key token each token stands that a pruned example needs; 0 for the key token, first."""
    back = np.arange(importance.shape[1])[::-1]
    needs = (importance > NEEDED) & (back < kept[:, None])  # NaN is no importance
    needs[:, -1] = True
    return [np.flatnonzero(row).tolist() for row in needs[:, ::-1]]


def _substitutes(
    prompts: Prompts,
    examples: np.ndarray,
    texts: CutTexts,
    needed: list[list[int]],
    importance: NDArray[np.float32],
    nearest: NearestTokens,
) -> list[dict[int, list[int]]]:
    """Of each example, by distance before its key token, the substitutes with which its unit still fires."""
    tried = [_augmented(backs, row) for backs, row in zip(needed, importance, strict=True)]
    which = np.repeat(np.arange(len(examples)), [len(backs) for backs in tried])
    back = np.array([back for backs in tried for back in backs], np.int64)
    place = texts.ends[which] - back
    distinct, of_own = np.unique(texts.tokens[which, place], return_inverse=True)
    offered = nearest.of(distinct)[of_own]  # (tried, substitutes)
    each = np.repeat(which, offered.shape[1])
    changed = texts.repeated(each)
    changed.tokens[np.arange(len(each)), np.repeat(place, offered.shape[1])] = offered.ravel()
    values = prompts.activations(changed, examples["layer"][each], examples["unit"][each])
    own, extreme = examples["value"][each], examples["extreme"][each]
    least = np.where(own / extreme >= FIRES, extreme, own)  # where the example fires, so does what is put into it
    fires = (values / least >= FIRES).reshape(offered.shape)
    found: list[dict[int, list[int]]] = [{} for _ in range(len(examples))]
    for row, distance, tokens, fired in zip(which.tolist(), back.tolist(), offered, fires, strict=True):
        found[row][distance] = tokens[fired].tolist()
    return found


def _augmented(needed: list[int], importance: NDArray[np.float32]) -> list[int]:
    """Those of the needed tokens that are substituted: the key token and the most important others."""
    others = sorted(needed[1:], key=lambda back: (-float(importance[len(importance) - 1 - back]), back))
    return [0, *others[: AUGMENTED - 1]]


class NearestTokens:
    """The tokens nearest to others by cosine, in a model's input embeddings; special tokens are near to none."""

    def __init__(self, loaded: LanguageModel) -> None:
        self._unit = functional.normalize(loaded.input_embeddings(), dim=1)
        self._barred = torch.tensor(
            sorted(token for token in loaded.tokenizer.all_special_ids if token < len(self._unit)), dtype=torch.int64
        )

    def of(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each of some tokens its `SUBSTITUTES`, the nearest first: (tokens, substitutes)."""
        most = max(0, min(SUBSTITUTES, len(self._unit) - len(self._barred) - 1))
        found = np.zeros((len(tokens), most), np.int64)
        for first in range(0, len(tokens), _TOKENS_AT_ONCE):
            some = torch.from_numpy(tokens[first : first + _TOKENS_AT_ONCE])
            near = self._unit[some] @ self._unit.T
            near[:, self._barred] = -torch.inf
            near[torch.arange(len(some)), some] = -torch.inf
            found[first : first + _TOKENS_AT_ONCE] = near.topk(most, dim=1).indices.numpy()
        return found

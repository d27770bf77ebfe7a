"""The slow, obvious way: a model run context by context, everything kept, loops throughout.

Nothing here uses the package under test; it reads the model with transformers alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import regex
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D


@dataclass
class Reading:
    """What one layer did on one context, the beginning-of-sequence token left out."""

    document: int
    offset: int
    tokens: list[int]
    inputs: np.ndarray  # (tokens, width)
    activations: np.ndarray  # (tokens, units)


class Names(NamedTuple):
    """Where a family of models keeps what is read."""

    blocks: str
    reads: tuple[str, ...]  # of a block's `mlp`, the gate first
    write: str
    norm: str  # the final one


_GATED = Names("model.layers", ("gate_proj", "up_proj"), "down_proj", "model.norm")
_NAMES = {
    "gpt2": Names("transformer.h", ("c_fc",), "c_proj", "transformer.ln_f"),
    "gpt_neox": Names("gpt_neox.layers", ("dense_h_to_4h",), "dense_4h_to_h", "gpt_neox.final_layer_norm"),
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"], _GATED),
}


class SlowModel:
    """A model in the Hugging Face layout, read through plain PyTorch hooks."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.family = self.model.config.model_type
        names = _NAMES[self.family]
        self.mlps = [block.mlp for block in self.model.get_submodule(names.blocks)]
        self.reads = [[mlp.get_submodule(name) for name in names.reads] for mlp in self.mlps]
        self.outs = [mlp.get_submodule(names.write) for mlp in self.mlps]
        self.norm = self.model.get_submodule(names.norm)

    def read_weights(self, layer: int) -> list[np.ndarray]:
        """The read weights of a layer's units: (units, width) each."""
        return [_matrix(part).T for part in self.reads[layer]]

    def write_weights(self, layer: int) -> np.ndarray:
        """(units, d_model)."""
        return _matrix(self.outs[layer])

    def logits(self, direction: np.ndarray) -> np.ndarray:
        """What a direction of the residual stream adds to the logits, the final norm's division left out."""
        gain = self.norm.weight.detach().numpy().astype(np.float64)
        if self.family.startswith("gemma"):
            gain = 1 + gain
        if isinstance(self.norm, torch.nn.LayerNorm):
            direction = direction - direction.mean()
        unembedding = _matrix(self.model.get_output_embeddings()).astype(np.float64)
        logits: np.ndarray = (gain * direction) @ unembedding
        return logits

    def _encode(self, text: str) -> tuple[list[int], list[bool]]:
        """Token ids, and for each, and for the end, whether a character begins there; an ASCII one always does."""
        found = self.tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
        starts = {match.start() for match in regex.finditer(r"\X", text)}
        begins, behind = [], 0
        for start, end in found["offset_mapping"]:
            begins.append(start >= behind and (start in starts or text[start : start + 1].isascii()))
            behind = end
        return found["input_ids"], [*begins, True]

    def read(self, texts: list[str], context: int, layer: int, max_tokens: int | None = None) -> list[Reading]:
        """Every context of every text, one forward pass each."""
        seen: dict[str, torch.Tensor] = {}
        handles = [
            self.mlps[layer].register_forward_pre_hook(lambda _, given: seen.__setitem__("in", given[0])),
            self.outs[layer].register_forward_pre_hook(lambda _, given: seen.__setitem__("act", given[0])),
        ]
        bos = self.tokenizer.bos_token_id
        head = 0 if bos is None else 1
        readings = []
        left = math.inf if max_tokens is None else max_tokens
        encoded = (self._encode(text) for text in texts)
        for document, (ids, begins) in enumerate(pair for pair in encoded if pair[0]):  # an empty text is no document
            cut = len(ids) > left
            ids = ids[: _end(begins, 0, int(min(left, len(ids))))]
            left = 0 if cut else left - len(ids)
            offset = 0
            while offset < len(ids):
                part = ids[offset : _end(begins, offset, min(offset + context - head, len(ids)))]
                with torch.no_grad():
                    self.model(torch.tensor([([bos] if head else []) + part]))
                readings.append(
                    Reading(document, offset, part, seen["in"][0, head:].numpy(), seen["act"][0, head:].numpy())
                )
                offset += len(part)
            if left <= 0:
                break
        for handle in handles:
            handle.remove()
        return readings


def _end(begins: list[bool], first: int, end: int) -> int:
    """Where a context ends that begins at `first`: where a character does, unless it is a part of one."""
    return next((place for place in range(end, first, -1) if begins[place]), end)


def _matrix(module: torch.nn.Module) -> np.ndarray:
    """The weight of a linear map: (in, out)."""
    weight: np.ndarray = module.get_parameter("weight").detach().numpy()
    return weight if isinstance(module, Conv1D) else weight.T


@functools.cache  # every unit asks for the same tokens' numbers
def mix(x: int) -> int:
    """SplitMix64 (Steele et al. 2014)."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def priority(seed: int, layer: int, unit: int, context: int, sign: int = 1) -> int:
    """The documented random number of a context among those of a unit's side."""
    side = 0 if sign > 0 else 1 << 31
    return mix(mix(((unit | side) << 32) | context) ^ stream(seed, layer))


def stream(seed: int, layer: int) -> int:
    return mix((mix(seed) + layer) & (2**64 - 1))


def token_priority(seed: int, layer: int, unit: int, context: int, position: int) -> int:
    """The documented random number of a token for a unit."""
    return mix(mix((context << 32) | position) ^ stream(seed, layer)) ^ mix(mix(stream(seed, layer)) ^ (unit // 16))


def background_priority(seed: int, layer: int, context: int, position: int) -> int:
    """The documented random number of a token for a layer's background."""
    return mix(mix((context << 32) | position) ^ mix(stream(seed, layer) ^ (2**64 - 1)))


def background(lengths: list[int], size: int, seed: int, layer: int) -> list[tuple[int, int]]:
    """Context and position of the tokens of a layer's background, in contexts of these lengths."""
    tokens = [(context, position) for context, length in enumerate(lengths) for position in range(length)]
    return sorted(tokens, key=lambda token: background_priority(seed, layer, *token))[:size]


@dataclass
class Rule:
    """How examples are chosen: the settings of `examples`, as documented."""

    policy: str
    per_unit: int
    threshold: float = 0.75
    share: float = 0.5
    least: int = 100
    weakest: float = 0.2
    seed: int = 0


def robust_maximum(keys: list[float]) -> float:
    """The mean of the ten highest of the positive `keys`, of zeros where there are fewer."""
    total = 0.0
    for key in sorted(keys, reverse=True)[:10]:
        total += max(key, 0)
    return total / 10


def borders(keys: list[float], rule: Rule) -> tuple[float, float]:
    """The activations from which a context qualifies, and from which it can be an example at all."""
    if rule.policy == "robust":
        return rule.share * robust_maximum(keys), rule.weakest * robust_maximum(keys)
    return (rule.threshold * max(keys) if rule.policy == "threshold" else 0.0), 0.0


def select(keys: list[float], rule: Rule, layer: int, unit: int, sign: int = 1) -> list[int]:
    """Numbers of the contexts that stand for a unit's side, most active first; `keys` count above zero."""
    border, lowest = borders(keys, rule)
    contexts = [context for context, key in enumerate(keys) if key > 0]
    contexts.sort(key=lambda context: (-keys[context], context))
    near = [context for context in contexts if keys[context] >= border]
    if rule.policy == "top":
        return contexts[: rule.per_unit]
    if rule.policy == "robust" and len(near) < rule.least:
        return [context for context in contexts if keys[context] >= lowest][: rule.least]
    drawn = sorted(near, key=lambda context: priority(rule.seed, layer, unit, context, sign))[: rule.per_unit]
    return [context for context in near if context in drawn]


def lower_edge(value: float) -> float:
    """The lower edge of the bin of a positive value: 16 bins to each power of two."""
    exponent = min(math.floor(math.log2(value)), 15)
    return 2.0**exponent * (1 + min(15, math.floor((value / 2.0**exponent - 1) * 16)) / 16)


def band_edges(activations: list[float], quantiles: list[float]) -> list[float] | None:
    """The activations between which bands lie; None where there are none."""
    positive = sorted(value for value in activations if value >= 2.0**-16)
    if not positive:
        return None
    edges = []
    for quantile in quantiles:
        if quantile <= 0:
            edges.append(0.0)
        elif quantile >= 1:
            edges.append(max(activations))
        else:  # the least value with at least this share of all at or below its bin
            reached = 0
            for edge, same in itertools.groupby(positive, lower_edge):
                reached += len(list(same))
                if reached >= quantile * len(positive):
                    edges.append(edge)
                    break
    return edges


def draw_bands(
    tokens: list[tuple[float, int, int]], edges: list[float], drawn: int, seed: int, layer: int, unit: int
) -> list[list[tuple[int, int]]]:
    """Context and position of the tokens of each band; `tokens` are (activation, context, position)."""
    order = sorted(
        (token for token in tokens if token[0] >= 2.0**-16),
        key=lambda token: token_priority(seed, layer, unit, token[1], token[2]),
    )
    bands = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        first = [token for token in order if token[0] >= low][:drawn]
        last = number == len(edges) - 2
        bands.append([token[1:] for token in first if token[0] < high or (last and token[0] == high)])
    return bands


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 − cos."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norm = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return 1 - float(a @ b) / norm if norm else 1.0


def _mean(found: list[float]) -> float:
    return sum(found) / len(found) if found else math.nan


def measures(embeddings: list[np.ndarray], labels: list[int]) -> dict[str, float]:
    """The polysemanticity measures, pair by pair."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    distances = {pair: distance(embeddings[pair[0]], embeddings[pair[1]]) for pair in pairs}
    inner = [d for (i, j), d in distances.items() if labels[i] == labels[j] >= 0]
    outer = [d for (i, j), d in distances.items() if labels[i] >= 0 and labels[j] >= 0 and labels[i] != labels[j]]
    clusters = sorted({label for label in labels if label >= 0})
    sizes = [labels.count(cluster) for cluster in clusters]
    total = sum(sizes)
    return {
        "behaviours": len(clusters),
        "main_behaviours": sum(20 * size >= len(labels) for size in sizes),
        "effective_behaviours": math.exp(-sum(s / total * math.log(s / total) for s in sizes)) if sizes else 0.0,
        "noise_fraction": 1 - total / len(labels) if labels else 0.0,
        "mean_distance": _mean(list(distances.values())),
        "max_distance": max(distances.values(), default=math.nan),
        "intra_distance": _mean(inner),
        "inter_distance": _mean(outer),
        "examples": len(labels),
    }

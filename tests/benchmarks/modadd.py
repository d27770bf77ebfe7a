"""Edges that modular addition needs, by principal components and by the local interaction basis, beside published ones.

`python -m tests.benchmarks.modadd FOLDER [SEED …]` reads `seed0.safetensors` to `seed2.safetensors`: transformers of
one layer that add modulo 113, by the authors of arXiv 2405.10928 (ApolloResearch/rib), whose result files give the
numbers it compares with. Basis and edges are those of the training set, accuracy is that on the test set.

It then divides the directions into modules and counts in how many a direction has its module's frequency.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from atlas_builder.interaction import Basis, basis, edges, edges_needed, modules, principal, pull

TRAINED_ON = 3830
PLACES = ("ln1 → ln2", "ln2 → unembed", "unembed → logits")
PUBLISHED = {
    0: ((167, 114, 682), (133, 82, 633)),
    1: ((76, 53, 734), (80, 75, 699)),
    2: ((99, 71, 598), (71, 71, 610)),
}
"""By seed: edges needed by principal components and by the local basis, in the order of `PLACES`."""
LOST = 0.001
"""Accuracy that may be lost."""
_AT_ONCE = 256


class Addition:
    """A transformer of one layer that adds two numbers modulo n, on all n² pairs of them.

    The stream before attention is a number's or that of "=": `table` (2n + 1, d) holds the numbers as the first of a
    pair, the numbers as the second, and "=". From the MLP on only the last position counts.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        attention = "blocks.0.attn."
        self.query, self.key, value = (weights[f"{attention}W_{name}"] for name in "QKV")  # (heads, d, head)
        self.query_bias, self.key_bias, value_bias = (weights[f"{attention}b_{name}"] for name in "QKV")  # (heads, head)
        out = weights[f"{attention}W_O"]  # (heads, head, d)
        self.value, self.value_bias = value @ out, (value_bias[:, None] @ out)[:, 0]  # (heads, d, d), (heads, d)
        self.out_bias = weights[f"{attention}b_O"]
        self.read, self.read_bias = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]
        self.write, self.write_bias = weights["blocks.0.mlp.W_out"], weights["blocks.0.mlp.b_out"]
        self.unembed, self.unembed_bias = weights["unembed.W_U"], weights["unembed.b_U"]
        embedding, positions = weights["embed.W_E"], weights["pos_embed.W_pos"]
        self.modulus = len(embedding) - 1
        self.table = torch.cat([embedding[:-1] + positions[0], embedding[:-1] + positions[1], embedding[-1:] + positions[2]])
        first, second = torch.cartesian_prod(*[torch.arange(self.modulus)] * 2).T
        self.tokens = torch.stack([first, self.modulus + second, torch.full_like(first, 2 * self.modulus)], dim=1)
        """Of each pair: its rows in the table, (n², 3)."""
        self.sums = (first + second) % self.modulus

    def attend(self, table: Tensor) -> Tensor:
        """(2n + 1, d) to (n², d): the stream of all pairs after attention; scores and values are computed once a row."""
        query = torch.einsum("d,hde->he", table[-1], self.query) + self.query_bias
        key = torch.einsum("nd,hde->nhe", table, self.key) + self.key_bias
        scores = torch.einsum("he,nhe->nh", query, key) / math.sqrt(query.shape[-1])
        attention = scores[self.tokens].softmax(dim=1)  # (n², 3, heads)
        value = torch.einsum("nd,hdo->nho", table, self.value) + self.value_bias
        mixed = torch.einsum("rph,rpho->ro", attention, value[self.tokens])
        return mixed + table[-1] + self.out_bias

    def compute(self, stream: Tensor) -> Tensor:
        """(rows, d) to (rows, d): the stream after the MLP."""
        return stream + torch.relu(stream @ self.read + self.read_bias) @ self.write + self.write_bias

    def logits(self, stream: Tensor) -> Tensor:
        """(rows, d) to (rows, outputs)."""
        return stream @ self.unembed + self.unembed_bias

    def attention_derivative(self, stream: Tensor) -> Tensor:
        """(rows, 3, d) to (rows, out, 3, d): how the stream after attention changes with that before."""
        query = torch.einsum("rd,hde->rhe", stream[:, -1], self.query) + self.query_bias
        key = torch.einsum("rpd,hde->rhpe", stream, self.key) + self.key_bias[:, None]
        value = torch.einsum("rpd,hdo->rhpo", stream, self.value) + self.value_bias[:, None]
        scale = math.sqrt(query.shape[-1])
        attention = (torch.einsum("rhe,rhpe->rhp", query, key) / scale).softmax(dim=-1)
        mixed = torch.einsum("rhp,rhpo->rho", attention, value)
        by_score = attention[..., None] * (value - mixed[:, :, None])  # (rows, heads, 3, out)
        derivative = torch.einsum("rhp,hdo->ropd", attention, self.value)
        derivative += torch.einsum("rhpo,rhd->ropd", by_score, torch.einsum("rhe,hde->rhd", query, self.key) / scale)
        by_query = torch.einsum("rhpe,hde->rhpd", key, self.query) / scale
        derivative[:, :, -1] += torch.einsum("rhpo,rhpd->rod", by_score, by_query)
        derivative[:, :, -1] += torch.eye(stream.shape[-1], dtype=stream.dtype)
        return derivative

    def compute_derivative(self, stream: Tensor) -> Tensor:
        """(rows, d) to (rows, out, d): how the stream after the MLP changes with that before."""
        fires = (stream @ self.read + self.read_bias > 0).to(stream)
        return torch.eye(stream.shape[-1], dtype=stream.dtype) + (self.write.T * fires[:, None]) @ self.read.T


class Found(NamedTuple):
    bases: list[Basis]
    strengths: list[Tensor]
    needed: list[int]


class Trained(NamedTuple):
    """Of the rows that bases and edges are made from, by place: activations and derivatives of those at the next."""

    inputs: list[Tensor]
    """(rows, 3, d), (rows, d), (rows, d)."""
    jacobians: list[Tensor]
    """(rows, out, 3, d), (rows, out, d), (rows, out, d)."""


def derive(model: Addition, rows: Tensor) -> Trained:
    """What bases and edges are made from, on some pairs."""
    stream = model.table[model.tokens[rows]]
    attended = model.attend(model.table)[rows]
    computed = model.compute(attended)
    attention = [model.attention_derivative(part) for part in stream.split(_AT_ONCE)]
    mlp = [model.compute_derivative(part) for part in attended.split(_AT_ONCE)]
    linear = model.unembed.T.expand(len(rows), -1, -1)
    return Trained([stream, attended, computed], [torch.cat(attention), torch.cat(mlp), linear])


def measure(model: Addition, trained: Trained, local: bool) -> tuple[list[Basis], list[Tensor]]:
    """Bases of all places, and the edges to those of the next, the last to the logits."""
    bases: list[Basis] = []
    strengths: list[Tensor] = []
    after: Basis | None = None
    for rows, derivatives in reversed(list(zip(trained.inputs, trained.jacobians, strict=True))):
        mean, covariance = _moments(rows.flatten(0, -2))
        before = (
            basis(mean, covariance, _mean_of_parts(pull, derivatives, after)) if local else principal(mean, covariance)
        )
        strengths.insert(0, _mean_of_parts(edges, rows, derivatives, before, after))
        bases.insert(0, before)
        after = before
    return bases, strengths


def _mean_of_parts(of: Callable[..., Tensor], *given: Any) -> Tensor:
    """The mean over rows of what `of` says of them, in parts; what has no rows is given whole."""
    rows = [part for part in given if isinstance(part, Tensor)]
    rest = given[len(rows) :]
    parts = zip(*(torch.split(array, _AT_ONCE) for array in rows), strict=True)
    return sum((of(*part, *rest) * len(part[0]) for part in parts), torch.zeros(())) / len(rows[0])


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.mean(dim=0)
    return mean, (rows - mean).T @ (rows - mean) / len(rows)


class Ablation:
    """Accuracy on some pairs when only some edges from a place to the next are kept, computed in float32.

    Each direction after is computed from those before that it has an edge from, all others at their mean; the
    rest of the network follows as it is. Directions with the same edges are computed at once.
    """

    def __init__(self, model: Addition, bases: list[Basis], place: int, rows: Tensor) -> None:
        sections = [lambda table: model.attend(table)[rows], model.compute, model.logits]
        self.section, self.rest = sections[place], sections[place + 1 :]
        self.before = bases[place]
        outputs = model.unembed.shape[1]
        one = torch.eye(outputs).to(model.table)
        logits = Basis(one[0] * 0, one, one, one[0])
        self.after = [*bases, logits][place + 1]
        activations = model.table
        for earlier in sections[:place]:
            activations = earlier(activations)
        self.coordinates = self.before.coordinates(activations)
        self.sums = model.sums[rows]

    def score(self, kept: Tensor) -> float:
        """Of edges kept, bool (k after, k before): the accuracy."""
        sets, which = kept.unique(dim=0, return_inverse=True)
        reached = self.coordinates.new_empty(len(self.sums), len(kept))
        for number, used in enumerate(sets):
            group = which == number
            partial = self.before.mean + self.coordinates[:, used] @ self.before.decode[used]
            reached[:, group] = (self.section(partial) - self.after.mean) @ self.after.encode[:, group]
        activations = self.after.mean + reached @ self.after.decode
        for later in self.rest:
            activations = later(activations)
        return accuracy(activations, self.sums)


def accuracy(logits: Tensor, sums: Tensor) -> float:
    return float((logits.argmax(dim=-1) == sums).double().mean())

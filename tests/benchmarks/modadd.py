"""Edges that modular addition needs, by principal components and by the local interaction basis, beside published ones.

`python -m tests.benchmarks.modadd FOLDER [SEED …]` reads `seed0.safetensors` to `seed2.safetensors`: transformers of
one layer that add modulo 113, by the authors of arXiv 2405.10928 (ApolloResearch/rib), whose result files give the
numbers it compares with. Basis and edges are those of the training set, accuracy is that on the test set.

It then divides directions into modules by the edges needed, and counts those whose main Fourier frequency is that of
their module.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from atlas_builder.interaction import Basis, basis, edges, edges_needed, modules, principal, pull

MODULUS, TRAINED_ON = 113, 3830
PLACES = ("ln1 → ln2", "ln2 → unembed", "unembed → logits")
PUBLISHED = {
    0: ((167, 114, 682), (133, 82, 633)),
    1: ((76, 53, 734), (80, 75, 699)),
    2: ((99, 71, 598), (71, 71, 610)),
}
"""By seed: edges needed by principal components and by the local basis, in the order of `PLACES`."""
LOST = 0.001
"""Accuracy that may be lost."""
TOLERANCE = 1e-14
"""Eigenvalues below this share of the largest count as zero: little above rounding, as the authors keep all over 1e-15.
At a larger share, directions that hardly vary are left at their mean, which hides what an ablation does to them."""
SHUFFLES = 200
_AT_ONCE = 256


class Addition:
    """A transformer of one layer that adds two numbers modulo n, on all n² pairs of them.

    The stream before attention is a number's or that of "=": `table` (2n + 1, d) holds the numbers as the first of a
    pair, the numbers as the second, and "=". From the MLP on only the last position counts.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        attention = "blocks.0.attn."
        self.query, self.key, value = (weights[f"{attention}W_{name}"] for name in "QKV")  # (heads, d, head)
        self.query_bias, self.key_bias, value_bias = (
            weights[f"{attention}b_{name}"] for name in "QKV"
        )  # (heads, head)
        out = weights[f"{attention}W_O"]  # (heads, head, d)
        self.value, self.value_bias = value @ out, (value_bias[:, None] @ out)[:, 0]  # (heads, d, d), (heads, d)
        self.out_bias = weights[f"{attention}b_O"]
        self.read, self.read_bias = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]
        self.write, self.write_bias = weights["blocks.0.mlp.W_out"], weights["blocks.0.mlp.b_out"]
        self.unembed, self.unembed_bias = weights["unembed.W_U"], weights["unembed.b_U"]
        embedding, positions = weights["embed.W_E"], weights["pos_embed.W_pos"]
        self.modulus = len(embedding) - 1
        self.table = torch.cat(
            [embedding[:-1] + positions[0], embedding[:-1] + positions[1], embedding[-1:] + positions[2]]
        )
        first, second = torch.cartesian_prod(*[torch.arange(self.modulus)] * 2).T
        self.tokens = torch.stack([first, self.modulus + second, torch.full_like(first, 2 * self.modulus)], dim=1)
        """Of each pair: its rows in the table, (n², 3)."""
        self.sums = (first + second) % self.modulus

    def attend(self, table: Tensor, onto: Tensor | None = None) -> Tensor:
        """(2n + 1, d) to (n², d): the stream after attention of all pairs; keys and values are those of single numbers.

        With `onto`, (d, k), only the products with its columns, (n², k).
        """
        query = torch.einsum("d,hde->he", table[-1], self.query) + self.query_bias
        key = torch.einsum("nd,hde->nhe", table, self.key) + self.key_bias
        scores = torch.einsum("he,nhe->nh", query, key) / math.sqrt(query.shape[-1])
        attention = scores[self.tokens].softmax(dim=1)  # (n², 3, heads)
        value = torch.einsum("nd,hdo->nho", table, _along(self.value, onto)) + _along(self.value_bias, onto)
        mixed = torch.einsum("rph,rpho->ro", attention, value[self.tokens])
        return mixed + _along(table[-1] + self.out_bias, onto)

    def compute(self, stream: Tensor, onto: Tensor | None = None) -> Tensor:
        """(rows, d) to (rows, d), or with `onto` (rows, k): the stream after the MLP."""
        fired = torch.relu(stream @ self.read + self.read_bias)
        return _along(stream + self.write_bias, onto) + fired @ _along(self.write, onto)

    def logits(self, stream: Tensor, onto: Tensor | None = None) -> Tensor:
        """(rows, d) to (rows, outputs), or with `onto` (rows, k)."""
        return stream @ _along(self.unembed, onto) + _along(self.unembed_bias, onto)

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


def _along(rows: Tensor, onto: Tensor | None) -> Tensor:
    return rows if onto is None else rows @ onto


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
    attention = [model.attention_derivative(part) for part in torch.split(stream, _AT_ONCE)]
    mlp = [model.compute_derivative(part) for part in torch.split(attended, _AT_ONCE)]
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
            basis(mean, covariance, _mean_of_parts(pull, derivatives, after), TOLERANCE)
            if local
            else principal(mean, covariance, TOLERANCE)
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
    """Accuracy on some pairs when only some edges from a place to the next are kept.

    Each direction after is computed from those before that it has an edge from, all others at their mean; the
    rest of the network follows as it is. Directions with the same edges are computed at once.
    """

    def __init__(self, model: Addition, bases: list[Basis], place: int, rows: Tensor) -> None:
        def attend(table: Tensor, onto: Tensor | None = None) -> Tensor:
            return model.attend(table, onto)[rows]

        sections = [attend, model.compute, model.logits]
        self.section, self.rest = sections[place], sections[place + 1 :]
        one = torch.eye(model.unembed.shape[1], dtype=model.unembed.dtype)
        logits = Basis(torch.zeros_like(one[0]), one, one, torch.ones_like(one[0]))
        self.before, self.after = [*bases, logits][place : place + 2]
        activations = model.table
        for earlier in sections[:place]:
            activations = earlier(activations)
        self.coordinates = self.before.coordinates(activations)
        self.sums = model.sums[rows]

    def logits(self, kept: Tensor) -> Tensor:
        """Of edges kept, bool (k after, k before): (rows, outputs)."""
        sets, which = torch.unique(kept, dim=0, return_inverse=True)
        reached = self.coordinates.new_empty(len(self.sums), len(kept))
        for number, used in enumerate(sets):
            encode = self.after.encode[:, which == number]
            partial = self.before.mean + self.coordinates[:, used] @ self.before.decode[used]
            reached[:, which == number] = self.section(partial, encode) - self.after.mean @ encode
        activations = self.after.mean + reached @ self.after.decode
        for later in self.rest:
            activations = later(activations)
        return activations

    def score(self, kept: Tensor) -> float:
        return accuracy(self.logits(kept), self.sums)


def count_edges(model: Addition, bases: list[Basis], strengths: list[Tensor], rows: Tensor) -> list[int]:
    """Edges needed between all places."""
    least = accuracy(model.logits(model.compute(model.attend(model.table)[rows])), model.sums[rows]) - LOST
    ablations = [Ablation(model, bases, place, rows) for place in range(len(bases))]
    return [edges_needed(one, ablation.score, least) for one, ablation in zip(strengths, ablations, strict=True)]


def accuracy(logits: Tensor, sums: Tensor) -> float:
    return float((logits.argmax(dim=-1) == sums).double().mean())


def frequencies(coordinates: Tensor, modulus: int) -> Tensor:
    """Of functions of a pair (n², k): the share of the variance that is of each frequency 1 … n // 2, (n // 2, k).

    A function of numbers a and b is a sum of waves cos(2π (ua + vb) / n + φ). Of frequency f are those of a alone, of b
    alone, of a + b and of a - b: u and v are ± f or 0. Other waves are of no frequency.
    """
    waves: Tensor = torch.fft.fft2(coordinates.T.reshape(-1, modulus, modulus)).abs().square()  # (k, n, n)
    waves[:, 0, 0] = 0
    once = torch.arange(1, modulus // 2 + 1)
    signs = [pair for pair in itertools.product((-1, 0, 1), repeat=2) if any(pair)]
    own: Tensor = torch.stack([waves[:, u * once, v * once] for u, v in signs]).sum(dim=0)  # (k, n // 2)
    return own.T / waves.sum(dim=(1, 2))


def alike(main: list[list[int]]) -> int:
    """Of main frequencies of directions by module: how many are those that most directions of their module have."""
    return sum(max(own.count(one) for one in own) for own in main if own)


def alike_by_chance(main: list[list[int]]) -> float:
    """The same when directions are dealt to modules of the same sizes at random, on average."""
    drawn = torch.Generator().manual_seed(0)
    pooled = torch.tensor([one for own in main for one in own])
    sizes = [len(own) for own in main]
    dealt = (torch.split(pooled[torch.randperm(len(pooled), generator=drawn)], sizes) for _ in range(SHUFFLES))
    return sum(alike([part.tolist() for part in parts]) for parts in dealt) / SHUFFLES


def divide(model: Addition, bases: list[Basis], strengths: list[Tensor], needed: list[int]) -> tuple[int, str]:
    """How many modules the edges needed make, and how many directions have the main frequency of their module.

    A direction's main frequency is the one that has most of its variance over all pairs; a module's is the commonest
    of its directions. Counted are directions of the MLP's input and output that have an edge; beside it, what dealing
    them to modules of the same sizes at random gives.
    """
    floors = [
        float(one.flatten().sort(descending=True).values[max(count, 1) - 1])
        for one, count in zip(strengths, needed, strict=True)
    ]
    attended = model.attend(model.table)
    places = {1: attended, 2: model.compute(attended)}
    main = {
        place: frequencies(bases[place].coordinates(rows), model.modulus).argmax(dim=0) + 1
        for place, rows in places.items()
    }
    division = modules(strengths, floors)
    own = [[int(main[place][one]) for place, one in group if place in main] for group in division.members]
    counted = sum(len(group) for group in own)
    return len(division.members), f"{alike(own)} of {counted} ({alike_by_chance(own):.1f} by chance)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seeds", type=int, nargs="*", default=sorted(PUBLISHED))
    arguments = parser.parse_args()
    print("| seed | basis | directions | " + " | ".join(f"{place}, published" for place in PLACES) + " | s |")
    print("| --- | --- | --- |" + " --- |" * (len(PLACES) + 1), flush=True)
    order = torch.randperm(MODULUS**2, generator=torch.Generator().manual_seed(0))
    trained_on, tested = order[:TRAINED_ON], order[TRAINED_ON:]
    modular = []
    for seed in arguments.seeds:
        weights = load_file(arguments.folder / f"seed{seed}.safetensors")
        weights = {name: array for name, array in weights.items() if array.is_floating_point()}
        model, single = Addition({name: array.double() for name, array in weights.items()}), Addition(weights)
        trained = derive(model, trained_on)
        for kind, local in (("principal components", False), ("interaction basis (local)", True)):
            begun = time.process_time()
            bases, strengths = measure(model, trained, local)
            rounded = [Basis(*(array.float() for array in one)) for one in bases]
            needed = count_edges(single, rounded, strengths, tested)
            sizes = " ".join(str(len(one.importance)) for one in bases)
            cells = " | ".join(f"{ours}, {theirs}" for ours, theirs in zip(needed, PUBLISHED[seed][local], strict=True))
            print(f"| {seed} | {kind} | {sizes} | {cells} | {time.process_time() - begun:.0f} |", flush=True)
            count, before_logits = divide(model, bases, strengths[:-1], needed[:-1])
            _, with_logits = divide(model, bases, strengths, needed)
            modular.append(f"| {seed} | {kind} | {count} | {before_logits} | {with_logits} |")
    print("\n| seed | basis | modules | with their module's frequency | the logits as nodes too |")
    print("| --- | --- | --- | --- | --- |", *modular, sep="\n")


if __name__ == "__main__":
    main()

"""Edges that modular addition needs, by principal components and by the local interaction basis, beside published ones.

`python -m tests.benchmarks.modadd FOLDER [SEED …]` reads `seed0.safetensors` to `seed2.safetensors`: transformers of
one layer that add modulo 113, by the authors of arXiv 2405.10928 (ApolloResearch/rib), whose result files give the
numbers it compares with. Basis and edges are those of the training set, accuracy is that on the test set.
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
_AT_ONCE = 256


class Addition:
    """The transformer, from the stream before attention on, at the last position from the MLP on."""

    def __init__(self, file: Path) -> None:
        weights = {name: array.double() for name, array in load_file(file).items()}
        attention = "blocks.0.attn."
        self.query, self.key, self.value = (weights[f"{attention}W_{name}"] for name in "QKV")  # (heads, d, head)
        self.biases = [weights[f"{attention}b_{name}"][:, None] for name in "QKV"]  # (heads, 1, head)
        self.out, self.out_bias = weights[f"{attention}W_O"], weights[f"{attention}b_O"]
        self.read, self.read_bias = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]
        self.write, self.write_bias = weights["blocks.0.mlp.W_out"], weights["blocks.0.mlp.b_out"]
        self.unembed, self.unembed_bias = weights["unembed.W_U"], weights["unembed.b_U"]
        tokens = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
        tokens = torch.cat([tokens, torch.full((len(tokens), 1), MODULUS)], dim=1)
        self.stream = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"]  # (rows, 3, d)
        self.sums = tokens[:, :2].sum(dim=1) % MODULUS

    def attend(self, stream: Tensor) -> Tensor:
        """(..., 3, d) to (..., d): the stream after attention, at the last position."""
        query, key, value = (
            stream[..., None, :, :] @ weight + bias
            for weight, bias in zip((self.query, self.key, self.value), self.biases, strict=True)
        )  # (..., heads, 3, head)
        scores = query[..., -1:, :] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = torch.softmax(scores, dim=-1) @ value @ self.out  # (..., heads, 1, d)
        return stream[..., -1, :] + mixed[..., 0, :].sum(dim=-2) + self.out_bias

    def compute(self, stream: Tensor) -> Tensor:
        """(..., d) to (..., d): the stream after the MLP."""
        return stream + torch.relu(stream @ self.read + self.read_bias) @ self.write + self.write_bias

    def logits(self, stream: Tensor) -> Tensor:
        return stream @ self.unembed + self.unembed_bias

    def sections(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.attend, self.compute, self.logits]


class Found(NamedTuple):
    bases: list[Basis]
    strengths: list[Tensor]
    needed: list[int]


def measure(model: Addition, inputs: list[Tensor], jacobians: list[Tensor], tested: Tensor, local: bool) -> Found:
    """Bases, edges and how many of these are needed, between all places."""
    bases: list[Basis] = []
    strengths: list[Tensor] = []
    after: Basis | None = None
    for rows, derivatives in reversed(list(zip(inputs, jacobians, strict=True))):
        mean, covariance = _moments(rows.flatten(0, -2))
        before = (
            basis(mean, covariance, _mean_of_parts(pull, derivatives, after)) if local else principal(mean, covariance)
        )
        strengths.insert(0, _mean_of_parts(edges, rows, derivatives, before, after))
        bases.insert(0, before)
        after = before
    target, activations = model.sums[tested], [model.stream[tested]]
    for section in model.sections():
        activations.append(section(activations[-1]))
    accuracy = _accuracy(activations[-1], target)

    def needed(place: int) -> int:
        def score(kept: Tensor) -> float:
            return _score(model, place, bases, kept, activations[place], target)

        return edges_needed(strengths[place], score, accuracy - LOST)

    return Found(bases, strengths, [needed(place) for place in range(len(bases))])


def derive(model: Addition, rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Activations at each place and the derivatives of those at the next, (rows, out[, 3], d)."""
    inputs, jacobians = [rows], []
    for section in model.sections():
        derivative = torch.func.vmap(torch.func.jacrev(section))
        jacobians.append(torch.cat([derivative(part) for part in torch.split(inputs[-1], _AT_ONCE)]))
        inputs.append(section(inputs[-1]))
    return inputs[:-1], jacobians


def _mean_of_parts(of: Callable[..., Tensor], *given: Any) -> Tensor:
    """The mean over rows of what `of` says of them, in parts; what has no rows is given whole."""
    rows = [part for part in given if isinstance(part, Tensor)]
    rest = given[len(rows) :]
    parts = zip(*(torch.split(array, _AT_ONCE) for array in rows), strict=True)
    return sum((of(*part, *rest) * len(part[0]) for part in parts), torch.zeros(())) / len(rows[0])


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.mean(dim=0)
    return mean, (rows - mean).T @ (rows - mean) / len(rows)


def _accuracy(logits: Tensor, target: Tensor) -> float:
    return float((logits.argmax(dim=-1) == target).double().mean())


def _score(model: Addition, place: int, bases: list[Basis], kept: Tensor, rows: Tensor, target: Tensor) -> float:
    """Accuracy when each direction after a place is computed from those before that are kept, others at their mean."""
    before, section = bases[place], model.sections()[place]
    after = bases[place + 1] if place + 1 < len(bases) else None
    coordinates = before.coordinates(rows)
    if after is None:  # linear
        base = section(before.mean)
        return _accuracy(base + coordinates @ ((before.decode @ model.unembed) * kept.T), target)
    reached = torch.empty(len(rows), len(kept), dtype=rows.dtype)
    silent = after.coordinates(section(before.mean.expand(rows.shape[1:])))  # of an output without edges
    for direction, used in enumerate(kept):
        if used.any():
            partial = before.mean + coordinates[..., used] @ before.decode[used]
            reached[:, direction] = (section(partial) - after.mean) @ after.encode[:, direction]
        else:
            reached[:, direction] = silent[direction]
    rows = after.mean + reached @ after.decode
    for later in model.sections()[place + 1 :]:
        rows = later(rows)
    return _accuracy(rows, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seeds", type=int, nargs="*", default=sorted(PUBLISHED))
    arguments = parser.parse_args()
    print("| seed | directions | how many | " + " | ".join(f"{place}, published" for place in PLACES) + " | s |")
    print("| --- | --- | --- |" + " --- |" * 4)
    order = torch.randperm(MODULUS**2, generator=torch.Generator().manual_seed(0))
    for seed in arguments.seeds:
        model = Addition(arguments.folder / f"seed{seed}.safetensors")
        inputs, jacobians = derive(model, model.stream[order[:TRAINED_ON]])
        for kind, local in (("principal components", False), ("local interaction basis", True)):
            begun = time.perf_counter()
            found = measure(model, inputs, jacobians, order[TRAINED_ON:], local)
            sizes = " ".join(str(len(one.importance)) for one in found.bases)
            cells = " | ".join(
                f"{ours}, {theirs}" for ours, theirs in zip(found.needed, PUBLISHED[seed][local], strict=True)
            )
            print(f"| {seed} | {kind} | {sizes} | {cells} | {time.perf_counter() - begun:.0f} |", flush=True)
            floors = [
                float(strengths.flatten().sort(descending=True).values[needed - 1])
                for strengths, needed in zip(found.strengths, found.needed, strict=True)
            ]
            division = modules(found.strengths, floors)
            print(f"  {len(division.members)} modules, modularity {division.quality:.2f}", flush=True)


if __name__ == "__main__":
    main()

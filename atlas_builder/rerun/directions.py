"""The directions that an atlas publishes, and what they were made from, read from the model again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from atlas_builder.errors import SiteError
from atlas_builder.records.kinds import DIRECTIONS_FILE

Array = NDArray[np.float64]


class PublishedDirections:
    """The arrays of `directions.safetensors` of a site; raises `SiteError` where it cannot be read."""

    def __init__(self, site: Path) -> None:
        self._file = site / DIRECTIONS_FILE

    @cached_property
    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        try:
            arrays: dict[str, NDArray[np.float32]] = load_file(self._file)
        except (OSError, SafetensorError) as error:
            said = str(error).splitlines()[0]
            raise SiteError(f"{self._file} cannot be read ({said}): build the atlas again.") from error
        return arrays

    @property
    def layers(self) -> list[int]:
        """The layers that have directions."""
        return sorted(int(name[1:].partition(".")[0]) for name in self._arrays if name.endswith(".mean"))

    def of(self, layer: int, name: str) -> Array:
        """`mean` (d,), `encode` (d, k), `decode` (k, d) or `effect` (k, d_model) of a layer."""
        return self._arrays[f"L{layer}.{name}"].astype(np.float64)


class InputMoments(NamedTuple):
    """Of what enters an MLP, over the tokens that directions were found on, or over half of them."""

    tokens: int
    mean: Array
    covariance: Array
    pulled: Array
    """The mean product of the gradient of φ · z with itself."""


class DirectionTokens(NamedTuple):
    """The contexts that directions were found on, and the half of the text that each is of, 0 or 1."""

    contexts: list[int]
    half: list[int]


def direction_tokens(lengths: Sequence[int], documents: Sequence[int], most: int | None) -> DirectionTokens:
    """Contexts spread evenly, of about `most` tokens in all, and halves of whole documents, filled in turn."""
    every, total = len(lengths), sum(lengths)
    count = every if most is None else min(every, max(1, most * every // max(1, total)))
    contexts = [place * every // count for place in range(count)]
    sizes: dict[int, int] = {}
    for context in contexts:
        sizes[documents[context]] = sizes.get(documents[context], 0) + lengths[context]
    filled, side = [0, 0], {}
    for document in sorted(sizes):
        side[document] = 1 if filled[1] < filled[0] else 0
        filled[side[document]] += sizes[document]
    if 3 * min(filled) < sum(filled):
        return DirectionTokens(contexts, [place % 2 for place in range(count)])
    return DirectionTokens(contexts, [side[documents[context]] for context in contexts])


class GradientReader:
    """Reads what enters MLPs, and gradients by it, through hooks on the modules of transformers' own model."""

    def __init__(self, plain: Any, modules: dict[int, str], head: Sequence[int]) -> None:
        self._plain, self._modules, self._head = plain, modules, list(head)
        plain.requires_grad_(False)

    def read(
        self, context: int, tokens: Sequence[int], layers: Sequence[int], target: tuple[int, Array] | None = None
    ) -> dict[int, tuple[Array, Array]]:
        """Inputs and gradients of φ · z at the tokens of one context, by layer: (tokens, d) each.

        z are the centred logits or, with `target`, the coordinates of what enters a later layer's MLP.
        """
        seen: dict[int, Tensor] = {}
        wanted = [*layers, *([target[0]] if target else [])]

        def before(layer: int) -> Any:
            def hook(module: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> Any:
                x = given[0] if given else next(iter(named.values()))
                seen[layer] = x.detach().requires_grad_() if layer == min(wanted) else x
                if given:
                    return (seen[layer], *given[1:]), named
                return given, {**named, next(iter(named)): seen[layer]}

            return hook

        handles = [
            self._plain.get_submodule(self._modules[layer]).register_forward_pre_hook(before(layer), with_kwargs=True)
            for layer in wanted
        ]
        row = torch.tensor([self._head + list(tokens)], device=self._plain.device)
        try:
            with torch.enable_grad():
                logits = self._plain(input_ids=row, use_cache=False).logits
                z = (
                    logits
                    if target is None
                    else seen[target[0]].reshape(1, row.shape[1], -1) @ _like(target[1], logits)
                )
                found = torch.autograd.grad(
                    (z * self._signs(context, z, centred=target is None)).sum(), [seen[n] for n in layers]
                )
        finally:
            for handle in handles:
                handle.remove()
        rows = (len(self._head) + len(tokens), -1)
        return {
            layer: (
                _array(seen[layer].reshape(rows)[len(self._head) :]),
                _array(gradient.reshape(rows)[len(self._head) :]),
            )
            for layer, gradient in zip(layers, found, strict=True)
        }

    def _signs(self, context: int, z: Tensor, *, centred: bool) -> Tensor:
        """The signs φ of a context; Methods says how they are drawn."""
        _, length, width = z.shape
        raw = np.random.Generator(np.random.Philox(key=[0, context])).bytes((length * width + 7) // 8)
        flat = np.unpackbits(np.frombuffer(raw, np.uint8))[: length * width]
        signs = torch.from_numpy(flat.astype(np.float32) * 2 - 1).reshape(1, length, width).to(z.device)
        signs[:, : len(self._head)] = 0
        return (signs - signs.mean(-1, keepdim=True) if centred else signs).to(z.dtype)

    def mean_change(self, layer: int, inputs: Array, step: Array) -> Array | None:
        """The mean change of what an MLP makes of inputs (rows, d) after a small step, per step: (d_model,).

        None where the MLP is not a module by itself.
        """
        module = self._plain.get_submodule(self._modules[layer])
        if not any(True for _ in module.children()):
            return None
        exact = copy.deepcopy(module).cpu().double()
        size = 1e-5 * float(np.abs(inputs).mean()) / max(1e-30, float(np.abs(step).max()))
        with torch.no_grad():
            x, move = torch.from_numpy(inputs)[None], torch.from_numpy(step * size)
            ends = [exact(x + way * move) for way in (1, -1)]
            ends = [end[0] if isinstance(end, tuple) else end for end in ends]
        change: Array = ((ends[0] - ends[1]).reshape(len(inputs), -1).mean(0) / (2 * size)).numpy()
        return change


def moments_of(rows: Array, gradients: Array) -> InputMoments:
    """Moments of inputs and gradients at tokens, (tokens, d) each."""
    mean = rows.mean(0)
    centred = rows - mean
    return InputMoments(len(rows), mean, centred.T @ centred / len(rows), gradients.T @ gradients / len(rows))


def _like(array: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.device, torch.float32).to(tensor.dtype)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().double().numpy()
    return array

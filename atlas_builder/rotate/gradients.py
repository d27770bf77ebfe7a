"""A forward and a backward run: what enters and leaves each MLP, and how what comes after depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.errors import ActivationError, ModelError
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import is_out_of_memory
from atlas_builder.models.wording import reason
from atlas_builder.units.base import StopForwardPass
from atlas_builder.units.mlp import MLPUnits


class MLPPass(NamedTuple):
    """An MLP on some tokens of text, in float64; gradients are those of φ · z, see `GradientRun`."""

    inputs: Tensor
    """(rows, d_model)"""
    input_gradients: Tensor
    """(rows, d_model)"""
    parts: Tensor
    """What the activation function is given, the linear part of gated neurons last: (parts, rows, units)."""
    part_gradients: Tensor
    """(parts, rows, units)"""
    slopes: Tensor
    """Derivatives of the activations by the parts: (parts, rows, units)."""
    activations: Tensor
    """(rows, units)"""
    output_gradients: Tensor
    """By what the MLP adds to the stream: (rows, d_model)."""


class Target(NamedTuple):
    """Directions of what enters a layer's MLP."""

    layer: int
    encode: Tensor
    """(d_model, k)"""


class GradientRun:
    """Runs the model on contexts and back.

    z are the logits at all tokens of text, less their mean over the vocabulary, and φ are random
    signs: since E φφᵀ = 1, the mean of gradient times its transpose is that of JᵀJ, J the derivative of z.
    φ is drawn from a context's number alone, by numpy's Philox of key (0, number). Raises
    `ModelError` for a model that cannot be differentiated, or whose activation function is not known.
    """

    def __init__(self, model: LanguageModel, units: MLPUnits, head: int) -> None:
        from transformers.activations import ACT2FN

        self._bridge, self._units, self._head = model.bridge, units, head
        if units.activation is None:
            raise ModelError(
                "the activation function of this model's MLPs is not known, which directions require: set "
                "interaction.report to false, and units.kind to mlp."
            )
        self._function = ACT2FN[units.activation]
        self._bridge.original_model.requires_grad_(False)

    def run(self, tokens: Tensor, contexts: Sequence[int]) -> dict[int, MLPPass]:
        """All layers on (contexts, context) tokens, the first `head` of each context left out."""
        kept = self._run(tokens, contexts, self._units.layers, None)
        return {layer: self._of_layer(layer, *kept[layer]) for layer in self._units.layers}

    def input_gradients(self, tokens: Tensor, contexts: Sequence[int], layer: int, after: Target) -> Tensor:
        """Gradients by what enters a layer's MLP, of the coordinates that the later layer's has in place of z.

        (rows, d_model).
        """
        kept = self._run(tokens, contexts, [layer], after)
        return self._rows(kept[layer][1])

    def _run(
        self, tokens: Tensor, contexts: Sequence[int], layers: Sequence[int], after: Target | None
    ) -> dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Inputs, their gradients, activations, their gradients, and gradients of outputs, by layer."""
        seen: dict[str, Tensor] = {}
        places = {layer: self._units.places(layer) for layer in layers}
        first = places[layers[0]][0]

        def keep(tensor: Tensor, hook: Any) -> Tensor | None:
            # Nothing before the first place depends on what is asked for.
            seen[hook.name] = tensor.detach().requires_grad_() if hook.name == first else tensor
            return seen[hook.name] if hook.name == first else None

        def stop(tensor: Tensor, hook: Any) -> None:
            seen["target"] = tensor
            raise StopForwardPass

        hooks = [(name, keep) for names in places.values() for name in names]
        wanted = [name for names in places.values() for name in names]
        if after is not None:
            hooks.append((self._units.places(after.layer)[0], stop))
        try:
            with torch.enable_grad():
                try:
                    z = self._bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
                except StopForwardPass:
                    assert after is not None
                    z = seen["target"] @ after.encode.to(seen["target"])
                found = torch.autograd.grad(z, [seen[name] for name in wanted], self._signs(z, contexts, after is None))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"what enters the MLPs of this model cannot be differentiated ({reason(error)}), which directions "
                "require: load it in float32 without quantisation."
            ) from error
        gradients = dict(zip(wanted, found, strict=True))
        return {
            layer: (seen[x].detach(), gradients[x], seen[a].detach(), gradients[a], gradients[y])
            for layer, (x, a, y) in places.items()
        }

    def _signs(self, z: Tensor, contexts: Sequence[int], centred: bool) -> Tensor:
        """φ, without its mean where that of z is taken out; 0 where there is no text."""
        signs = torch.stack([torch.from_numpy(random_signs(number, z.shape[1], z.shape[2])) for number in contexts])
        signs[:, : self._head] = 0
        phi = signs.to(z.device, torch.float32)
        return (phi - phi.mean(dim=-1, keepdim=True) if centred else phi).to(z.dtype)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor[:, self._head :].flatten(0, 1).cpu().double()

    def _of_layer(
        self, layer: int, inputs: Tensor, by_inputs: Tensor, acts: Tensor, by_acts: Tensor, by_out: Tensor
    ) -> MLPPass:
        x, by_x, a, by_a, by_y = (self._rows(one) for one in (inputs, by_inputs, acts, by_acts, by_out))
        with torch.enable_grad():
            parts = self._units.pre_activations(layer, x).requires_grad_()
            value = self._function(parts[0])
            value = value * parts[1] if len(parts) == 2 else value
            [slopes] = torch.autograd.grad(value.sum(), parts)
        for one in (x, by_x, a, by_a, by_y):
            if not torch.isfinite(one).all():
                raise ActivationError(
                    f"layer {layer}: activations or gradients are NaN or infinite: set model.dtype to float32."
                )
        return MLPPass(x, by_x, parts.detach(), slopes * by_a, slopes, a, by_y)


def random_signs(number: int, length: int, width: int) -> NDArray[np.int8]:
    """1 and -1 at random for a context: (length, width), int8."""
    source = np.random.Generator(np.random.Philox(key=[0, number]))
    bits = np.unpackbits(np.frombuffer(source.bytes(-(-length * width // 8)), np.uint8), count=length * width)
    return (2 * bits.astype(np.int8) - 1).reshape(length, width)

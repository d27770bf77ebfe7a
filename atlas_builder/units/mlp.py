"""MLP neurons of any model that TransformerLens bridges, plain or gated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from atlas_builder.errors import ModelError
from atlas_builder.models.memory import as_float32
from atlas_builder.models.packing import PLAIN, Rows, at_places
from atlas_builder.units.activation import measured_activation
from atlas_builder.units.base import (
    ActivationHook,
    StopForwardPass,
    chosen_layers,
    clamped,
    logits_with_hooks,
    run_with_hooks,
)

_TOKENS, _STRIDE = 8, 7919  # a prime, so that the tokens are of the whole vocabulary


class MLPUnits:
    """The neurons of a `TransformerBridge`'s MLPs.

    The input weights of a plain neuron are a column of `W_in`; those of a gated one
    are two, of `W_gate` and of `W_in`, and its embedding concatenates both parts
    (this project's extension; the paper has plain neurons only). The activation is
    what the neuron passes to `W_out`.

    Raises `ConfigurationError` for a layer that does not exist and `ModelError`
    where a layer has no readable MLP.
    """

    kind = "mlp"

    def __init__(self, bridge: Any, layers: Literal["all"] | Sequence[int] = "all") -> None:
        self._bridge = bridge
        self.layers = chosen_layers(layers, int(bridge.cfg.n_layers))
        self._mlps = {layer: self._mlp(layer) for layer in self.layers}

    @cached_property
    def activation(self) -> str | None:
        """Name of the activation function, as in the model's configuration if it is that; None if it is unknown."""
        layer = self.layers[0]
        weight = next(iter(self._bridge.original_model.parameters()))
        seen: list[Tensor] = []
        tokens = torch.arange(1, _TOKENS + 1, device=weight.device) * _STRIDE % int(self._bridge.cfg.d_vocab)
        self.run(tokens[None], lambda _, *tensors: seen.extend(map(as_float32, tensors)), last=layer)
        inputs, activations = seen
        parts = list(self.pre_activations(layer, inputs))
        stated = getattr(self._bridge.cfg, "act_fn", None)
        return measured_activation(parts, activations, stated, weight.dtype)

    def count(self, layer: int) -> int:
        """Number of neurons of the layer."""
        return int(self._weight(layer, "W_in").shape[1])

    def has_negative(self, layer: int) -> bool:
        """Whether the neurons are gated: gate times linear part has either sign."""
        return self._is_gated(layer)

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on (batch, context) tokens up to the last layer of the units, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]
        run_with_hooks(self._bridge, tokens, self._hooks(visit, layers, rows.at), rows, layers[-1])

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on (batch, context) tokens, visiting each layer: (batch, context, vocabulary)."""
        return logits_with_hooks(self._bridge, tokens, self._hooks(visit, self.layers))

    def _hooks(self, visit: ActivationHook, layers: Sequence[int], at: Tensor | None = None) -> list[tuple[str, Any]]:
        """By places of the model what keeps inputs and visits the layers; after the last, it stops the run."""
        inputs: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> Tensor | None:
                inputs[layer] = at_places(tensor, at)
                return inputs[layer] if layer == layers[-1] and at is not None else None

            return hook

        def show(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                visit(layer, inputs.pop(layer), tensor if layer == layers[-1] else at_places(tensor, at))
                if layer == layers[-1]:
                    raise StopForwardPass

            return hook

        hooks = [(self.places(layer)[0], keep(layer)) for layer in layers]
        # The input of the output matrix is the activation, gate and all, in every architecture.
        hooks += [(self._out(layer), show(layer)) for layer in layers]
        return hooks

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens, (rows, vocabulary), neurons (rows,) clamped to values (rows,)."""

        def clamp(activations: Tensor, hook: Any) -> Tensor:
            return clamped(activations, unit, value)

        hooks = [] if unit is None else [(self._out(layer), clamp)]
        with torch.inference_mode():
            logits: Tensor = self._bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
        return logits[:, -1]

    def read_weights(self, layer: int) -> Tensor:
        """`W_in`, after `W_gate` where there is one: (parts, units, d_model)."""
        parts = [self._weight(layer, "W_gate")] if self._is_gated(layer) else []
        parts.append(self._weight(layer, "W_in"))
        return as_float32(torch.stack([part.T for part in parts]))  # (parts, units, d_model)

    def read_biases(self, layer: int) -> Tensor | None:
        """What is added to what `read_weights` read: (parts, units); None without biases."""
        names = ("b_gate", "b_in") if self._is_gated(layer) else ("b_in",)
        biases = [getattr(self._mlps[layer], name, None) for name in names]
        if all(bias is None for bias in biases):
            return None
        units = self.count(layer)
        return torch.stack([torch.zeros(units) if bias is None else as_float32(bias) for bias in biases])

    def pre_activations(self, layer: int, inputs: Tensor) -> Tensor:
        """What the activation function is given, the linear part of gated neurons last: (parts, …, units).

        `inputs` are (…, d_model), in whose precision it is computed.
        """
        biases = self.read_biases(layer)
        parts = [inputs @ weights.T for weights in self.read_weights(layer).to(inputs)]
        if biases is not None:
            parts = [part + bias for part, bias in zip(parts, biases.to(inputs), strict=True)]
        return torch.stack(parts)

    def places(self, layer: int) -> tuple[str, str, str]:
        """The hooks of an MLP's inputs, of its activations and of what it adds to the stream."""
        return f"blocks.{layer}.mlp.hook_in", self._out(layer), f"blocks.{layer}.mlp.hook_out"

    def write_weights(self, layer: int) -> Tensor:
        """`W_out`: (units, d_model)."""
        return as_float32(self._weight(layer, "W_out"))  # (units, d_model)

    def _weight(self, layer: int, name: str) -> Tensor:
        weight: Tensor = getattr(self._mlps[layer], name)
        return weight

    def _is_gated(self, layer: int) -> bool:
        return getattr(self._mlps[layer], "W_gate", None) is not None

    def _out(self, layer: int) -> str:
        """The hook at which the activations pass: a dense layer among mixtures of experts has its own."""
        names = [f"blocks.{layer}.mlp.{name}.hook_in" for name in ("out", "dense_out")]
        return next((name for name in names if name in self._bridge.hook_dict), names[0])

    def _mlp(self, layer: int) -> Any:
        if absent := self._absent(layer):
            readable = [other for other in range(int(self._bridge.cfg.n_layers)) if not self._absent(other)]
            mlp = getattr(self._bridge.blocks[layer], "mlp", None)
            why = (
                "is a mixture of experts, whose neurons are of one expert and run on its tokens alone"
                if getattr(mlp, "experts", None) is not None
                else f"has no readable MLP ({', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing)"
            )
            instead = f"set units.layers to some of {readable}" if readable else "choose another model"
            raise ModelError(f"layer {layer} of this architecture ({self._bridge.cfg.architecture}) {why}: {instead}.")
        return self._bridge.blocks[layer].mlp

    def _absent(self, layer: int) -> list[str]:
        """What a layer lacks that is needed to read its neurons."""
        hooks = [f"blocks.{layer}.mlp.hook_in", self._out(layer)]
        absent = [name for name in hooks if name not in self._bridge.hook_dict]
        mlp = getattr(self._bridge.blocks[layer], "mlp", None)
        return absent + [f"blocks.{layer}.mlp.{name}" for name in ("W_in", "W_out") if getattr(mlp, name, None) is None]

"""MLP neurons of any model that TransformerLens bridges, plain or gated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from atlas_builder.errors import ModelError
from atlas_builder.models.memory import as_float32
from atlas_builder.units.base import ActivationHook, StopForwardPass, chosen_layers, clamped, run_with_hooks


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

    @property
    def activation(self) -> str:
        """Name of the activation function, as in the model's configuration."""
        return str(self._bridge.cfg.act_fn)

    def count(self, layer: int) -> int:
        """Number of neurons of the layer."""
        return int(self._weight(layer, "W_in").shape[1])

    def has_negative(self, layer: int) -> bool:
        """Whether the neurons are gated: gate times linear part has either sign."""
        return self._is_gated(layer)

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, cache: Any = None) -> None:
        """Run the model on (batch, context) tokens up to the last layer of the units, visiting each."""
        layers = [layer for layer in self.layers if last is None or layer <= last]
        inputs: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                inputs[layer] = tensor

            return hook

        def show(layer: int) -> Any:
            def hook(tensor: Tensor, hook: Any) -> None:
                visit(layer, inputs.pop(layer), tensor)
                if layer == layers[-1]:
                    raise StopForwardPass

            return hook

        hooks = [(f"blocks.{layer}.mlp.hook_in", keep(layer)) for layer in layers]
        # The input of the output matrix is the activation, gate and all, in every architecture.
        hooks += [(f"blocks.{layer}.mlp.out.hook_in", show(layer)) for layer in layers]
        run_with_hooks(self._bridge, tokens, hooks, cache)

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens, (rows, vocabulary), neurons (rows,) clamped to values (rows,)."""

        def clamp(activations: Tensor, hook: Any) -> Tensor:
            return clamped(activations, unit, value)

        hooks = [] if unit is None else [(f"blocks.{layer}.mlp.out.hook_in", clamp)]
        with torch.inference_mode():
            logits: Tensor = self._bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
        return logits[:, -1]

    def read_weights(self, layer: int) -> Tensor:
        """`W_in`, after `W_gate` where there is one: (parts, units, d_model)."""
        parts = [self._weight(layer, "W_gate")] if self._is_gated(layer) else []
        parts.append(self._weight(layer, "W_in"))
        return as_float32(torch.stack([part.T for part in parts]))  # (parts, units, d_model)

    def write_weights(self, layer: int) -> Tensor:
        """`W_out`: (units, d_model)."""
        return as_float32(self._weight(layer, "W_out"))  # (units, d_model)

    def _weight(self, layer: int, name: str) -> Tensor:
        weight: Tensor = getattr(self._mlps[layer], name)
        return weight

    def _is_gated(self, layer: int) -> bool:
        return getattr(self._mlps[layer], "W_gate", None) is not None

    def _mlp(self, layer: int) -> Any:
        hooks = [f"blocks.{layer}.mlp.{name}" for name in ("hook_in", "out.hook_in")]
        absent = [name for name in hooks if name not in self._bridge.hook_dict]
        mlp = getattr(self._bridge.blocks[layer], "mlp", None)
        absent += [f"blocks.{layer}.mlp.{name}" for name in ("W_in", "W_out") if getattr(mlp, name, None) is None]
        if absent:
            raise ModelError(
                f"layer {layer} of this architecture ({self._bridge.cfg.architecture}) has no readable MLP: "
                f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing; choose other "
                "units.layers or another model."
            )
        return mlp

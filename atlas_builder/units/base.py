"""The interface of units: all that the rest of the builder knows about them.

Anything that maps a vector to a number can be a unit: implement `Units` and every stage
works on it. Shapes are written `(units, d_model)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from atlas_builder.errors import ConfigurationError
from atlas_builder.models.packing import PLAIN, Packing, Rows
from atlas_builder.models.wanted_places import RowCache, at_wanted_places, fused_activations

ActivationHook = Callable[[int, Tensor, Tensor], None]
"""Called as `visit(layer, inputs, activations)` with shapes `(batch, context, width)`
and `(batch, context, units)`. The tensors are only valid during the call."""


class Units(Protocol):
    """The units of some layers of a model, one kind of them."""

    @property
    def kind(self) -> str:
        """Short name of the kind, as in records: `mlp`."""

    @property
    def layers(self) -> Sequence[int]:
        """The layers of the units, in ascending order."""

    def count(self, layer: int) -> int:
        """Number of units of the layer."""

    def has_negative(self, layer: int) -> bool:
        """Whether the layer's units have negative activations, whose examples are then collected too."""

    @property
    def activation(self) -> str | None:
        """Name of the activation function; None if it is not known."""

    def run(self, tokens: Tensor, visit: ActivationHook, last: int | None = None, rows: Rows = PLAIN) -> None:
        """Run the model on `(batch, context)` tokens and visit each layer once, in order.

        Nothing after the last layer of the units is computed, nor after the layer `last` where
        that comes first. `rows` says what the tokens see and which are wanted, where that is
        not all; of wanted places (batch, k), `visit` is shown these alone, (batch, k, …), and the
        last layer's units are computed only there.
        """

    def run_to_logits(self, tokens: Tensor, visit: ActivationHook) -> Tensor:
        """Run the whole model on `(batch, context)` tokens, visit each layer as `run` does, and return the logits.

        `(batch, context, vocabulary)`, as the model gives them, scales and caps included.
        """

    def read_weights(self, layer: int) -> Tensor:
        """The input weights of the units: (parts, units, width).

        A neuron embedding concatenates `input ⊙ part` over the parts.
        """

    def write_weights(self, layer: int) -> Tensor | None:
        """The output weights of the units, added to the residual stream when active: (units, d_model).

        None for units that write nothing.
        """


@runtime_checkable
class Steerable(Protocol):
    """Units that can be clamped to a value."""

    def logits_with_clamp(
        self, tokens: Tensor, layer: int, unit: Tensor | None = None, value: Tensor | None = None
    ) -> Tensor:
        """Logits after (rows, context) tokens: (rows, vocabulary).

        Where given, `unit` of the layer, (rows,), is clamped to `value`, (rows,), at every position.
        """


@runtime_checkable
class OutputUnits(Protocol):
    """Units that are tokens of the vocabulary, and whose examples may be where their token comes next or not."""

    @property
    def tokens(self) -> Sequence[int]:
        """The token of each unit."""


@runtime_checkable
class TrainedUnits(Protocol):
    """Units that were trained on a model, and say on which contexts."""

    @property
    def prepends_bos(self) -> bool:
        """Whether contexts begin with the tokenizer's token for that, where it has one."""

    @property
    def notes(self) -> Sequence[str]:
        """What a builder should know of their files, a sentence each."""


class StopForwardPass(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward run whose remaining layers are not needed."""


def run_with_hooks(
    bridge: Any, tokens: Tensor, hooks: Sequence[tuple[str, Any]], rows: Rows = PLAIN, last: int | None = None
) -> None:
    """Run a TransformerLens bridge until a hook raises `StopForwardPass`; `rows` is as in `Units.run`.

    With a `RowCache`, the block `last` is run for the wanted places alone, and hooks are shown these.
    TransformerLens's own stop_at_layer stops before a block: after the last one, it runs the unembedding too.
    """
    more: dict[str, Any] = {} if rows.cache is None else {"past_key_values": rows.cache, "use_cache": True}
    if rows.packing is not None:
        more |= {"position_ids": rows.packing.positions, "attention_mask": _attention_mask(bridge, rows.packing)}
    with ExitStack() as stack, torch.inference_mode(), suppress(StopForwardPass):
        if isinstance(rows.cache, RowCache):
            stack.enter_context(fused_activations(bridge.original_model))
            if rows.cache.trims and rows.at is not None and last is not None:
                waits = stack.enter_context(at_wanted_places(bridge.blocks[last], rows.cache, rows.at))
                hooks = [(name, _unless(waits, function)) for name, function in hooks]
        bridge.run_with_hooks(tokens, fwd_hooks=list(hooks), return_type=None, **more)


def _unless(waits: Callable[[], bool], function: Any) -> Any:
    """A hook that is silent while a block runs for its keys and values alone."""
    return lambda tensor, hook: None if waits() else function(tensor, hook=hook)


def _attention_mask(bridge: Any, packing: Packing) -> Tensor | dict[str, Tensor]:
    """The mask of a packing as models of transformers take one; by the kind of layer, where they have several."""
    config = bridge.original_model.config.get_text_config()
    dtype = next(iter(bridge.original_model.parameters())).dtype
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or int(packing.places.max()) < window:
        return packing.mask(dtype)
    if kinds <= {"sliding_attention"}:
        return packing.mask(dtype, window)
    return {kind: packing.mask(dtype, window if kind == "sliding_attention" else None) for kind in kinds}


def logits_with_hooks(bridge: Any, tokens: Tensor, hooks: Sequence[tuple[str, Any]]) -> Tensor:
    """Logits of a TransformerLens bridge with hooks, past those that stop the run: (batch, context, vocabulary)."""

    def passed(hook_function: Any) -> Any:
        def go_on(tensor: Tensor, hook: Any) -> None:
            with suppress(StopForwardPass):
                hook_function(tensor, hook=hook)

        return go_on

    with torch.inference_mode():
        logits: Tensor = bridge.run_with_hooks(
            tokens, fwd_hooks=[(name, passed(function)) for name, function in hooks], return_type="logits"
        )
    return logits


def chosen_layers(layers: Literal["all"] | Sequence[int], depth: int) -> list[int]:
    """The configured layers, in ascending order; raises `ConfigurationError` for one that does not exist."""
    chosen = list(range(depth)) if layers == "all" else sorted(set(layers))
    if missing := [layer for layer in chosen if layer >= depth]:
        raise ConfigurationError(
            f"units.layers: layer {missing[0]} does not exist: the model has layers 0 to {depth - 1}."
        )
    return chosen


def clamped(activations: Tensor, unit: Tensor | None, value: Tensor | None) -> Tensor:
    """(rows, context, units) activations with one unit of each row set to one value at every position."""
    if unit is None or value is None:
        return activations
    changed = activations.clone()
    changed[torch.arange(len(unit), device=unit.device), :, unit] = value.to(changed.dtype)[:, None]
    return changed

"""Where activations are looked at: by compiled loops on the processor, or on the device that computed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from atlas_builder.collect.device import DeviceLayer
from atlas_builder.collect.layer import LayerBatch, LayerCollector
from atlas_builder.config import ModelSettings
from atlas_builder.errors import OutOfMemoryError
from atlas_builder.models.memory import as_float32, is_out_of_memory

Commit = Callable[[], None]
"""Collects what was looked at; it needs no more memory of the device, but for rows that it reads piece by piece."""


class Engine(Protocol):
    """Looks at batches of activations and collects what matters of each layer."""

    def contexts_at_once(self, layer: int, tokens: int) -> int | None:
        """Most contexts of `tokens` tokens to be looked at next; None for any number."""

    def look(self, layer: int, batch: LayerBatch) -> Commit:
        """Look at a batch; what this returns collects it.

        Where the device's memory is too small, it fails before anything is collected.
        """

    def settle(self) -> None:
        """Make the collectors complete, for a checkpoint."""


class Loops:
    """The compiled loops: every activation crosses to the processor."""

    def __init__(self, collectors: Mapping[int, LayerCollector]) -> None:
        self._collectors = collectors

    def contexts_at_once(self, layer: int, tokens: int) -> int | None:
        """No limit: loops raise their bounds as they go."""
        return None

    def look(self, layer: int, batch: LayerBatch) -> Commit:
        """Take a batch to the processor; the loops then look at it and collect it in one go."""
        on_cpu = batch._replace(inputs=as_float32(batch.inputs), activations=as_float32(batch.activations))
        return partial(self._collectors[layer].visit, *on_cpu)

    def settle(self) -> None:
        """Nothing: collectors are complete after every batch."""


class OnDevice:
    """Plain torch operations where the activations are: see `device`.

    Raises `OutOfMemoryError` where the device has no room for the statistics.
    """

    def __init__(self, collectors: Mapping[int, LayerCollector], device: str, *, logs: bool) -> None:
        try:
            self._layers = {layer: DeviceLayer(one, device, logs=logs) for layer, one in collectors.items()}
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            units = sum(one.shape.units for one in collectors.values())
            raise OutOfMemoryError(
                f"the statistics of {units:,} units do not fit into the memory of {device} beside the model: "
                "set model.engine loops, or fewer units.layers."
            ) from None

    def contexts_at_once(self, layer: int, tokens: int) -> int | None:
        """Few at first."""
        return self._layers[layer].contexts_at_once(tokens)

    def look(self, layer: int, batch: LayerBatch) -> Commit:
        """Count a batch on the device and take candidates to the host."""
        return self._layers[layer].look(batch)

    def settle(self) -> None:
        """Take the counts to the host."""
        for layer in self._layers.values():
            layer.settle()


def looks_on_device(model: ModelSettings) -> bool:
    """Whether the configured engine is the device's."""
    return model.engine == "device" or (model.engine == "auto" and model.device != "cpu")

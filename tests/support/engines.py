"""The engine of the device behind the interface of the compiled loops, for tests that know the latter's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.device import DeviceLayer
from atlas_builder.collect.layer import LayerCollector


class DeviceCollector(LayerCollector):
    """A collector that looks at activations as a device does, here on the processor."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._device = DeviceLayer(self, "cpu", logs=True)

    def visit(
        self,
        batch: NDArray[np.int64],
        inputs: Tensor,
        activations: Tensor,
        head: int,
        own: NDArray[np.int32] | None = None,
    ) -> None:
        """Collect a batch, few contexts at a time at first."""
        done = 0
        while done < len(batch):
            these = slice(done, done + self._device.contexts_at_once(activations.shape[1] - head))
            self._device.look(
                batch[these], inputs[these], activations[these], head, None if own is None else own[these]
            )()
            done += len(batch[these])
        self._device.settle()

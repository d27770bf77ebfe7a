"""The engine of the device, on the processor: behind the interface of the loops, and beside them on one text."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect import batch_run, checkpoints, run
from atlas_builder.collect.device import DeviceLayer
from atlas_builder.collect.engine import Commit, Loops, OnDevice
from atlas_builder.collect.layer import LayerBatch, LayerCollector, LayerShape
from atlas_builder.collect.second_run import LayerReading, bytes_logged
from atlas_builder.collect.write import finish
from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts
from atlas_builder.files import read_json
from atlas_builder.models import language_model, memory
from atlas_builder.progress import Progress
from atlas_builder.units.open import open_units
from tests.support.atlases import digests
from tests.support.crossings import Crossings


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
        special: NDArray[np.bool_] | None = None,
    ) -> None:
        """Collect a batch, few contexts at a time at first; loops alone leave out special tokens."""
        assert special is None
        done = 0
        while done < len(batch):
            these = slice(done, done + self._device.contexts_at_once(activations.shape[1] - head))
            part = inputs[these], activations[these], head, None if own is None else own[these]
            self._device.look(LayerBatch(batch[these], *part))()
            done += len(batch[these])
        self._device.settle()


@dataclass
class Crossed:
    """What crossed until some token."""

    tokens: int
    ways: Counter[str]

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.ways.total()


@dataclass
class Comparison:
    """Both engines over the same text."""

    units: int
    tokens: int
    crossed: list[Crossed] = field(default_factory=list)
    """At the ends of stretches, then after the last checkpoint, then after the second run."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Processor time of each engine, without the model's own."""
    files: int = 0
    differing: list[str] = field(default_factory=list)
    logged: float = 0.0

    @property
    def bytes_a_token(self) -> float:
        """All bytes that left the device, second run included."""
        return self.crossed[-1].bytes / self.tokens


class _Both:
    """An engine that has both look at each batch, and counts what leaves the device of one of them."""

    def __init__(self, loops: Loops, device: OnDevice, crossings: Crossings, seconds: dict[str, float]) -> None:
        self._loops, self._device, self._crossings, self._seconds = loops, device, crossings, seconds

    def contexts_at_once(self, layer: int, tokens: int) -> int | None:
        return self._device.contexts_at_once(layer, tokens)

    def look(self, layer: int, batch: LayerBatch) -> Commit:
        started = time.process_time()
        self._loops.look(layer, batch)()
        between = time.process_time()
        with self._crossings:
            self._device.look(layer, batch)()
        self._seconds["loops"] += between - started
        self._seconds["device"] += time.process_time() - between
        return lambda: None

    def settle(self) -> None:
        with self._crossings:
            self._device.settle()


class _Counted:
    """A reading of which is counted what leaves the device; the model's own work is not the engine's."""

    def __init__(self, reading: LayerReading, crossings: Crossings) -> None:
        self._reading, self._crossings = reading, crossings
        self.has = reading.has

    def look(self, *given: Any) -> Commit:
        with self._crossings:
            return self._reading.look(*given)


def compare_engines(settings: dict[str, Any], scratch: Path) -> Comparison:
    """Run both engines over a text at once, the device's with a second run, and compare all files."""
    config = validate(settings)
    loaded = language_model.load_model(config.model)
    units = open_units(loaded, config)
    folder = scratch / "pass"
    folder.mkdir()
    run.prepare_pass(loaded, units, config, folder, Progress(quiet=True))
    read = contexts.read_contexts(folder / "contexts")
    shapes = [LayerShape(**shape) for shape in read_json(folder / "facts.json")["shapes"]]
    memory.keep_memory()
    crossings = Crossings()
    found = Comparison(sum(shape.units for shape in shapes), read.token_count)
    found.logged = bytes_logged(shapes, config.examples, len(read), read.token_count)
    with ExitStack() as stack:
        loops, device = (
            stack.enter_context(checkpoints.collectors(shapes, config.examples, scratch / name, 1))
            for name in ("loops", "device")
        )
        batches = checkpoints.WHOLE.batches(read, shapes)
        both = _Both(Loops(loops.layers), OnDevice(device.layers, "cpu", logs=False), crossings, found.seconds)
        runs = batch_run.BatchRun(units, read, device, "cpu", Progress(quiet=True), both)
        runs.fit(1 << 20)
        seen, stretch = 0, 1
        for batch in batches:
            runs.batch(batch)
            seen += runs.tokens_of(batch)
            if seen >= stretch * 8192 or batch is batches[-1]:
                found.crossed.append(Crossed(seen, Counter(crossings.bytes)))
                stretch *= 2
        both.settle()
        found.crossed.append(Crossed(seen, Counter(crossings.bytes)))
        readings = {layer: LayerReading(one, batches, "cpu", is_whole=True) for layer, one in device.layers.items()}
        counted = {layer: _Counted(reading, crossings) for layer, reading in readings.items()}
        for number, batch in enumerate(batches):
            runs.read_again(number, batch, cast("dict[int, LayerReading]", counted))
        found.crossed.append(Crossed(seen, Counter(crossings.bytes)))
        written = []
        for name, opened in (("loops", loops), ("device", device)):
            for layer, one in opened.layers.items():
                one.thin()
                finish(one, read, scratch / f"{name}-results" / f"L{layer}")
            written.append(digests(scratch / f"{name}-results"))
    found.files = len(written[0])
    found.differing = sorted({path for path, _ in written[0].items() ^ written[1].items()})
    return found

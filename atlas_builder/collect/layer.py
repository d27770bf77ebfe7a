"""What one layer gives up while the contexts stream by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.inputs import InputLog
from atlas_builder.collect.selection import Pool, candidate_type
from atlas_builder.collect.statistics import Statistics
from atlas_builder.config import Examples
from atlas_builder.store import write_json


class NotFiniteError(Exception):
    """An activation that is NaN or infinite, in the context of this number."""

    def __init__(self, context: int) -> None:
        super().__init__(context)
        self.context = context


class LayerCollector:
    """Statistics, candidates and their inputs for the units of one layer."""

    def __init__(self, layer: int, units: int, width: int, examples: Examples, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.before, self.after = examples.window
        self.statistics = Statistics(units)
        self.pool = Pool(
            layer,
            units,
            policy=examples.policy,
            per_unit=examples.per_unit,
            threshold=examples.threshold,
            seed=examples.seed,
            window=self.before + 1 + self.after,
        )
        self.log = InputLog(folder / "inputs.log", width)

    def visit(self, batch: NDArray[np.int64], inputs: Tensor, activations: Tensor) -> None:
        """Take in a batch: (batch, context, width) and (batch, context, units), float32 on the cpu.

        Raises `NotFiniteError` where an activation is not a number.
        """
        highest = activations.amax(1)  # (batch, units)
        sums = self.statistics.add(activations, highest)
        if not torch.isfinite(sums).all():
            bad = int((~torch.isfinite(sums)).any(1).nonzero()[0])
            raise NotFiniteError(int(batch[bad]))
        self.pool.raise_bound(self.statistics.maximum)
        example, unit = (highest >= torch.from_numpy(self.pool.bound)).nonzero(as_tuple=True)
        if len(unit) and self.pool.add(self._candidates(batch, inputs, activations, example, unit)):
            self._compact()

    def _candidates(
        self, batch: NDArray[np.int64], inputs: Tensor, activations: Tensor, example: Tensor, unit: Tensor
    ) -> np.ndarray:
        length = activations.shape[1]
        course = activations[example, :, unit]  # (candidates, context)
        position = course.argmax(1)
        place = position[:, None] + torch.arange(-self.before, self.after + 1)  # (candidates, window)
        outside = (place < 0) | (place >= length)
        window = course.gather(1, place.clamp(0, length - 1)).masked_fill(outside, torch.nan)

        # Units that fire on the same token share its input.
        token, shared = torch.unique(example * length + position, return_inverse=True)
        rows = self.log.append(inputs[token // length, token % length].numpy())

        found = np.empty(len(unit), dtype=candidate_type(self.before + 1 + self.after))
        found["unit"] = unit
        found["value"] = course.gather(1, position[:, None])[:, 0]
        found["context"] = batch[example.numpy()]
        found["position"] = position
        found["row"] = rows[shared.numpy()]
        found["window"] = window
        return found

    def _compact(self) -> None:
        self.pool.compact()
        wanted, renumbered = np.unique(self.pool.kept["row"], return_inverse=True)
        if self.log.is_mostly_waste(len(wanted)):
            self.log.retain(wanted)
            self.pool.kept["row"] = renumbered

    def finish(self, read_weights: Tensor, write_weights: Tensor) -> None:
        """Choose the examples and write everything the later stages need."""
        chosen = self.pool.select()
        # Inputs lie in the order of the corpus, whatever order they were met in.
        tokens = np.unique(np.stack([chosen["context"], chosen["position"], chosen["row"]]), axis=1)
        self.log.write_rows(tokens[2].astype(np.int64), self.folder / "inputs.f32")
        self.log.close()
        renumbered = np.zeros(int(tokens[2].max(initial=-1)) + 1, dtype=np.int64)
        renumbered[tokens[2].astype(np.int64)] = np.arange(tokens.shape[1])
        chosen["row"] = renumbered[chosen["row"]]

        units = len(self.pool.bound)
        starts = np.searchsorted(chosen["unit"], np.arange(units + 1))
        np.save(self.folder / "examples.npy", chosen)
        np.save(self.folder / "starts.npy", starts)
        np.save(self.folder / "read.npy", read_weights.numpy())
        np.save(self.folder / "write.npy", write_weights.numpy())
        statistics = self.statistics
        np.save(self.folder / "histogram.npy", statistics.histogram)
        moments = np.stack([statistics.maximum, statistics.mean, statistics.deviation, statistics.density])
        np.save(self.folder / "moments.npy", moments)
        write_json(self.folder / "layer.json", {"tokens": statistics.tokens, "units": units, "width": self.log.width})

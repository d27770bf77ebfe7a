"""What the pass left on disk, opened for the stages behind it; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder import contexts
from atlas_builder.contexts import Contexts
from atlas_builder.store import read_array, read_json


@dataclass(frozen=True)
class CollectedLayer:
    """One layer's units; arrays are read from disk when first used."""

    layer: int
    folder: Path

    def __reduce__(self) -> tuple[type[CollectedLayer], tuple[int, Path]]:
        """Workers get the place on disk, not the arrays that happen to be open."""
        return CollectedLayer, (self.layer, self.folder)

    @cached_property
    def examples(self) -> np.ndarray:
        """All examples of all units, structured as `selection.candidate_type` says."""
        return read_array(self.folder / "examples.npy", on_disk=True)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Unit `u` owns examples `starts[u]:starts[u + 1]`."""
        return read_array(self.folder / "starts.npy")

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """The units' inputs at key tokens: (rows, width); `examples["row"]` points into it."""
        width = read_json(self.folder / "layer.json")["width"]
        path = self.folder / "inputs.f32"
        if not path.stat().st_size:
            return np.zeros((0, width), dtype=np.float32)
        return np.memmap(path, dtype="<f4", mode="r").reshape(-1, width)

    @cached_property
    def read_weights(self) -> NDArray[np.float32]:
        """(parts, units, width)."""
        return read_array(self.folder / "read.npy", on_disk=True)

    @cached_property
    def write_weights(self) -> NDArray[np.float32]:
        """(units, d_model)."""
        return read_array(self.folder / "write.npy", on_disk=True)

    @cached_property
    def moments(self) -> NDArray[np.float64]:
        """Maximum, mean, standard deviation and density: (4, units)."""
        return read_array(self.folder / "moments.npy")

    @cached_property
    def histogram(self) -> NDArray[np.int64]:
        """Tokens by bin of `statistics.bin_edges`: (units, BINS)."""
        return read_array(self.folder / "histogram.npy", on_disk=True)

    @cached_property
    def tokens(self) -> int:
        """Tokens that count in the statistics."""
        return int(read_json(self.folder / "layer.json")["tokens"])

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return len(self.starts) - 1

    def of(self, unit: int) -> np.ndarray:
        """The examples of one unit, highest activation first."""
        return self.examples[self.starts[unit] : self.starts[unit + 1]]


@dataclass(frozen=True)
class Collected:
    """The folder of the collect stage."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is true of model and corpus as a whole."""
        facts: dict[str, Any] = read_json(self.folder / "facts.json")
        return facts

    @cached_property
    def contexts(self) -> Contexts:
        """The corpus, tokenised."""
        return contexts.read(self.folder / "contexts")

    @cached_property
    def token_texts(self) -> list[str]:
        """What each token reads as."""
        texts: list[str] = read_json(self.folder / "tokens.json")
        return texts

    @cached_property
    def unembedding(self) -> NDArray[np.float32]:
        """From the residual stream to logits, as `LanguageModel.unembedding` says: (d_model, vocabulary)."""
        return read_array(self.folder / "unembedding.npy", on_disk=True)

    @property
    def layers(self) -> list[CollectedLayer]:
        """The layers read, in rising order."""
        return [CollectedLayer(layer, self.folder / f"L{layer}") for layer in self.facts["layers_read"]]

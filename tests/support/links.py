"""What the stages before `link` leave, small and random."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from atlas_builder.cluster.run import BEHAVIOUR
from atlas_builder.collect.results import Collected
from atlas_builder.config import LinkSettings
from atlas_builder.files import write_json
from atlas_builder.link.exact_knn import Points, directions
from atlas_builder.link.run import Links, link
from atlas_builder.progress import Progress

FILES = ("address.npy", "map.npy", "neighbours.npy", "similarities.npy", "thresholds.npy", "wiring.npy")


def make_points(vectors: np.ndarray, unit: np.ndarray, layers: int) -> Points:
    """Points of three units a layer."""
    starts = np.searchsorted(unit, np.arange(layers + 1) * 3)
    return Points(directions(vectors), unit, np.asarray(~vectors.any(axis=1)), starts)


class Made:
    """A small atlas as the stages before leave it: three units a layer, layers 1, 3, 5, …"""

    def __init__(self, folder: Path, counts: list[int], seed: int = 0, parts: int = 1, width: int = 5) -> None:
        chance = np.random.default_rng(seed)
        self.folder, self.layers, self.parts = folder, [1 + 2 * place for place in range(len(counts))], parts
        folder.mkdir()
        write_json(folder / "facts.json", {"layers_read": self.layers})
        self.inputs, self.units = [], []
        self.reads: list[np.ndarray] = []
        self.writes: list[np.ndarray] = []
        for layer, count in zip(self.layers, counts, strict=True):
            place = folder / f"L{layer}"
            place.mkdir()
            inputs = chance.integers(-2, 3, (count + 2, width)).astype(np.float32)
            inputs.tofile(place / "inputs.f32")
            write_json(place / "layer.json", {"width": width})
            self.reads.append(chance.normal(size=(parts, 3, width)).astype(np.float32))
            self.writes.append(chance.normal(size=(3, width)).astype(np.float32))
            found = np.zeros(count, dtype=BEHAVIOUR)
            found["unit"] = np.sort(chance.integers(0, 3, count))
            found["id"] = np.arange(count) - np.searchsorted(found["unit"], found["unit"])
            found["row"] = chance.permutation(count + 2)[:count]
            np.save(folder / f"L{layer}.behaviours.npy", found)
            self.inputs.append(inputs[found["row"]])
            self.units.append(found["unit"])
        self.save_weights()

    def save_weights(self) -> None:
        for layer, read, write in zip(self.layers, self.reads, self.writes, strict=True):
            np.save(self.folder / f"L{layer}" / "read.npy", read)
            np.save(self.folder / f"L{layer}" / "write.npy", write)

    def links(self, executor: Executor | None = None, map: bool = False, **wanted: Any) -> Links:
        target = self.folder / "link"
        target.mkdir(exist_ok=True)
        with ThreadPoolExecutor(1) as own:
            link(
                Collected(self.folder),
                self.folder,
                LinkSettings(map=map, **wanted),
                target,
                executor or own,
                Progress(quiet=True),
            )
        assert sorted(file.name for file in target.iterdir()) == sorted(FILES)
        return Links(target)

    def points(self) -> Points:
        unit = np.concatenate([own + 3 * place for place, own in enumerate(self.units)])
        return make_points(np.concatenate(self.inputs), unit, len(self.layers))

    def contents(self) -> dict[str, bytes]:
        return {name: (self.folder / "link" / name).read_bytes() for name in FILES}

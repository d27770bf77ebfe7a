"""The cluster stage: every unit's examples parted into behaviours, over all cores."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder import behaviours
from atlas_builder.behaviours import Measures
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import Clusters
from atlas_builder.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.progress import Progress
from atlas_builder.store import read_array

_UNITS_AT_ONCE = 64

_COUNTS = ("behaviours", "examples")
MEASURES = np.dtype([(name, "<i4" if name in _COUNTS else "<f8") for name in Measures._fields])
BEHAVIOUR = np.dtype(
    [
        ("unit", "<i4"),
        ("id", "<i4"),
        ("sign", "<i4"),
        ("size", "<i4"),
        ("coverage", "<f8"),
        ("central", "<i8"),
        ("row", "<i8"),
    ]
)
"""One behaviour of a layer: `central` is a place among the layer's examples, `row` that of its input.

Behaviours below zero have the sign −1 and are numbered after those above.
"""


@dataclass(frozen=True)
class Clustered:
    """One layer of the folder of the cluster stage."""

    layer: int
    folder: Path

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The behaviour of each of the layer's examples, −1 for noise."""
        return read_array(self.folder / f"L{self.layer}.labels.npy")

    @cached_property
    def measures(self) -> np.ndarray:
        """`behaviours.Measures` of each unit, and of its negative side where it has one: (units, sides)."""
        return read_array(self.folder / f"L{self.layer}.measures.npy")

    @cached_property
    def behaviours(self) -> np.ndarray:
        """All behaviours of the layer, by unit and number."""
        return read_array(self.folder / f"L{self.layer}.behaviours.npy")

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Unit `u` owns behaviours `starts[u]:starts[u + 1]`."""
        return np.searchsorted(self.behaviours["unit"], np.arange(len(self.measures) + 1))


def cluster(collected: Collected, settings: Clusters, folder: Path, executor: Executor, progress: Progress) -> None:
    """Cluster every unit of every layer and write labels, measures and behaviours."""
    total = sum(layer.units for layer in collected.layers)
    with progress.task("cluster", total=total, unit="units") as advance:
        for layer in collected.layers:
            firsts = range(0, layer.units, _UNITS_AT_ONCE)
            tasks = [
                executor.submit(_cluster_units, layer, first, min(first + _UNITS_AT_ONCE, layer.units), settings)
                for first in firsts
            ]
            parts = []
            for task in tasks:
                parts.append(task.result())
                advance(len(parts[-1][1]))
            labels, measures, found = (np.concatenate(part) for part in zip(*parts, strict=True))
            np.save(folder / f"L{layer.layer}.labels.npy", labels)
            np.save(folder / f"L{layer.layer}.measures.npy", measures)
            np.save(folder / f"L{layer.layer}.behaviours.npy", found)


def _cluster_units(
    layer: CollectedLayer, first: int, last: int, settings: Clusters
) -> tuple[NDArray[np.int32], np.ndarray, np.ndarray]:
    """Labels of the examples, measures and behaviours of units `first` to `last - 1`."""
    # Thread counts must leave no trace, and workers must not fight over cores.
    with threadpool_limits(limits=1):
        parts = [_cluster_unit(layer, unit, settings) for unit in range(first, last)]
    labels, measures, found = zip(*parts, strict=True)
    return np.concatenate(labels), np.array(list(measures), dtype=MEASURES), np.concatenate(found)


def _cluster_unit(
    layer: CollectedLayer, unit: int, settings: Clusters
) -> tuple[NDArray[np.int32], list[Measures], np.ndarray]:
    """Labels, measures of each side, behaviours; each side is clustered on its own."""
    labels, measures, found = [], [], []
    known = 0
    for sign in (1, -1)[: layer.sides]:
        side, measured, own = _cluster_side(layer, unit, sign, settings)
        own["id"] += known
        labels.append(np.where(side >= 0, side + np.int32(known), side))
        known += len(own)
        measures.append(measured)
        found.append(own)
    return np.concatenate(labels), measures, np.concatenate(found)


def _cluster_side(
    layer: CollectedLayer, unit: int, sign: int, settings: Clusters
) -> tuple[NDArray[np.int32], Measures, np.ndarray]:
    first, examples = layer.of_side(unit, sign)
    embeddings = neuron_embeddings(layer.inputs[examples["row"]], layer.read_weights[:, unit])
    distances = cosine_distances(embeddings)
    labels = behaviours.cluster(distances, settings)
    central = behaviours.central_examples(distances, labels)
    found = np.zeros(len(central), dtype=BEHAVIOUR)
    found["unit"], found["sign"] = unit, sign
    found["id"] = np.arange(len(central))
    found["size"] = np.bincount(labels[labels >= 0], minlength=len(central))
    found["coverage"] = behaviours.coverage(np.abs(examples["value"]), labels)
    found["central"] = first + central
    found["row"] = examples["row"][central]
    return labels, behaviours.measure(distances, labels), found

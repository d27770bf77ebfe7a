"""The cluster stage: every unit's examples parted into behaviours, over all cores."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster import clustering
from atlas_builder.cluster.clustering import Measures, paper_distances
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings, principal_coordinates
from atlas_builder.cluster.stability import StabilityMeasures, stability_measures
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import ClusterSettings
from atlas_builder.files import read_array
from atlas_builder.progress import Progress

_UNITS_AT_ONCE = 64

_COUNTS = ("behaviours", "examples")
MEASURES_DTYPE = np.dtype(
    [(name, "<i4" if name in _COUNTS else "<f8") for name in (*Measures._fields, *StabilityMeasures._fields)]
)
PAPER_DISTANCES = ("embedding_intra", "embedding_inter", "input_intra", "input_inter")
"""Mean distances within and between the paper's clusters, by neuron embeddings and by the MLP's input alone."""
BEHAVIOUR = np.dtype(
    [
        ("unit", "<i4"),
        ("id", "<i4"),
        ("sign", "<i4"),
        ("size", "<i4"),
        ("coverage", "<f8"),
        ("stability", "<f8"),
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
    def paper_distances(self) -> NDArray[np.float64]:
        """The distances of `CONTRAST`, above zero: (units, 4)."""
        return read_array(self.folder / f"L{self.layer}.paper_distances.npy")

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """Where each of the layer's examples lies in the plane of its unit's side: (examples, 2)."""
        return read_array(self.folder / f"L{self.layer}.points.npy")

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """How much of the examples' variance that plane holds: (units, sides)."""
        return read_array(self.folder / f"L{self.layer}.spread.npy")

    @cached_property
    def measures(self) -> np.ndarray:
        """`Measures` and `Sureness` of each unit, and of its negative side where it has one: (units, sides)."""
        return read_array(self.folder / f"L{self.layer}.measures.npy")

    @cached_property
    def behaviours(self) -> np.ndarray:
        """All behaviours of the layer, by unit and number."""
        return read_array(self.folder / f"L{self.layer}.behaviours.npy")

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Unit `u` owns behaviours `starts[u]:starts[u + 1]`."""
        return np.searchsorted(self.behaviours["unit"], np.arange(len(self.measures) + 1))


def cluster_units(
    collected: Collected, settings: ClusterSettings, folder: Path, executor: Executor, progress: Progress
) -> None:
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
                advance(len(parts[-1].measures))
            for name, part in zip(ClusteredUnits._fields, zip(*parts, strict=True), strict=True):
                np.save(folder / f"L{layer.layer}.{name}.npy", np.concatenate(part))


class ClusteredUnits(NamedTuple):
    """What is found of some units, under the names of its files."""

    labels: NDArray[np.int32]
    measures: np.ndarray
    behaviours: np.ndarray
    paper_distances: NDArray[np.float64]
    points: NDArray[np.float32]
    spread: NDArray[np.float64]


def _cluster_units(layer: CollectedLayer, first: int, last: int, settings: ClusterSettings) -> ClusteredUnits:
    """Cluster units `first` to `last - 1`."""
    # Thread counts must leave no trace, and workers must not fight over cores.
    with threadpool_limits(limits=1):
        parts = [_cluster_unit(layer, unit, settings) for unit in range(first, last)]
    return ClusteredUnits(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _cluster_unit(layer: CollectedLayer, unit: int, settings: ClusterSettings) -> ClusteredUnits:
    """Cluster a unit; each side is clustered on its own."""
    labels, measures, found, planes = [], [], [], []
    known = 0
    distances = {}
    for sign in (1, -1)[: layer.signs]:
        first, examples = layer.of_side(unit, sign)
        inputs = layer.inputs[examples["row"]]
        distances[sign] = cosine_distances(neuron_embeddings(inputs, layer.read_weights[:, unit]))
        side = clustering.cluster(distances[sign], settings)
        sure, stable = stability_measures(distances[sign], side, examples["value"], settings)
        own = _behaviours(distances[sign], side, examples, first)
        own["unit"], own["sign"], own["stability"] = unit, sign, stable
        own["id"] += known
        labels.append(np.where(side >= 0, side + np.int32(known), side))
        measures.append((*clustering.measure(distances[sign], side), *sure))
        found.append(own)
        planes.append(principal_coordinates(distances[sign]))
        known += len(own)
    above = layer.of_side(unit, 1)[1]
    compared = (*paper_distances(distances[1]), *paper_distances(cosine_distances(layer.inputs[above["row"]])))
    return ClusteredUnits(
        np.concatenate(labels),
        np.array([measures], dtype=MEASURES_DTYPE),
        np.concatenate(found),
        np.array([compared]),
        np.concatenate([plane.points for plane in planes]),
        np.array([[plane.share for plane in planes]]),
    )


def _behaviours(
    distances: NDArray[np.float32], labels: NDArray[np.int32], examples: np.ndarray, first: int
) -> np.ndarray:
    """The behaviours of one side of a unit, whose examples begin at `first`."""
    central = clustering.central_examples(distances, labels)
    found = np.zeros(len(central), dtype=BEHAVIOUR)
    found["id"] = np.arange(len(central))
    found["size"] = np.bincount(labels[labels >= 0], minlength=len(central))
    found["coverage"] = clustering.coverage(np.abs(examples["value"]), labels)
    found["central"] = first + central
    found["row"] = examples["row"][central]
    return found

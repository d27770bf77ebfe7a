"""The cluster stage: every unit's examples clustered into behaviours, on all cores."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from atlas_builder.cluster import clustering, stability
from atlas_builder.cluster.background import LayerBackground, UnitBackground
from atlas_builder.cluster.clustering import Measures, paper_distances
from atlas_builder.cluster.diversity import DiversityMeasures, diversity_measures, frequency_counts
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings, principal_coordinates
from atlas_builder.cluster.stability import StabilityMeasures, stability_measures
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import ClusterSettings
from atlas_builder.files import read_array
from atlas_builder.progress import Progress, gc_paused
from atlas_builder.system.compiled import submit_all

_UNITS_AT_ONCE = 64  # whatever the number of workers: products over a block round by its shape

_COUNTS = ("behaviours", "main_behaviours", "examples", "qualifying_contexts")
MEASURES_DTYPE = np.dtype(
    [
        (name, "<i4" if name in _COUNTS else "<f8")
        for name in (
            *Measures._fields,
            *StabilityMeasures._fields,
            *DiversityMeasures._fields,
            "qualifying_contexts",
        )
    ]
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
"""One behaviour of a layer: `central` indexes its central example in the layer, `row` that example's input.

Behaviours of negative activations have the sign −1 and are numbered after the others.
"""


@dataclass(frozen=True)
class Clustered:
    """The results of the cluster stage for one layer."""

    layer: int
    folder: Path

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The behaviour of each of the layer's examples, −1 for unclustered: (examples,)."""
        return read_array(self.folder / f"L{self.layer}.labels.npy")

    @cached_property
    def paper_distances(self) -> NDArray[np.float64]:
        """The distances of `PAPER_DISTANCES`, of positive activations: (units, 4)."""
        return read_array(self.folder / f"L{self.layer}.paper_distances.npy")

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """The principal coordinates of each of the layer's examples, by unit and sign: (examples, 2)."""
        return read_array(self.folder / f"L{self.layer}.points.npy")

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """The share of the examples' variance on these two coordinates: (units, signs)."""
        return read_array(self.folder / f"L{self.layer}.spread.npy")

    @cached_property
    def measures(self) -> np.ndarray:
        """`Measures`, `StabilityMeasures`, `DiversityMeasures` and how many contexts qualify for examples, of each unit
        by sign: (units, signs)."""
        return read_array(self.folder / f"L{self.layer}.measures.npy")

    @cached_property
    def behaviours(self) -> np.ndarray:
        """All behaviours of the layer, by unit and number."""
        return read_array(self.folder / f"L{self.layer}.behaviours.npy")

    @cached_property
    def is_main(self) -> NDArray[np.bool_]:
        """Whether each behaviour of the layer is a main one of its side: (behaviours,)."""
        sides = np.where(self.behaviours["sign"] > 0, 0, 1)
        examples = self.measures["examples"][self.behaviours["unit"], sides]
        return clustering.is_main(self.behaviours["size"], examples)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The behaviours of unit `u` are `starts[u]:starts[u + 1]`: (units + 1,)."""
        return np.searchsorted(self.behaviours["unit"], np.arange(len(self.measures) + 1))


def cluster_units(
    collected: Collected, settings: ClusterSettings, folder: Path, executor: Executor, progress: Progress
) -> None:
    """Cluster every unit of every layer and write labels, measures and behaviours."""
    total = sum(layer.units for layer in collected.layers)
    with progress.task("cluster", total=total, unit="units") as advance:
        for layer in collected.layers:
            blocks = [
                (layer, first, min(first + _UNITS_AT_ONCE, layer.units), settings)
                for first in range(0, layer.units, _UNITS_AT_ONCE)
            ]
            tasks = submit_all(executor, _cluster_units, blocks, frequency_counts)
            parts = []
            for task in tasks:
                parts.append(task.result())
                advance(len(parts[-1].measures))
            for name, part in zip(ClusteredUnits._fields, zip(*parts, strict=True), strict=True):
                np.save(folder / f"L{layer.layer}.{name}.npy", np.concatenate(part))


class ClusteredUnits(NamedTuple):
    """The results of some units; the fields name the files."""

    labels: NDArray[np.int32]
    measures: np.ndarray
    behaviours: np.ndarray
    paper_distances: NDArray[np.float64]
    points: NDArray[np.float32]
    spread: NDArray[np.float64]


def _cluster_units(layer: CollectedLayer, first: int, last: int, settings: ClusterSettings) -> ClusteredUnits:
    """Cluster units `first` to `last - 1`."""
    # Results must not depend on the number of threads, and workers must not compete for cores.
    with threadpool_limits(limits=1), gc_paused():
        background = LayerBackground(layer.background, layer.background_tokens)
        as_read = background.of_units(layer.read_weights[:, first:last])
        parts = [_cluster_unit(layer, unit, one, settings) for unit, one in enumerate(as_read, first)]
    return ClusteredUnits(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _cluster_unit(
    layer: CollectedLayer, unit: int, background: UnitBackground, settings: ClusterSettings
) -> ClusteredUnits:
    """Cluster a unit; positive and negative activations are clustered separately."""
    labels, measures, behaviours, planes = [], [], [], []
    count = 0
    inputs, distances = {}, {}
    for sign in (1, -1)[: layer.signs]:
        first, examples = layer.of_side(unit, sign)
        inputs[sign] = layer.inputs[examples["row"]]
        distances[sign] = cosine_distances(neuron_embeddings(inputs[sign], background.read_weights))
        clustered = clustering.similarities_of(inputs[sign], background, settings)
        sign_labels = clustering.cluster(clustered.distances, settings, clustered.dimensions)
        halves = stability.half_samples(clustered, settings, seed=0)
        sign_measures, stabilities = stability_measures(
            distances[sign], sign_labels, examples["value"], settings, halves=halves
        )
        diversity = diversity_measures(
            sign_labels,
            [half.labels for half in halves],
            min_size=settings.min_size,
            random=layer.is_random_sample(unit, sign),
        )
        rows = _behaviours(clustered.distances, sign_labels, examples, first)
        rows["unit"], rows["sign"], rows["stability"] = unit, sign, stabilities
        rows["id"] += count
        labels.append(np.where(sign_labels >= 0, sign_labels + np.int32(count), sign_labels))
        qualifying = layer.selection["reach"][unit, 0 if sign > 0 else 1]
        measures.append((*clustering.measure(distances[sign], sign_labels), *sign_measures, *diversity, qualifying))
        behaviours.append(rows)
        planes.append(principal_coordinates(clustered.distances))
        count += len(rows)
    compared = (*paper_distances(distances[1]), *paper_distances(cosine_distances(inputs[1])))
    return ClusteredUnits(
        np.concatenate(labels),
        np.array([measures], dtype=MEASURES_DTYPE),
        np.concatenate(behaviours),
        np.array([compared]),
        np.concatenate([plane.points for plane in planes]),
        np.array([[plane.share for plane in planes]]),
    )


def _behaviours(
    distances: NDArray[np.float32], labels: NDArray[np.int32], examples: np.ndarray, first: int
) -> np.ndarray:
    """The behaviours of one sign of a unit, whose examples begin at `first`."""
    central = clustering.central_examples(distances, labels)
    behaviours = np.zeros(len(central), dtype=BEHAVIOUR)
    behaviours["id"] = np.arange(len(central))
    behaviours["size"] = np.bincount(labels[labels >= 0], minlength=len(central))
    behaviours["coverage"] = clustering.coverage(np.abs(examples["value"]), labels)
    behaviours["central"] = first + central
    behaviours["row"] = examples["row"][central]
    return behaviours

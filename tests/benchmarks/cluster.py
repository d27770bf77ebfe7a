"""Milliseconds a unit of the cluster stage, all of it, beside one product: `python -m tests.benchmarks.cluster`.

One core. Random units with planted behaviours, 100 examples, a background of 1,024 inputs: of width 768, or the one
that is given. Units are clustered in a block, as the stage does; what is timed is the processor's time, so that waiting
for other programs does not count. The product is that of one unit's embeddings with themselves, (examples, width) by
(width, examples); a unit takes three of them, and one of 128 inputs of the background.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.clustering import paper_distances
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings, principal_coordinates
from atlas_builder.cluster.run import _cluster_units
from atlas_builder.collect.results import selection_type
from atlas_builder.config import ClusterSettings

UNITS, EXAMPLES, WIDTH, ROUNDS = 64, 100, 768, 3


class PlantedLayer:
    """What the cluster stage reads of a layer."""

    signs = 1

    def __init__(self, width: int) -> None:
        chance = np.random.default_rng(0)
        self.inputs = chance.normal(size=(UNITS * EXAMPLES, width)).astype(np.float32) * np.float32(0.7)
        for first in range(0, len(self.inputs), EXAMPLES):
            behaviours = chance.normal(size=(int(chance.integers(1, 6)), width)).astype(np.float32)
            self.inputs[first : first + EXAMPLES] += behaviours[chance.integers(0, len(behaviours), EXAMPLES)]
        self.read_weights = chance.normal(size=(1, UNITS, width)).astype(np.float32)
        self.background = chance.normal(size=(1024, width)).astype(np.float32)
        self.background_tokens = np.arange(1024)
        self._examples = np.zeros(len(self.inputs), [("row", "<i8"), ("value", "<f4")])
        self._examples["row"], self._examples["value"] = np.arange(len(self.inputs)), chance.random(len(self.inputs))

        self.selection = np.zeros((UNITS, 1), selection_type)

    def is_random_sample(self, _unit: int, _sign: int) -> bool:
        """As where enough contexts qualify."""
        return True

    def of_side(self, unit: int, _: int) -> tuple[int, np.ndarray]:
        """The first of a unit's examples, and them."""
        return unit * EXAMPLES, self._examples[unit * EXAMPLES : (unit + 1) * EXAMPLES]

    def embeddings(self, unit: int) -> np.ndarray:
        """A unit's neuron embeddings: (examples, width)."""
        return neuron_embeddings(self.inputs[unit * EXAMPLES : (unit + 1) * EXAMPLES], self.read_weights[:, unit])


def main(width: int = WIDTH) -> None:
    """Print a table of methods and steps."""
    layer: Any = PlantedLayer(width)
    embeddings = [layer.embeddings(unit) for unit in range(UNITS)]
    distances = [cosine_distances(each) for each in embeddings]

    def stage(settings: ClusterSettings) -> Callable[[], object]:
        return lambda: _cluster_units(layer, 0, UNITS, settings)

    steps: dict[str, Callable[[], object]] = {
        "one product": lambda: [each @ each.T for each in embeddings],
        "embeddings and distances": lambda: [cosine_distances(layer.embeddings(unit)) for unit in range(UNITS)],
        "the paper's clusters and contrast, once": lambda: [paper_distances(each) for each in distances],
        "principal coordinates": lambda: [principal_coordinates(each) for each in distances],
    }
    for method in ("linkage", "agglomerative", "hdbscan", "components"):
        steps[f"the stage without stability, {method}"] = stage(ClusterSettings(method=method, resamples=0))
        steps[f"the stage, {method}"] = stage(ClusterSettings(method=method))
    totals = dict.fromkeys(steps, 0.0)
    with threadpool_limits(limits=1):
        for step in steps.values():
            step()
        for _ in range(ROUNDS):  # in turn, so that the machine's mood is shared
            for name, step in steps.items():
                started = time.thread_time()
                step()
                totals[name] += time.thread_time() - started
    for name, total in totals.items():
        print(f"{name:44} {1000 * total / UNITS / ROUNDS:6.2f} ms a unit  {total / totals['one product']:6.1f} ×")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

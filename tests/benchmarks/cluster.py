"""Milliseconds a unit for all that the cluster stage does, beside its parts: `python -m tests.benchmarks.cluster`.

One core. Random units with planted behaviours, 100 examples, a background of 1,024 inputs: of width 768, or the one
that is given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.background import LayerBackground
from atlas_builder.cluster.clustering import (
    central_examples,
    cluster,
    coverage,
    measure,
    paper_distances,
    similarities_of,
)
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.cluster.stability import stability_measures
from atlas_builder.config import ClusterSettings

UNITS, EXAMPLES, WIDTH = 200, 100, 768


def main(width: int = WIDTH) -> None:
    """Print a table of methods and steps."""
    chance = np.random.default_rng(0)
    inputs, weights = [], []
    for _ in range(UNITS):
        behaviours = chance.normal(size=(int(chance.integers(1, 6)), width))
        owner = chance.integers(0, len(behaviours), EXAMPLES)
        inputs.append((behaviours[owner] + chance.normal(size=(EXAMPLES, width)) * 0.7).astype(np.float32))
        weights.append(chance.normal(size=(1, width)).astype(np.float32))
    values = chance.random(EXAMPLES).astype(np.float32)
    background = LayerBackground(chance.normal(size=(1024, width)).astype(np.float32), np.arange(1024))

    def distances(unit: int) -> np.ndarray:
        return cosine_distances(neuron_embeddings(inputs[unit], weights[unit]))

    def whole(settings: ClusterSettings) -> Callable[[int], object]:
        def run(unit: int) -> object:
            found = distances(unit)
            similar = similarities_of(inputs[unit], background.of_unit(weights[unit]), settings)
            labels = cluster(similar.distances, settings, similar.dimensions)
            sure = stability_measures(found, labels, values, settings, similarities=similar)
            return measure(found, labels), central_examples(found, labels), coverage(values, labels), sure

        return run

    steps: dict[str, Callable[[int], object]] = {"embeddings and distances only": distances}
    steps["the paper's contrast"] = lambda unit: (
        paper_distances(distances(unit)),
        paper_distances(cosine_distances(inputs[unit])),
    )
    for method in ("linkage", "agglomerative", "hdbscan", "components"):
        steps[f"clusters and measures, {method}"] = whole(ClusterSettings(method=method, resamples=0))
        steps[f"… and stability, {method}"] = whole(ClusterSettings(method=method))
    totals = dict.fromkeys(steps, 0.0)
    with threadpool_limits(limits=1):
        for step in steps.values():
            step(0)
        for unit in range(UNITS):  # in turn, so that the machine's mood is shared
            for name, step in steps.items():
                started = time.perf_counter()
                step(unit)
                totals[name] += time.perf_counter() - started
    base = totals["embeddings and distances only"]
    for name, total in totals.items():
        print(f"{name:40} {1000 * total / UNITS:6.2f} ms a unit  {total / base:5.1f} ×")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

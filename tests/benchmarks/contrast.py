"""The paper's comparison on atlases that were built: `python -m tests.benchmarks.contrast output/demo …`.

Medians over units of the mean distances within and between clusters, by neuron
embeddings and by the MLP's input alone, of the whole and layer by layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.workspace import work_folder


def main(*sites: str) -> None:
    """Print a table; the work folders must still be beside the sites."""
    print("| atlas | embeddings: within, between | input: within, between |\n| --- | --- | --- |")
    for site in sites:
        work = work_folder(Path(site).resolve())
        layers = [layer.layer for layer in Collected(work / "collect").layers]
        found = {layer: Clustered(layer, work / "cluster").paper_distances for layer in layers}
        _row(f"{site}, {sum(map(len, found.values())):,} units", np.concatenate(list(found.values())))
        for layer, contrast in found.items():
            _row(f"layer {layer}", contrast)


def _row(name: str, contrast: NDArray[np.float64]) -> None:
    medians = [f"{value:.2f}" for value in np.nanmedian(contrast, axis=0)]
    print(f"| {name} | {', '.join(medians[:2])} | {', '.join(medians[2:])} |")


if __name__ == "__main__":
    main(*sys.argv[1:])

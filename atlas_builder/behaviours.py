"""Deprecated: `atlas_builder.cluster.clustering` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.clustering import (
    Distances,
    Labels,
    Measures,
    average_linkage,
    central_examples,
    cluster,
    coverage,
    measure,
    membership,
    paper_distances,
)
from atlas_builder.cluster.clustering import paper_distances as contrast

__all__ = [
    "Distances",
    "Labels",
    "Measures",
    "average_linkage",
    "central_examples",
    "cluster",
    "contrast",
    "coverage",
    "measure",
    "membership",
    "paper_distances",
]

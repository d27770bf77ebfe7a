"""Deprecated: `atlas_builder.cluster.embeddings` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.embeddings import (
    Floats,
    Plane,
    cosine_distances,
    neuron_embeddings,
    principal_coordinates,
)
from atlas_builder.cluster.embeddings import principal_coordinates as principal_plane

__all__ = ["Floats", "Plane", "cosine_distances", "neuron_embeddings", "principal_coordinates", "principal_plane"]

"""Deprecated: `atlas_builder.cluster.embeddings` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.embeddings import *  # noqa: F403
from atlas_builder.cluster.embeddings import principal_coordinates as principal_plane  # noqa: F401

"""Deprecated: `atlas_builder.cluster.clustering` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.clustering import *  # noqa: F403
from atlas_builder.cluster.clustering import paper_distances as contrast  # noqa: F401

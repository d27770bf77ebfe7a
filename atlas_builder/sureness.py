"""Deprecated: `atlas_builder.cluster.stability` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.stability import *  # noqa: F403
from atlas_builder.cluster.stability import StabilityMeasures as Sureness  # noqa: F401
from atlas_builder.cluster.stability import stability_measures as sureness  # noqa: F401

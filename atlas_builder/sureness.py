"""Deprecated: `atlas_builder.cluster.stability` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.stability import (
    Interval,
    StabilityMeasures,
    effective_interval,
    mono_score,
    stability,
    stability_measures,
)
from atlas_builder.cluster.stability import StabilityMeasures as Sureness
from atlas_builder.cluster.stability import stability_measures as sureness

__all__ = [
    "Interval",
    "StabilityMeasures",
    "Sureness",
    "effective_interval",
    "mono_score",
    "stability",
    "stability_measures",
    "sureness",
]

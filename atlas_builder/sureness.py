"""Deprecated: `atlas_builder.cluster.stability` by its former name, until 0.7."""

from __future__ import annotations

from atlas_builder.cluster.stability import *  # noqa: F403
